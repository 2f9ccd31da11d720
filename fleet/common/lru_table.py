"""A table that holds so many entries and forgets the one that was used longest ago, in constant time.

An ordered dict and not a plain one: the first key of a plain dict is found by walking over all that were deleted
before it, which takes 80 us with 65,536 entries where this takes one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class LruTable(OrderedDict[K, V]):
    """At most `most` entries. `get` and `[]` read without counting as use; `use` and `put` count."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def use(self, key: K, make: Callable[[], V]) -> V:
        """The entry of `key`, made if need be."""
        entry = self.get(key)
        if entry is None:
            entry = make()
            self.put(key, entry)
        else:
            self.move_to_end(key)
        return entry

    def put(self, key: K, value: V) -> K | None:
        """Enter or replace; returns the key that was used longest ago, if its entry had to go for this one."""
        self[key] = value
        self.move_to_end(key)
        return self.popitem(last=False)[0] if len(self) > self._most else None
