"""The JSON Schema of what routes answer, read from their types (`web.admin.kit.answers`).

Fields that a type does not name may be there too: clients must ignore what they do not know. An answer of any content
is `dict`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Final, Literal, NewType, Union, get_args, get_origin

from msgspec import Struct, UnsetType, structs


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of some words that are no enumeration, as in `Annotated[str, OneOf(WORDS)]`."""

    words: tuple[str, ...]


_PLAIN: Final[Mapping[type, dict[str, Any]]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    dict: {"type": "object"},
    object: {},
    type(None): {"type": "null"},
}


def schema(kind: Any) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a type. Raises TypeError or KeyError for what no answer is made of."""
    if not isinstance(kind, type) or get_origin(kind) is not None:
        return _composed(kind)
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
        found = schema(args[0])
        for each in args[1:]:
            found |= {"enum": list(each.words)} if isinstance(each, OneOf) else {"description": each}
        return found
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
