"""Reading JSON bodies as Go does: keys in any case, the last one wins, what follows the first value is ignored.

The fleet has its own reader (`fleet/protocol/json/go_json.py`): on purpose the simulator shares no code with it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

import orjson

from web.simulator.engine.errors import ApiError

_LOOKING: Final = {
    "Expecting value": "looking for beginning of value",
    "Expecting property name enclosed in double quotes": "looking for beginning of object key string",
    "Expecting ':' delimiter": "after object key",
    "Expecting ',' delimiter": "after object key:value pair",
    "Illegal trailing comma before end of object": "looking for beginning of object key string",
    "Illegal trailing comma before end of array": "looking for beginning of value",
}
_GO_TYPES: Final[dict[type, str]] = {
    str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object",
}  # fmt: skip
Shape = Mapping[str, tuple[type | tuple[type, ...], str]]
"""Per key: the Python types that fit, and what Go calls the field's type."""

CHAT: Final[Shape] = {
    "model": (str, "string"),
    "prompt": (str, "string"),
    "suffix": (str, "string"),
    "system": (str, "string"),
    "messages": (list, "[]api.Message"),
    "stream": (bool, "bool"),
    "raw": (bool, "bool"),
    "options": (dict, "map[string]interface {}"),
    "images": (list, "[]api.ImageData"),
    "shift": (bool, "bool"),
    "truncate": (bool, "bool"),
    "tools": (list, "[]api.Tool"),
}


_INTEGER: Final = (int, "int")
_NUMBER: Final = ((int, float), "float64")
OPENAI: Final[Shape] = {
    "model": (str, "string"),
    "prompt": (str, "string"),
    "suffix": (str, "string"),
    "messages": (list, "[]openai.Message"),
    "tools": (list, "[]api.Tool"),
    "stream": (bool, "bool"),
    "stream_options": (dict, "openai.StreamOptions"),
    "max_tokens": _INTEGER,
    "seed": _INTEGER,
    **dict.fromkeys(("temperature", "top_p", "frequency_penalty", "presence_penalty"), _NUMBER),
}
RESPONSES: Final[Shape] = {
    "model": (str, "string"),
    "instructions": (str, "string"),
    "stream": (bool, "bool"),
    "max_output_tokens": _INTEGER,
    **dict.fromkeys(("temperature", "top_p"), _NUMBER),
}
MESSAGES: Final[Shape] = {
    "model": (str, "string"),
    "messages": (list, "[]anthropic.MessageParam"),
    "tools": (list, "[]anthropic.Tool"),
    "thinking": (dict, "anthropic.ThinkingConfig"),
    "stream": (bool, "bool"),
    "max_tokens": _INTEGER,
    "stop_sequences": (list, "[]string"),
    **dict.fromkeys(("temperature", "top_p"), _NUMBER),
}
"""Its `system` may be a text or a list of blocks."""


def read_object(body: bytes, *, name: str, empty: str, shape: Shape = CHAT) -> dict[str, Any]:
    """The first JSON object in `body`, keys in lower case. `name` is Go's type in messages. Raises `ApiError` 400."""
    if not body.strip():
        raise ApiError(400, empty)
    value = _decode(body)
    if not isinstance(value, dict):
        raise ApiError(400, f"json: cannot unmarshal {_go_type(value)} into Go value of type api.{name}")
    for key, (fits, go_type) in shape.items():
        found = value.get(key)
        if found is not None and not _fits(found, fits):
            given = f"number {found}" if go_type == "int" and type(found) is float else _go_type(found)
            raise ApiError(400, f"json: cannot unmarshal {given} into Go struct field {name}.{key} of type {go_type}")
        if isinstance(found, dict) and any(type(each) is float and not math.isfinite(each) for each in found.values()):
            raise ApiError(400, f"json: cannot unmarshal number into Go struct field {name}.{key} of type float64")
    return value


def _fits(found: object, fits: type | tuple[type, ...]) -> bool:
    """Python takes True for a number; nobody takes what overflows one."""
    if isinstance(found, bool):
        return fits is bool
    return isinstance(found, fits) and not (isinstance(found, float) and not math.isfinite(found))


def _go_type(value: object) -> str:
    return "null" if value is None else _GO_TYPES.get(type(value), "string")


def _decode(body: bytes) -> Any:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _decode_slowly(body)
    if not isinstance(value, dict):
        return value
    folded = {key.lower(): item for key, item in value.items()}
    # Two spellings of one key: only the document itself knows which came last.
    return folded if len(folded) == len(value) else _decode_slowly(body)


def _decode_slowly(body: bytes) -> Any:
    text = body.decode("utf-8", "replace")
    stripped = text.lstrip(" \t\r\n")
    try:
        value, _ = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode(stripped)
        if isinstance(value, dict):
            pairs, _ = json.JSONDecoder(object_pairs_hook=_Pairs).raw_decode(stripped)
            return {key.lower(): _plain(item) for key, item in pairs.items}
    except json.JSONDecodeError as error:
        raise ApiError(400, _complaint(stripped, error)) from None
    return value


def _refuse_constant(text: str) -> None:
    """Python reads NaN and Infinity, which are no JSON."""
    where = "in numeric literal" if text.startswith("-") else "looking for beginning of value"
    raise ApiError(400, f"invalid character '{text.lstrip('-')[0]}' {where}")


class _Pairs:
    def __init__(self, items: list[tuple[str, Any]]) -> None:
        self.items = items


def _plain(value: Any) -> Any:
    if isinstance(value, _Pairs):
        return {key: _plain(item) for key, item in value.items}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _complaint(text: str, error: json.JSONDecodeError) -> str:
    if error.pos >= len(text.rstrip()) or error.msg.startswith(("Unterminated", "Invalid \\u")):
        return "unexpected EOF"
    at = error.pos
    if error.msg.startswith("Illegal trailing comma"):  # Python 3.13 points at the comma, Go at what follows it
        at = len(text) - len(text[at + 1 :].lstrip())
    return f"invalid character '{_shown(text[at])}' {_LOOKING.get(error.msg, 'in string literal')}"


def _shown(character: str) -> str:
    """A byte order mark is complained about by its first byte."""
    return "ï" if character == "\ufeff" else character
