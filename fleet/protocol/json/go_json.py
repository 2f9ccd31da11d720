"""Walks a JSON object as Go's decoder does, fast and within bounds.

That decoder is not Python's: keys match without regard to case, the last of several equal keys wins, what follows the
first value is ignored, invalid UTF-8 and lone surrogates are taken, a byte order mark is not.

How, and what it costs. One pass of msgspec checks the syntax of the whole body in C (about 0.2 ms per MiB) and notes
where the values of the usual big keys lie. Then a walk over the top level reads the keys in order; a big value is
stepped over by comparing it with what msgspec noted (a memcmp), any other by a regular expression. The two views must
agree byte by byte, so no second opinion can differ. A body over 32 KiB that needs more than that, for a large value
under a key that nobody uses or for something behind the first value, is for `json.long_object`, which works in steps.

The simulator has its own reader (`web/simulator/engine/go_json.py`): on purpose it shares no code with what it tests.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from functools import lru_cache
from typing import Final

import msgspec

from fleet.common.steps import finished
from fleet.protocol.json.value_span import NEAR, STRING, Unreadable, container_end, near_end

MEMBERS: Final = 1024
"""More top-level keys than this make a body unreadable to us; no client sends more than a few dozen."""
MENDED: Final = 1000
"""Halves of surrogate pairs in a body; no client cuts more strings than that."""
LONG: Final = 32 * 1024
"""Bytes of a body from which on only C code that is fast on any input may pass over it in one go."""
SMALL: Final = 16 * 1024
"""Bytes of a body up to which a text is sooner matched than compared."""

_KEY = re.compile(rb"[ \t\r\n]*+(" + STRING + rb")[ \t\r\n]*+:[ \t\r\n]*+", re.DOTALL)
_SIMPLE = re.compile(
    rb"[ \t\r\n]*+(" + STRING + rb")[ \t\r\n]*+:[ \t\r\n]*+(" + STRING + rb"|[a-z0-9-][^,} \t\r\n]*+)[ \t\r\n]*+([,}])",
    re.DOTALL,
)
_TEXT = re.compile(STRING, re.DOTALL)
_SCALAR = re.compile(rb"[^,}\] \t\r\n]++")
_NEXT = re.compile(rb"[ \t\r\n]*+([,}])")
_OPENING = re.compile(rb"[ \t\r\n]*+\{")
_SURROGATE = rb"\\u[dD][89a-fA-F]"
_HAS_SURROGATE = re.compile(_SURROGATE)
_PAIR = rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE_SURROGATE = re.compile(_SURROGATE + rb"[0-9a-fA-F]{2}")
_UP_TO_LONE_SURROGATE = re.compile(rb"(?:[^\\]++|" + _PAIR + rb"|(?!" + _SURROGATE + rb")\\.)*+", re.DOTALL)


class _Big(msgspec.Struct, gc=False):
    """The keys whose values may be large. msgspec notes where each (last) value lies, without decoding it."""

    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    images: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    functions: msgspec.Raw = msgspec.Raw()
    system: msgspec.Raw = msgspec.Raw()
    instructions: msgspec.Raw = msgspec.Raw()
    template: msgspec.Raw = msgspec.Raw()
    suffix: msgspec.Raw = msgspec.Raw()
    context: msgspec.Raw = msgspec.Raw()
    format: msgspec.Raw = msgspec.Raw()
    response_format: msgspec.Raw = msgspec.Raw()
    text: msgspec.Raw = msgspec.Raw()
    logit_bias: msgspec.Raw = msgspec.Raw()
    metadata: msgspec.Raw = msgspec.Raw()
    files: msgspec.Raw = msgspec.Raw()
    license: msgspec.Raw = msgspec.Raw()


class Laborious(Exception):
    """This body takes more work than may be done in one go: it is for `long_object`. Never leaves `body_fields`."""


_big = msgspec.json.Decoder(_Big)
_string = msgspec.json.Decoder(str)
_BIG_KEYS: Final = frozenset(_Big.__struct_fields__)


def members(body: bytes, wanted: Container[str]) -> Iterator[tuple[str, bytes]]:
    """The members of the object that is the first value of `body`, in order: folded key, bytes of the value.

    Values of keys that are not `wanted` may be left empty. Raises `Unreadable`, `Laborious` for some bodies over `LONG`
    bytes, or RecursionError for deep nesting.
    """
    body, big = _check(body)
    position = _end(_OPENING.match(body))
    noted: dict[str, bytes] = {}
    small = len(body) <= SMALL
    for _ in range(MEMBERS):
        member = _SIMPLE.match(body, position) if small else None
        if member is not None:
            token, value, after = member.groups()
            position = member.end()
            yield folded(token), value
        else:
            member = _KEY.match(body, position, position + LONG)
            if member is None or member.end() == position + LONG:
                if len(body) > LONG:
                    raise Laborious
                return  # an empty object
            key = folded(member[1])
            end = _value_end(body, member.end(), _noted(big, key, noted))
            if end - member.end() == len(noted.get(key, b"")):
                noted[key] = b""  # found: the next copy, for the caller, then takes its place in memory
            yield key, body[member.end() : end] if key in wanted else b""
            position = _end(_NEXT.match(body, end))
            after = body[position - 1 : position]
        if after == b"}":
            return
    raise Unreadable


def decode_text(token: bytes) -> str:
    """The text of a JSON string, bad UTF-8 replaced."""
    try:
        return _string.decode(token)
    except UnicodeDecodeError:
        return _string.decode(token.decode("utf-8", "replace").encode("utf-8"))


def _check(body: bytes) -> tuple[bytes, _Big]:
    """Check the syntax of the first JSON value; give it back without what follows, with the big values noted."""
    try:
        return body, _big.decode(body)
    except msgspec.DecodeError:
        if len(body) > LONG:
            raise Laborious from None
        body = mended(body)
    start = _OPENING.match(body)
    if start is None:
        raise Unreadable
    try:
        body = body[: _skip_container(body, start.end() - 1)]
        return body, _big.decode(body)
    except msgspec.DecodeError:
        raise Unreadable from None


def mended(body: bytes) -> bytes:
    """Half a surrogate pair is U+FFFD to Go and an error to msgspec. Clients that cut strings do send them."""
    if _HAS_SURROGATE.search(body) is None:
        return body
    parts, position = [], 0
    for _ in range(MENDED + 1):
        run = _UP_TO_LONE_SURROGATE.match(body, position)
        lone = _LONE_SURROGATE.match(body, _end(run))
        parts.append(body[position : _end(run)])
        if lone is None:
            return b"\\ufffd".join(parts) + body[_end(run) :]
        position = lone.end()
    raise Unreadable


def _noted(big: _Big, key: str, noted: dict[str, bytes]) -> bytes:
    """The value that msgspec noted under a key, copied once however often the key comes; empty if there is none."""
    if key in _BIG_KEYS and key not in noted:
        noted[key] = bytes(getattr(big, key))
    return noted.get(key, b"")


def _value_end(body: bytes, start: int, noted: bytes) -> int:
    if body[start] not in b'"[{':
        return _end(_SCALAR.match(body, start))
    if noted and body.startswith(noted, start):
        return start + len(noted)
    if body[start] != 0x22:
        return _skip_container(body, start)
    text = _TEXT.match(body, start, start + LONG)
    if text is None and len(body) > LONG:
        raise Laborious
    return _end(text)


def _skip_container(body: bytes, start: int) -> int:
    """The end of the array or object that begins at `start`; only brackets are counted, the syntax is msgspec's job."""
    if (end := near_end(body, start, 0, start + NEAR)) > 0:
        return end
    if len(body) > LONG:
        raise Laborious
    return finished(container_end(body, start))


def _end(match: re.Match[bytes] | None) -> int:
    if match is None:
        raise Unreadable
    return match.end()


def folded(token: bytes) -> str:
    """A key as Go compares it; empty for one that cannot be ours.

    ASCII case is folded, and the two other letters that fold to ASCII ones: the long s and the Kelvin sign.
    """
    return _fold_short(token) if len(token) <= 256 else ""


@lru_cache(maxsize=512)
def _fold_short(token: bytes) -> str:
    if b"\\" not in token and token.isascii():
        return token[1:-1].decode("ascii").lower()
    text = decode_text(token).replace("\u017f", "s").replace("\u212a", "k")
    return text.lower() if text.isascii() else ""
