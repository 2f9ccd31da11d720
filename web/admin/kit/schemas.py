"""The shapes of the admin API's bodies, written as Python literals, and as JSON Schema.

A shape is `bool`, `int`, `float`, `str`, `dict` (an object of any content) or `object` (anything at all); a dict of
shapes by field name, a list with one shape, or one of the wrappers below. Fields that a shape does not name may be
there too: clients must ignore what they do not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

Shape = Any


@dataclass(frozen=True, slots=True)
class Maybe:
    """The shape, or null."""

    shape: Shape


@dataclass(frozen=True, slots=True)
class Optional:
    """A field that may be absent."""

    shape: Shape


@dataclass(frozen=True, slots=True)
class Each:
    """An object whose every value has the shape; its keys are names (of servers, models ...)."""

    shape: Shape


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of some words."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Said:
    """A shape with a word about its unit or meaning."""

    shape: Shape
    about: str


MS: Final = Said(int, "milliseconds")
SECONDS: Final = Said(float, "seconds")
EPOCH_MS: Final = Said(int, "milliseconds since 1970")
ISO: Final = Said(str, "ISO 8601, UTC")
SHARE: Final = Said(float, "0 to 1")
BYTES: Final = Said(int, "bytes")
OK: Final[dict[str, Shape]] = {"success": bool}
MESSAGE: Final[dict[str, Shape]] = {"success": bool, "message": str}

_PLAIN: Final[Mapping[type, dict[str, Any]]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    dict: {"type": "object"},
    object: {},
}


def schema(shape: Shape) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a shape."""
    match shape:
        case type():
            return dict(_PLAIN[shape])
        case Mapping():
            return _object(shape)
        case [item]:
            return {"type": "array", "items": schema(item)}
        case Each(shape=inner):
            return {"type": "object", "additionalProperties": schema(inner)}
        case Maybe(shape=inner):
            return {"anyOf": [schema(inner), {"type": "null"}]}
        case Optional(shape=inner):
            return schema(inner)
        case OneOf(words=words):
            return {"type": "string", "enum": list(words)}
        case Said(shape=inner, about=about):
            return {**schema(inner), "description": about}
    raise TypeError(f"not a shape: {shape!r}")


def _object(fields: Mapping[str, Shape]) -> dict[str, Any]:
    required = [name for name, shape in fields.items() if not isinstance(shape, Optional)]
    found: dict[str, Any] = {"type": "object", "properties": {name: schema(shape) for name, shape in fields.items()}}
    return {**found, "required": required} if required else found
