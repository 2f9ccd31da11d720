"""The beginnings of a prompt as chained keyed hashes: equal links mean equal beginnings, up to that byte.

Formula: BLAKE2b of eight bytes under a key that is handed in (random for each process, never written down), over the
model and then the prompt in the order in which Ollama renders it: tools, system, messages. A link stands at the end of
each part, between messages and at every 4 KiB; 32 at most, the first eight and the last. Units: bytes.

How it is cheap: nothing is parsed. The values come as the raw bytes that routing has split off anyway. Messages are
told apart by the bytes `},{"`, which cannot stand within a JSON string (there the quote is escaped); where they do
stand elsewhere they make a link too many. A link depends on the bytes before it alone, so a longer chat has the same
ones. The first 32 KiB are hashed whole, of the rest 256 bytes in every 4 KiB, nothing beyond 512 KiB: a prompt that
differs only in between is taken for the same, and costs a prefill, not a wrong answer.

What it is wrong about: a client that writes the same messages in other bytes (key order, spaces, a marker for caching
that wanders) has another chain; the answer of the turn before is cached too and not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Final, NamedTuple

from fleet.common.ids import ModelName

BLOCK: Final = 4096
WHOLE: Final = 8 * BLOCK
FURTHEST: Final = 128 * BLOCK
MOST_LINKS: Final = 32
FIRST: Final = 8
_SAMPLE: Final = 256
_TAIL: Final = 64
"""Bytes at the end of a list in which its brackets and spaces are looked for."""
_BEFORE: Final = ("tools", "system", "instructions", "context")
_BODY: Final = ("messages", "input", "prompt")
FIELDS: Final = (*_BEFORE, *_BODY)
"""The members of a body that make up the prompt, in the order in which they are rendered."""
_SEPARATORS: Final = (b'},{"', b'}, {"')
_SYSTEM: Final = (b'role":"system', b'role": "system', b'role":"developer', b'role": "developer')
_MOST_SYSTEM: Final = 8
_IMAGES: Final = (b";base64,", b'"images":["', b'"images": ["', b'"data":"', b'"data": "')
_MOST_IMAGES: Final = 64
IMAGE: Final = 256
"""Bytes from which on what follows such a mark is an image."""


class PromptLink(NamedTuple):
    """A beginning of a prompt: its hash, and how many bytes of the prompt it holds."""

    digest: int
    end: int


class PromptLinks:
    """Makes links under one key. `key`: up to 64 random bytes."""

    def __init__(self, key: bytes) -> None:
        self._seed = blake2b(key=key, digest_size=8)

    def links(self, model: ModelName, fields: Mapping[str, bytes]) -> list[PromptLink]:
        """The links of a prompt, the shortest first. `fields`: raw JSON values by the names in `FIELDS`."""
        chain = self._seed.copy()
        chain.update(model.encode("utf-8", "surrogatepass"))
        found: list[PromptLink] = []
        before = 0
        for name in FIELDS:
            value = fields.get(name)
            if value:
                chain.update(name.encode())
                if name in _BODY:
                    _move_system_first(chain, value)
                found.extend(PromptLink(digest, before + end) for digest, end in _walk(chain, value))
                before += len(value)
        return found if len(found) <= MOST_LINKS else found[:FIRST] + found[FIRST - MOST_LINKS :]

    def session(self, model: ModelName, kind: str, value: str) -> int:
        """A link for what a client calls a session. `kind`: where it said so (`X-Session-Id`, `prompt_cache_key`)."""
        chain = self._seed.copy()
        for part in ("session", kind, value[:1024], model):
            chain.update(part.encode("utf-8", "surrogatepass") + b"\0")
        return int.from_bytes(chain.digest(), "big")


def image_bytes(value: bytes) -> int:
    """How many bytes of a raw JSON value are images in base64: they are no text, and make other tokens."""
    total = 0
    for mark in _IMAGES:
        at = value.find(mark)
        for _ in range(_MOST_IMAGES):
            if at < 0:
                break
            start = at + len(mark)
            end = value.find(b'"', start)
            end = len(value) if end < 0 else end
            if end - start >= IMAGE and value[start : start + 5] != b"data:":  # those are found by another mark
                total += end - start
            another = mark[-2:] == b'["' and value[end : end + 3] == b'","'
            at = end + 3 - len(mark) if another else value.find(mark, end)
    return min(total, len(value))


def _walk(chain: blake2b, value: bytes) -> Iterator[tuple[int, int]]:
    """The hash at each mark of one value; the chain holds the whole value afterwards."""
    at = 0
    for mark in _marks(value):
        chain.update(value[at:mark])
        at = mark
        yield int.from_bytes(chain.copy().digest(), "big"), mark
    whole = min(len(value), WHOLE)
    chain.update(value[at:whole])
    for block in range(WHOLE, min(len(value), FURTHEST) - BLOCK + 1, BLOCK):
        chain.update(value[block : block + _SAMPLE])
        if len(value) - block <= MOST_LINKS * BLOCK:
            yield int.from_bytes(chain.copy().digest(), "big"), block + BLOCK


def _marks(value: bytes) -> list[int]:
    """Where links stand within the first 32 KiB: between messages, at every 4 KiB, at the end."""
    tail = value[-_TAIL:]
    end = len(value) - len(tail) + len(tail.rstrip(b"] \t\r\n")) if value[:1] == b"[" else len(value)
    until = min(end, WHOLE)
    marks = {*range(BLOCK, until, BLOCK), until}
    for separator in _SEPARATORS:
        at = value.find(separator, 0, until)
        for _ in range(FIRST):
            if at < 0:
                break
            marks.add(at + 1)
            at = value.find(separator, at + 1, until)
        at = value.rfind(separator, 0, until)
        for _ in range(MOST_LINKS):
            if at < 0:
                break
            marks.add(at + 1)
            at = value.rfind(separator, 0, at)
    return sorted(marks)


def _move_system_first(chain: blake2b, messages: bytes) -> None:
    """Ollama renders system messages first wherever they stand: one that comes late changes the whole prompt.

    The one that opens the list stands first anyway.
    """
    first = messages.find(b"},", 0, WHOLE)
    if first < 0 or messages[:1] != b"[":
        return
    for role in _SYSTEM:
        at = messages.find(role, first, WHOLE)
        for _ in range(_MOST_SYSTEM):
            if at < 0:
                break
            chain.update(messages[at : at + BLOCK])
            at = messages.find(role, at + BLOCK, WHOLE)
