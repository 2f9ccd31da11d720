"""The typed fields of Ollama's lists and descriptions: each is what its clients expect, or it is not there. Pure.

One field of a wrong type costs a client the whole answer: Go's decoder and pydantic refuse all of it, and with it the
models of every other server. What can be read in another way is put right (a number in quotes), the rest is left out.
Keys that are not known here pass as they came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from fleet.common import model_names
from fleet.protocol import timestamps

Row = dict[str, object]
Reader = Callable[[object], object]

_DIGEST: Final = 12
"""`ollama list` and `ollama ps` cut a digest there, and end with a panic if it is shorter."""
_LARGEST: Final = 2**63 - 1
_DIGITS: Final = 18


def _text(value: object) -> object:
    return value if isinstance(value, str) else None


def _count(value: object) -> object:
    """A whole number from 0, as Go's int64: in quotes or with `.0` it is the same number."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _DIGITS:
        value = int(value)
    if isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST / 2:
        value = int(value)
    counts = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST
    return value if counts else None


def _texts(value: object) -> object:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list | tuple) else None


def _object(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else None


def _digest(value: object) -> object:
    return (value if isinstance(value, str) else "").ljust(_DIGEST, "0")


def _details(value: object) -> object:
    """An object in any case: pages look into it without asking what it is."""
    return mended(value, _DETAILS) if isinstance(value, Mapping) else {}


def _objects(readers: Mapping[str, Reader]) -> Reader:
    def read(value: object) -> object:
        if not isinstance(value, list | tuple):
            return None
        return [mended(each, readers) for each in value if isinstance(each, Mapping)]

    return read


def _counts(value: object) -> object:
    return value if isinstance(value, list) and all(_count(each) is not None for each in value) else None


_DETAILS: Final[Mapping[str, Reader]] = {
    **dict.fromkeys(("parent_model", "format", "family", "parameter_size", "quantization_level"), _text),
    **dict.fromkeys(("context_length", "embedding_length"), _count),
    "families": _texts,
}
_ROW: Final[Mapping[str, Reader]] = {
    **dict.fromkeys(("name", "model", "remote_model", "remote_host"), _text),
    **dict.fromkeys(("size", "size_vram", "context_length"), _count),
    **dict.fromkeys(("modified_at", "expires_at"), timestamps.readable),
    "capabilities": _texts,
    "details": _details,
    "digest": _digest,
}
_MESSAGE: Final[Mapping[str, Reader]] = {
    **dict.fromkeys(("role", "content", "thinking", "tool_name", "tool_call_id"), _text),
    "images": _texts,
    "tool_calls": _objects({"id": _text, "function": _object}),
}
_SHOWN: Final[Mapping[str, Reader]] = {
    **dict.fromkeys(("license", "modelfile", "parameters", "template", "system", "renderer", "parser"), _text),
    **dict.fromkeys(("remote_model", "remote_host", "requires"), _text),
    **dict.fromkeys(("model_info", "projector_info"), _object),
    "messages": _objects(_MESSAGE),
    "tensors": _objects({"name": _text, "type": _text, "shape": _counts}),
    "capabilities": _texts,
    "details": _details,
    "modified_at": timestamps.readable,
}
_NULLABLE: Final = frozenset(("families", "capabilities", "messages", "tensors"))
"""Lists, which Ollama itself writes as null when they are empty."""


def mended(value: Mapping[Any, object], readers: Mapping[str, Reader]) -> Row:
    """A copy whose known fields are as they should be; what cannot be put right is left out.

    Go's decoder takes `Size` for `size`, so it is held to the same.
    """
    kept: Row = {}
    for key, each in value.items():
        reader = readers.get(key) or readers.get(key.casefold())
        if reader is None or (each is None and key in _NULLABLE):
            kept[key] = each
        elif (read := reader(each)) is not None:
            kept[key] = read
    return kept


def name_of(row: Mapping[Any, object]) -> str:
    """The name of a row of a list: `name`, else `model` (Ollama sends both, old versions only the first).

    Empty if neither is a name that a model can have, in characters that can be printed: it goes into logs and labels.
    Nothing else decides whether a row is that of a model.
    """
    return _name(row.get("name")) or _name(row.get("model"))


def _name(value: object) -> str:
    return value if isinstance(value, str) and value.isprintable() and model_names.canonical(value) else ""


def row(given: Mapping[Any, object]) -> Row:
    """A row of `/api/tags` or `/api/ps` that no client stumbles over, both names and `digest` included."""
    made = mended(given, _ROW)
    name = name_of(given)
    made["name"] = name
    made["model"] = _name(made.get("model")) or name
    made["digest"] = _digest(made.get("digest"))
    return made if _can_be_written(made) else _known_of(made, _ROW)


def description(given: Mapping[Any, object]) -> Row:
    """An answer of `/api/show` that no client stumbles over. It always has `model_info`, which Python's requires."""
    made = mended(given, _SHOWN)
    made.setdefault("model_info", {})
    return made if _can_be_written(made) else _known_of(made, _SHOWN)


def _can_be_written(made: Row) -> bool:
    """Whether it may stand in an answer of ours: what is nested more deeply can be read and not be written."""
    try:
        orjson.dumps([[[[made]]]])
    except (TypeError, orjson.JSONEncodeError):
        return False
    return True


def _known_of(made: Row, readers: Mapping[str, Reader]) -> Row:
    """Only the fields that are known here."""
    plain = {key: value for key, value in made.items() if key in readers or key in ("name", "model")}
    details = plain.get("details")
    if isinstance(details, dict):
        plain["details"] = {key: value for key, value in details.items() if key in _DETAILS}
    return {key: value for key, value in plain.items() if _can_be_written({key: value})}
