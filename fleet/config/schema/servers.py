"""One Ollama server as the operator describes it, in the file or through the admin API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, PlainValidator, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from fleet.common.ids import ServerId
from fleet.config.schema.problems import Conflicts
from fleet.config.schema.types import Id, Says, Secret, Section, Whole
from fleet.config.schema.urls import LONGEST_URL, clean_url, normalise_url

MOST_SERVERS = 1000
RESERVED_IDS: Final = frozenset(("add", "model", "prometheus", "recent", "recovery-tests", "search", "server", "stats"))
"""Words that stand in routes of the admin API where others have a server's id: such a server could not be reached."""


def _not_reserved(value: ServerId) -> ServerId:
    if value in RESERVED_IDS:
        words = ", ".join(sorted(RESERVED_IDS))
        raise ValueError(f"is a word of the admin API's own routes: choose an id other than {words}")
    return value


FreeId = Annotated[Id, AfterValidator(_not_reserved)]
Url = Annotated[str, Field(max_length=LONGEST_URL), AfterValidator(clean_url), Says("an http:// or https:// URL")]
Tag = Annotated[str, Field(min_length=1, max_length=64)]


MOST_AT_ONCE: Final = 1024
AUTO: Final = "auto"
_CAP: Final = TypeAdapter[int](Annotated[Whole, Field(ge=1, le=MOST_AT_ONCE)])


def _cap(value: object) -> object:
    if isinstance(value, str) and value.strip().lower() == AUTO:
        return AUTO
    try:
        return _CAP.validate_python(value)
    except ValidationError as error:
        raise PydanticCustomError("cap_expected", "is no whole number from 1 to 1024, nor auto") from error


MaxConcurrency = Annotated[
    int | Literal["auto"],
    PlainValidator(_cap, json_schema_input_type=Annotated[int, Field(ge=1, le=MOST_AT_ONCE)] | Literal["auto"]),
    Says(f"a whole number from 1 to {MOST_AT_ONCE}, or auto"),
]
"""How many requests a server may have at one time; `auto`: as many as its runners are seen to serve at once."""


class ServerSpec(Section):
    """An Ollama server of the fleet."""

    id: FreeId = Field(description="Name of the server, unique in the fleet.")
    url: Url = Field(description="Base URL of the server; http or https, a path is allowed.")
    max_concurrency: MaxConcurrency = Field(
        4, description="Requests at one time; auto: as many as its runners are seen to serve at once."
    )
    priority: Whole = Field(1, ge=-100, le=100, description="Higher is preferred.")
    tags: tuple[Tag, ...] = Field((), max_length=64, description="Free words to filter by.")
    api_key: Secret | None = Field(None, description="Sent to the server as a bearer token, or env:NAME.")

    @property
    def cap(self) -> int:
        """The most requests that it may have at one time, whatever is learned."""
        return MOST_AT_ONCE if self.max_concurrency == AUTO else self.max_concurrency

    @property
    def learns(self) -> bool:
        """Whether what its runners are seen to serve at once bounds what they get."""
        return self.max_concurrency == AUTO

    @property
    def plain_key(self) -> str:
        """The key as the server wants to see it, and nobody else; empty without one."""
        return self.api_key.get_secret_value() if self.api_key else ""


def check_unique(servers: Iterable[ServerSpec]) -> None:
    """Raises `Conflicts` naming every server whose id or URL another one has already."""
    seen: dict[tuple[str, str], int] = {}
    found: list[tuple[str, str]] = []
    for index, spec in enumerate(servers):
        for key, value in (("id", spec.id), ("url", normalise_url(spec.url))):
            first = seen.setdefault((key, value), index)
            if first != index:
                found.append((f"{index}.{key}", f"means the same as servers.{first}.{key}: remove or change one"))
    if found:
        raise Conflicts(found)
