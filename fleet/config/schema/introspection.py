"""What a field of the model is, seen from outside: messages, tables, environment names and reading all ask here.

The model is the only source; nothing in this package repeats a bound, a default or a name.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import annotated_types as at
from pydantic import AliasChoices, BaseModel, SecretStr
from pydantic.fields import FieldInfo

from fleet.config.schema.types import Says, Unit

WORDS: Final = {"seconds": "a number of seconds", "milliseconds": "a whole number of milliseconds"}
BASES: Final = {int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Shape:
    """One field: its type without wrapping, whether it may be missing or many, and its bounds."""

    base: Any = None
    optional: bool = False
    many: bool = False
    most: int | None = None
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    shortest: int | None = None
    longest: int | None = None
    unit: str = ""
    says: str = ""

    @property
    def model(self) -> type[BaseModel] | None:
        """The model, if this is a section or a list of sections."""
        return self.base if isinstance(self.base, type) and issubclass(self.base, BaseModel) else None

    @property
    def secret(self) -> bool:
        """Whether the value must never be shown."""
        return self.base is SecretStr

    @property
    def text(self) -> bool:
        """Whether the value is taken as it is written, without looking for numbers in it."""
        return bool(self.choices) or self.base in (str, SecretStr)

    def item(self) -> Shape:
        """The shape of one element of a list."""
        return replace(self, many=False, optional=False)

    def expected(self) -> str:
        """What the value must be, in words: completes the sentence "must be ..."."""
        if self.many:
            return "a list" + (f" of at most {self.most}" if self.most else "")
        if self.says:
            return self.says
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.model is not None:
            return "a section: keys with values"
        return WORDS.get(self.unit) or BASES.get(self.base) or "text"

    def bounds(self) -> str:
        """The bounds of a number or of the length of a text, in words; empty if there are none."""
        if self.low is not None and self.high is not None:
            return f"{self.low:.15g} to {self.high:.15g}"
        if self.shortest is not None and self.longest is not None:
            return f"{self.shortest} to {self.longest} characters"
        return f"at most {self.longest} characters" if self.longest is not None else ""

    def sentence(self) -> str:
        """`expected` with the bounds, as a message needs it."""
        if self.many or self.says or self.choices or not self.bounds():
            return self.expected()
        return f"{self.expected()} {'from' if self.low is not None else 'of'} {self.bounds()}"


@cache
def fields(model: type[BaseModel]) -> Sequence[tuple[str, FieldInfo, Shape]]:
    """Every field of a model: its name, pydantic's description of it, and its shape."""
    return tuple((name, info, shape_of(info)) for name, info in model.model_fields.items())


@cache
def shapes_of(model: type[BaseModel]) -> Mapping[str, Shape]:
    """The shapes of a model's fields by their names."""
    return MappingProxyType({name: shape for name, _, shape in fields(model)})


@cache
def spellings(model: type[BaseModel]) -> Mapping[str, str]:
    """Every accepted spelling of every key of a model, and the field it means."""
    found: dict[str, str] = {}
    for name, info in model.model_fields.items():
        aliases = info.validation_alias
        choices = aliases.choices if isinstance(aliases, AliasChoices) else [aliases]
        found |= {str(each): name for each in (name, *choices) if isinstance(each, str)}
    return MappingProxyType(found)


def shape_of(info: FieldInfo) -> Shape:
    """The shape of one field."""
    return _unwrap(info.annotation, _marked(Shape(), info.metadata))


def shape_at(model: type[BaseModel], path: Sequence[str | int]) -> Shape:
    """The shape at a path of field names and list indices, as far as the path leads into `model`."""
    shape = Shape(base=model)
    for step in path:
        if isinstance(step, int):
            shape = shape.item()
        elif shape.model is not None and step in shape.model.model_fields:
            shape = shapes_of(shape.model)[step]
        else:
            break
    return shape


def leaves(value: BaseModel, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any, Shape]]:
    """Every value of a configuration that is not itself a section: dotted path, value, shape."""
    for name, _, shape in fields(type(value)):
        inner = getattr(value, name)
        if shape.model is not None and inner:
            for key, section in enumerate(inner) if shape.many else [(None, inner)]:
                yield from leaves(section, (*path, name, *([] if key is None else [str(key)])))
        else:
            yield ".".join((*path, name)), inner, shape


def _unwrap(annotation: Any, shape: Shape) -> Shape:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _unwrap(arguments[0], _marked(shape, arguments[1:]))
    if origin in (Union, types.UnionType):
        return _unwrap(next(each for each in arguments if each is not type(None)), replace(shape, optional=True))
    if origin is tuple:
        return _unwrap(arguments[0], replace(shape, many=True, most=shape.longest, longest=None))
    if origin is Literal:
        return replace(shape, base=str, choices=arguments)
    return replace(shape, base=getattr(annotation, "__supertype__", annotation))


def _marked(shape: Shape, metadata: Sequence[Any]) -> Shape:
    """The shape with what the metadata says; a bound that is there already stays, because outer ones are narrower."""
    for mark in metadata:
        if isinstance(mark, FieldInfo):
            shape = _marked(shape, mark.metadata)
        elif isinstance(mark, at.Ge):
            shape = replace(shape, low=_first(shape.low, mark.ge))
        elif isinstance(mark, at.Le):
            shape = replace(shape, high=_first(shape.high, mark.le))
        elif isinstance(mark, at.MinLen):
            shape = replace(shape, shortest=mark.min_length)
        elif isinstance(mark, at.MaxLen):
            shape = replace(shape, longest=mark.max_length)
        elif isinstance(mark, Unit):
            shape = replace(shape, unit=mark.name)
        elif isinstance(mark, Says):
            shape = replace(shape, says=mark.text)
    return shape


def _first(old: Any, new: Any) -> Any:
    return new if old is None else old
