"""The JSON Schema of what routes answer, read from their types (`web.admin.kit.answers`).

Fields that a type does not name may be there too: clients must ignore what they do not know. Answers that have no type
yet are shapes: `bool`, `int`, `float`, `str`, `dict` (an object of any content) or `object` (anything at all); a dict
of shapes by field name, a list with one shape, or one of the wrappers below.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Final, Literal, NewType, Union, get_args, get_origin

from msgspec import Struct, UnsetType, structs

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
    """One of some words; also of words that are no enumeration, as in `Annotated[str, OneOf(WORDS)]`."""

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
    type(None): {"type": "null"},
}


def schema(shape: Shape) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a type or a shape. Raises TypeError for what is neither."""
    match shape:
        case type() if get_origin(shape) is None:
            return _named(shape)
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
    return _composed(shape)


def _object(fields: Mapping[str, Shape]) -> dict[str, Any]:
    required = [name for name, shape in fields.items() if not isinstance(shape, Optional)]
    found: dict[str, Any] = {"type": "object", "properties": {name: schema(shape) for name, shape in fields.items()}}
    return {**found, "required": required} if required else found


def _named(kind: type) -> dict[str, Any]:
    if issubclass(kind, enum.Enum):
        return {"type": "string", "enum": [each.value for each in kind]}
    return _struct(kind) if issubclass(kind, Struct) else dict(_PLAIN[kind])


def _struct(kind: type[Struct]) -> dict[str, Any]:
    """A field that has a default is there nevertheless; only UNSET is left out."""
    fields = structs.fields(kind)
    required = [each.encode_name for each in fields if UnsetType not in get_args(each.type)]
    found: dict[str, Any] = {"type": "object", "properties": {each.encode_name: schema(each.type) for each in fields}}
    return {**found, "required": required} if required else found


def _composed(annotation: Any) -> dict[str, Any]:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _annotated(*args)
    if origin in (list, Sequence):
        return {"type": "array", "items": schema(args[0])}
    if origin in (dict, Mapping):  # its keys are names: of servers, models ...
        return {"type": "object"} | ({} if args[1] is Any else {"additionalProperties": schema(args[1])})
    if origin is Literal:
        return {"type": "string", "enum": list(args)}
    if origin in (Union, UnionType):
        kinds = [each for each in args if each is not UnsetType]
        return schema(kinds[0]) if len(kinds) == 1 else {"anyOf": [schema(each) for each in kinds]}
    if isinstance(annotation, NewType):
        return schema(annotation.__supertype__)
    if annotation is Any:
        return {}
    raise TypeError(f"not a type of an answer: {annotation!r}")


def _annotated(kind: Any, *told: Any) -> dict[str, Any]:
    found = schema(kind)
    for each in told:
        found |= {"enum": list(each.words)} if isinstance(each, OneOf) else {"description": each}
    return found
