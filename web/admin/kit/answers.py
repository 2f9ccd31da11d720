"""What routes answer, as types: one class is what a view makes, what is encoded, and the JSON Schema that is promised.

A field's unit or meaning is a string beside its type: `Annotated[int, "bytes"]`. Fields are written in the order in
which the classes name them, the base class's first, and in camelCase.
"""

from __future__ import annotations

from collections.abc import Callable
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from msgspec import Struct

MS = Annotated[int, "milliseconds"]
SECONDS = Annotated[float, "seconds"]
EPOCH_MS = Annotated[int, "milliseconds since 1970"]
ISO = Annotated[str, "ISO 8601, UTC"]
SHARE = Annotated[float, "0 to 1"]
BYTES = Annotated[int, "bytes"]
IGNORED = Annotated[list[str], "keys of the reference program that mean nothing here"]
HINTS = Annotated[list[str], "what was taken, and is probably not what was meant"]


class JsonObject(Struct, rename="camel", kw_only=True, gc=False):
    """An object within an answer. A field that may be absent is `| UnsetType`, with UNSET as what stands for it.

    Each class says `kw_only=True` anew, as msgspec wants it: the fields of one that does not would come before those of
    its base class. Objects are not watched by the garbage collector, for nothing in an answer leads back to it: a list
    of a thousand servers would wake it up in vain.
    """


class Answer(JsonObject, kw_only=True):
    """The body of an answer."""

    success: bool = True


class MessageAnswer(Answer, kw_only=True):
    """What was done, in a sentence."""

    message: str


def answer_of(view: Callable[..., Any]) -> type[Struct] | None:
    """The class that a view answers with, by its annotation; None if it says nothing of one."""
    said = get_type_hints(view).get("return")
    kinds = get_args(said) if get_origin(said) in (Union, UnionType) else (said,)
    found = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Struct)]
    if len(found) > 1:
        raise TypeError(f"{view.__qualname__} answers in more ways than one: {found}")
    return found[0] if found else None
