"""A table of what was seen lately, for answers that are worth keeping but cost little to work out again."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(dict[K, V]):
    """A dict that holds at most `most` entries: it forgets all of them when it is full, which takes no bookkeeping."""

    __slots__ = ("_most",)

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def keep(self, key: K, value: V) -> None:
        """Remember one more."""
        if len(self) >= self._most:
            self.clear()
        self[key] = value
