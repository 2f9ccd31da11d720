"""Walks a long JSON object in steps, as `fleet.protocol.json.go_json` does a short one in one go.

What is read and what is skipped is the same; only the syntax inside of values that nobody reads is not looked at. Where
it is wrong, Ollama refuses the body, and says so.
"""

from __future__ import annotations

import re
from collections.abc import Container, Generator
from typing import Final

from fleet.common.steps import Steps
from fleet.protocol.json.go_json import LONG, MEMBERS, folded, mended
from fleet.protocol.json.value_span import WINDOW, Bytes, Unreadable, container_end, past_space, string_end

Found = Generator[tuple[str, bytes] | None, None, None]

_SCALAR = re.compile(rb"(?:-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?|true|false|null)(?=[ \t\r\n,}])")
_EMPTY: Final = {0x5B: (b"[]", b"[0]"), 0x7B: (b"{}", b'{"":0}')}


def long_members(body: Bytes, wanted: Container[str], whole: Container[str]) -> Found:
    """The members of the object that is the first value of `body`, in order: folded key, bytes of the value.

    None in between is the end of a step. Values of keys that are not `wanted` are empty; of a value over 32 KiB only
    its kind can be relied on, and whether it is empty. Raises `Unreadable`, also for such a value of a key in `whole`.
    """
    at = yield from past_space(body, 0)
    at = yield from past_space(body, _one_of(body, at, b"{"))
    if body[at : at + 1] == b"}":
        return
    for _ in range(MEMBERS):
        start = _one_of(body, at, b'"') - 1
        at = yield from string_end(body, start)
        key = folded(mended(bytes(body[start:at]))) if at - start <= WINDOW else ""
        at = yield from past_space(body, at)
        start = yield from past_space(body, _one_of(body, at, b":"))
        at = yield from _value_end(body, start)
        if key in whole and at - start > LONG:
            raise Unreadable
        yield key, (yield from _value(body, start, at)) if key in wanted else b""
        at = yield from past_space(body, at)
        at = _one_of(body, at, b",}")
        if body[at - 1] == 0x7D:
            return
        at = yield from past_space(body, at)
    raise Unreadable


def _one_of(body: Bytes, at: int, wanted: bytes) -> int:
    """Just behind the byte at `at`, which must be one of these."""
    if at >= len(body) or body[at] not in wanted:
        raise Unreadable
    return at + 1


def _value_end(body: Bytes, start: int) -> Steps[int]:
    first = body[start : start + 1]
    if first == b'"':
        return (yield from string_end(body, start))
    if first in (b"[", b"{"):
        return (yield from container_end(body, start))
    scalar = _SCALAR.match(body, start, start + WINDOW)
    if scalar is None:
        raise Unreadable
    return scalar.end()


def _value(body: Bytes, start: int, end: int) -> Steps[bytes]:
    """The value; of a long one the beginning of a string, or a container that is empty if it is."""
    if end - start <= LONG:
        return mended(bytes(body[start:end]))
    shapes = _EMPTY.get(body[start])
    if shapes is None:
        return bytes(body[start : start + LONG])
    inside = yield from past_space(body, start + 1)
    return shapes[inside < end - 1]
