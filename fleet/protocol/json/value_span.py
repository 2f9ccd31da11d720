"""Where a JSON value ends: found in windows of bounded size, so that no step is long, whatever the value is.

In each window the escapes are blanked out (they come in pairs from the left), which leaves only quotes that begin and
end strings; what stands between the strings is reduced to its brackets. All of that is done by C code that passes over
the window once, at some 100 MB/s; no string without an end and no nesting makes it slower than that by more than a
small factor. Syntax is not checked here: for JSON that Go takes, the answer is right; any other is Ollama's to refuse.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Final

from fleet.common.steps import Steps

Bytes = bytes | bytearray

WINDOW: Final = 16 * 1024
NEAR: Final = 2 * 1024
_DEEPEST: Final = 10_000
"""Containers within each other; Go's decoder refuses more."""
_PASSES: Final = 8
STRING: Final = rb'"(?:[^"\\]++|\\.)*+"'
# The lone quote is a string without an end: without it every quote behind would be tried anew, each up to the end.
_TOKEN = re.compile(STRING + rb'|[\[\]{}"]', re.DOTALL)
_SPACE = re.compile(rb"[ \t\r\n]*+")
_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_WEIGHTS: Final = {0x5B: 1, 0x5D: -1}


class Unreadable(Exception):
    """Go would refuse this body, or it is beyond our bounds. Never leaves `fleet.protocol.body_fields`."""


def past_space(body: Bytes, at: int) -> Steps[int]:
    """The first byte from `at` on that is no white space; the length of the body if there is none."""
    while True:
        found = _SPACE.match(body, at, at + WINDOW)
        assert found is not None
        if found.end() < at + WINDOW:
            return found.end()
        at = found.end()
        yield


def string_end(body: Bytes, at: int) -> Steps[int]:
    """Just behind the string that begins at `at`. Raises Unreadable if it has no end."""
    at += 1
    while at < len(body):
        end = _even(body, at, WINDOW)
        quote = _blanked(body[at:end]).find(b'"')
        if quote >= 0:
            return at + quote + 1
        at = end
        yield
    raise Unreadable


def container_end(body: Bytes, at: int) -> Steps[int]:
    """Just behind the array or object that begins at `at`. Raises Unreadable if it has no end, or is too deep."""
    at, depth, quoted, size = at + 1, 1, False, WINDOW
    while at < len(body):
        end = _even(body, at, size)
        parts = _blanked(body[at:end]).split(b'"')
        lowest, total = _depths(b"".join(parts[quoted::2]))
        if depth + lowest <= 0:  # it ends in here
            if size <= NEAR:
                return near_end(body, at, depth, end, quoted=quoted) or _unreadable()
            size = NEAR
            continue
        at, depth, quoted = end, depth + total, quoted ^ (len(parts) & 1 == 0)
        if depth > _DEEPEST:
            raise Unreadable
        yield
    raise Unreadable


def near_end(body: Bytes, at: int, depth: int, end: int, *, quoted: bool = False) -> int:
    """The same, bracket by bracket from `at` on, inside `depth` containers; 0 if it is not before `end`.

    `quoted`: `at` is in the middle of a string.
    """
    if quoted:
        at = at + _blanked(body[at:end]).find(b'"') + 1
    for token in _TOKEN.finditer(body, at, end):
        byte = body[token.start()]
        if byte in b"[{":
            depth += 1
        elif byte != 0x22:
            depth -= 1
        elif token.end() - token.start() == 1:
            break
        if depth <= 0:
            return token.end()
    return 0


def _unreadable() -> int:
    raise Unreadable


def _even(body: Bytes, at: int, size: int) -> int:
    """The end of a window of about `size` bytes from `at` on that cuts no escape in two."""
    end = min(at + size, len(body))
    window = body[at:end]
    odd = (len(window) - len(window.rstrip(b"\\"))) & 1
    return end + 1 if odd and end < len(body) else end


def _blanked(window: Bytes) -> Bytes:
    """The same length without escaped backslashes and quotes."""
    return window.replace(b"\\\\", b"..").replace(b'\\"', b"..") if b"\\" in window else window


def _depths(outside: Bytes) -> tuple[int, int]:
    """How far the depth falls below its start at the lowest (0 or less), and by how much it changes in all."""
    brackets = outside.translate(_SQUARE, _NO_BRACKETS)
    total = 2 * brackets.count(b"[") - len(brackets)
    for _ in range(_PASSES):
        shorter = brackets.replace(b"[]", b"")
        if len(shorter) == len(brackets):
            return -brackets.count(b"]"), total  # what is left goes down first, then up
        brackets = shorter
    return min(0, min(accumulate(map(_WEIGHTS.__getitem__, brackets)), default=0), total), total
