"""One Ollama server as the operator describes it, in the file or through the admin API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import AfterValidator, Field

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


class ServerSpec(Section):
    """An Ollama server of the fleet."""

    id: FreeId = Field(description="Name of the server, unique in the fleet.")
    url: Url = Field(description="Base URL of the server; http or https, a path is allowed.")
    max_concurrency: Whole = Field(4, ge=1, le=1024, description="Requests at one time.")
    priority: Whole = Field(1, ge=-100, le=100, description="Higher is preferred.")
    tags: tuple[Tag, ...] = Field((), max_length=64, description="Free words to filter by.")
    api_key: Secret | None = Field(None, description="Sent to the server as a bearer token, or env:NAME.")

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
