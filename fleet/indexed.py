"""A set from which a few members can be drawn at random without walking it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class Sampler(Protocol):
    """The part of `random.Random` that we need."""

    def random(self) -> float: ...


class IndexedSet(Generic[T]):
    """A list of members plus where each stands: add, discard and contains in O(1), a sample of k in O(k)."""

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

    def sample(self, most: int, chance: Sampler) -> list[T]:
        """At most `most` members; a run of neighbours from a random place (they stand in no particular order)."""
        size = len(self._items)
        if size <= most:
            return self._items
        start = int(chance.random() * size)
        return [self._items[(start + step) % size] for step in range(most)]
