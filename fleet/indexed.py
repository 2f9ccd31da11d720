"""A set that can be walked from a random place on, so that a few members can be drawn without walking it all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from fleet.chance import Chance

T = TypeVar("T")


class IndexedSet(Generic[T]):
    """A list of members plus where each stands: add, discard and contains in O(1)."""

    __slots__ = ("_items", "_where")

    def __init__(self) -> None:
        self._items: list[T] = []
        self._where: dict[T, int] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __contains__(self, item: object) -> bool:
        return item in self._where

    def add(self, item: T) -> None:
        if item not in self._where:
            self._where[item] = len(self._items)
            self._items.append(item)

    def discard(self, item: T) -> None:
        at = self._where.pop(item, None)
        if at is None:
            return
        last = self._items.pop()
        if at < len(self._items):
            self._items[at] = last
            self._where[last] = at

    def from_anywhere(self, chance: Chance) -> Iterator[T]:
        """All members, starting at a random one (they stand in no particular order). No changes meanwhile."""
        size = len(self._items)
        start = int(chance.random() * size)
        for step in range(size):
            yield self._items[(start + step) % size]
