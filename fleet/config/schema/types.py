"""The kinds of values a configuration is made of: bounds and units live here once, not on every field."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from fleet.common.ids import ServerId

WEEK: Final = 7 * 24 * 3600
ENV_REFERENCE: Final = "env:"
STAND_IN: Final = "unresolved-reference"
"""Stands for a secret that could not be found, which is a problem of its own."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Marks the unit of a number; messages and the reference table read it."""

    name: str


@dataclass(frozen=True, slots=True)
class Says:
    """Marks what a value must be, in words, where type and bounds do not say it well."""

    text: str


class Section(BaseModel):
    """Base of every part of the configuration: frozen, no unknown keys, camelCase accepted next to snake_case."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        loc_by_alias=False,
        hide_input_in_errors=True,
    )


def _no_bool(value: object) -> object:
    # Python counts True as 1, so `max_size: true` would quietly mean 1.
    if isinstance(value, bool):
        raise PydanticCustomError("number_expected", "a truth value is no number")
    return value


def _header_safe(value: SecretStr) -> SecretStr:
    """Keys travel in HTTP headers, where a line feed (from `$(cat file)`) would split the request."""
    text = value.get_secret_value()
    if text.startswith(ENV_REFERENCE):
        raise ValueError("refers to an environment variable, which only the configuration at start may do")
    if not re.fullmatch(r"[!-~]*", text):
        raise ValueError("may hold visible ASCII characters only: no spaces, no line ends")
    return value


def _http_url(value: SecretStr) -> SecretStr:
    """What stands for a reference that was not found is a problem already."""
    text = value.get_secret_value()
    if text not in ("", STAND_IN) and not re.fullmatch(r"https?://[!-~]+", text):
        raise ValueError(f"must be {_URL}")
    return value


_URL: Final = "empty, or a URL that begins with http:// or https://"

Whole = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Port = Annotated[Whole, Field(ge=0, le=65535)]
Count = Annotated[Whole, Field(ge=1, le=1_000_000)]
Share = Annotated[Number, Field(ge=0, le=1), Unit("share")]
Weight = Annotated[Number, Field(ge=0, le=100)]
Seconds = Annotated[Number, Field(ge=0.001, le=WEEK), Unit("seconds")]
Milliseconds = Annotated[Whole, Field(ge=1, le=WEEK * 1000), Unit("milliseconds")]
Bytes = Annotated[Whole, Field(ge=1024, le=2**40), Unit("bytes")]

Id = Annotated[
    ServerId,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"),
    Says("1 to 64 letters, digits, '.', '_' or '-', the first a letter or a digit"),
]
Secret = Annotated[SecretStr, Field(min_length=1, max_length=4096), AfterValidator(_header_safe)]
HttpUrl = Annotated[str, Field(max_length=2048, pattern=r"^(|https?://[!-~]+)$"), Says(_URL)]
SecretUrl = Annotated[SecretStr, Field(max_length=2048), AfterValidator(_http_url), Says(_URL)]
"""A URL that nobody is shown: whoever knows it may use it."""
ApiKey = Annotated[SecretStr, Field(min_length=8, max_length=4096), AfterValidator(_header_safe)]
