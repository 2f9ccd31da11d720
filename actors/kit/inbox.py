"""A bounded inbox: for an actor that may fall behind, and whose senders must neither wait nor fill the memory."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Inbox(Generic[T]):
    """Room for `most` items, with one reader, which it outlives: a crash loses what was in hand at the most.

    Beyond that the item that comes is dropped or, with `oldest_goes`, the one that has waited longest. Whoever offers
    is told, for it alone knows what that means. A `Mailbox` is for messages that must not be lost, each of which names
    a bound of its own; where only the latest of a kind matters (a mark, a figure), a dict by kind is the better inbox.
    """

    __slots__ = ("_items", "_most", "_oldest_goes", "_reader")

    def __init__(self, most: int, *, oldest_goes: bool = False) -> None:
        self._items: deque[T] = deque()
        self._most = most
        self._oldest_goes = oldest_goes
        self._reader = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._items)

    def offer(self, item: T) -> T | None:
        """Leave an item; returns at once, with the one that was dropped, if one was."""
        dropped = None
        if len(self._items) >= self._most:
            if not self._oldest_goes:
                return item
            dropped = self._items.popleft()
        self._items.append(item)
        if self._reader:
            self._reader.unpark()
        return dropped

    def take(self, most: int) -> list[T]:
        """Those that have waited longest, `most` of them or fewer."""
        items = self._items
        return [items.popleft() for _ in range(min(most, len(items)))]

    async def wait(self) -> None:
        """Returns when something waits, at once if it does already, or when woken. Cancelled: nothing is lost."""
        if not self._items:
            await self._reader.park()

    def wake(self) -> None:
        """Let the reader look up, though nothing may have come."""
        self._reader.unpark()
