"""Which beginnings of prompts a runner still holds in its key-value cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

_BLOCK: Final = 64
"""Characters per block (16 tokens): long enough to keep the table small, short enough to tell prompts apart."""


class PrefixCache:
    """Longest common prefix with anything seen lately, in blocks; the whole prompt counts exactly.

    Blocks are chained hashes, so looking up costs one step per block and not one per remembered prompt.
    """

    def __init__(self, blocks: int = 8192) -> None:
        self._limit = blocks
        self._known: OrderedDict[int, int] = OrderedDict()

    def common(self, text: str) -> int:
        """How many leading characters of `text` need no evaluation."""
        best = 0
        for key, length in _chain(text):
            if key not in self._known:
                break
            best = length
        return best

    def remember(self, text: str) -> None:
        """The cache now holds `text`; the beginnings longest unused are forgotten."""
        for key, length in _chain(text):
            self._known[key] = length
            self._known.move_to_end(key)
        while len(self._known) > self._limit:
            self._known.popitem(last=False)


def _chain(text: str) -> Iterator[tuple[int, int]]:
    key = 0
    for start in range(0, len(text), _BLOCK):
        block = text[start : start + _BLOCK]
        key = hash((key, block))
        yield key, start + len(block)
