"""What shall outlive the process: documents by kind and key, and the lines of the audit log.

Nobody writes to disk here. Whoever changes something worth keeping says so with `touch`, synchronously and for
nothing; the store's actor asks later, and once, for the document as it is then. A repeated `touch` costs nothing and a
crash in between loses the last moments at the most. Without a store everything works, and is forgotten at the end.

Times in documents are seconds since 1970: no process knows another's monotonic clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import trio

Document = dict[str, Any]
"""Plain JSON: numbers, strings, lists, dicts, None."""
Source = Callable[[str], Document | None]
"""Asked for the document of a key; None: there is nothing to keep (any more)."""

MOST_LINES: Final = 10_000
"""Audit lines that wait for the store; more drop the oldest, counted."""


class Journal:
    """The marks of what has changed. Written by everybody, emptied by the store's actor alone.

    Bound: one mark per entity, and every kind of entity is bounded by itself.
    """

    def __init__(self, stored: Mapping[str, Mapping[str, Document]] | None = None) -> None:
        self.stored = stored or {}
        """What the store held at the start, by kind and key."""
        self.sources: dict[str, Source] = {}
        self.touched: dict[tuple[str, str], None] = {}
        self.lines: deque[Document] = deque(maxlen=MOST_LINES)
        self.dropped_lines = 0
        self.woken = trio.lowlevel.ParkingLot()
        """The store's actor rests here."""
        self.attached = False
        """Whether a store reads this; without one nothing is marked."""
        self.written = 0
        """How many times the store has written everything that was marked before."""
        self.flushed = trio.lowlevel.ParkingLot()

    def keep(self, kind: str, source: Source) -> Mapping[str, Document]:
        """Say who knows the documents of a kind; returns those that the store held at the start."""
        self.sources[kind] = source
        return self.stored.get(kind, {})

    def touch(self, kind: str, key: str) -> None:
        """Something about this entity has changed, or it is gone."""
        if self.attached:
            self.touched[kind, key] = None
            self._wake()

    def note(self, line: Document) -> None:
        """Append a line to the audit log."""
        if self.attached:
            self.dropped_lines += len(self.lines) == MOST_LINES
            self.lines.append(line)
            self._wake()

    async def kept(self, within: float) -> bool:
        """Wait until everything marked so far is on disk, at most `within` seconds; False if it is not."""
        if not self.attached or not (self.touched or self.lines):
            return True
        before = self.written
        with trio.move_on_after(within):
            while self.written == before:
                await self.flushed.park()
        return self.written != before

    def _wake(self) -> None:
        if self.woken:
            self.woken.unpark_all()
