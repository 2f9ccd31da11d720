"""What shall outlive the process: documents by kind and key, and the lines of the audit log.

Nobody writes to disk here. Whoever changes something worth keeping says so with `touch`, synchronously and for
nothing; the store's actor asks later, and once, for the document as it is then. A repeated `touch` costs nothing and a
crash in between loses the last moments at the most. Without a store everything works, and is forgotten at the end.

Times in documents are seconds since 1970: no process knows another's monotonic clock.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Protocol, TypeVar

import trio

log = logging.getLogger("fleet.store")

Document = dict[str, Any]
"""Plain JSON: numbers, strings, lists, dicts, None."""
Source = Callable[[str], Document | None]
"""Asked for the document of a key; None: there is nothing to keep (any more)."""
Mark = tuple[str, str]
"""Kind and key of what has changed."""
Word = Literal["ok", "degraded", "off"]

T = TypeVar("T")

MOST_LINES: Final = 10_000
"""Audit lines that wait for the store; more drop the oldest, counted."""
MOST_MARKS: Final = 100_000
"""Entities that wait for the store; the changes of further ones are not kept, and counted."""
RECENT: Final = 1_000
"""Audit lines remembered in memory, with a store or without."""


@dataclass(frozen=True, slots=True)
class StoreView:
    """How the store is. Times in seconds since 1970; None: never.

    `why` says what is wrong when it is degraded, `pending` how many changes are not on disk yet. `dropped_lines` of the
    audit log and `dropped_changes` will never be there. `moved_aside` is where a corrupt file was put at the start.
    """

    state: Word = "off"
    why: str = ""
    since: float | None = None
    pending: int = 0
    last_write: float | None = None
    dropped_lines: int = 0
    dropped_changes: int = 0
    path: str = ""
    moved_aside: str = ""


@dataclass(slots=True, eq=False)
class WriterStatus:
    """The part of a `StoreView` that the store itself writes; see there."""

    state: Word = "off"
    why: str = ""
    since: float | None = None
    last_write: float | None = None
    path: str = ""
    moved_aside: str = ""


class JournalWriter(Protocol):
    """The store's actor, as the fleet sees it."""

    async def run(self) -> None:
        """Write what is marked, until cancelled."""

    async def lines(self, limit: int, before: int) -> list[Document]:
        """The last `limit` lines on disk with a smaller number than `before`, newest first."""


@dataclass(slots=True)
class Hand:
    """What the store is writing: marks with the number of their first change, and lines."""

    marks: dict[Mark, int] = field(default_factory=dict)
    lines: list[Document] = field(default_factory=list)


class Journal:
    """The marks of what has changed. Written by everybody, emptied by the store's actor alone.

    Bound: one mark per entity, and every kind of entity is bounded by itself; `MOST_MARKS` in any case.
    """

    def __init__(self, stored: Mapping[str, Mapping[str, Document]] | None = None, *, next_line: int = 1) -> None:
        self.stored = stored or {}
        """What the store held at the start, by kind and key."""
        self.aside: dict[Mark, str] = {}
        """What of that cannot be used, and why: it stays in the store until somebody replaces or removes it."""
        self.sources: dict[str, Source] = {}
        self.touched: OrderedDict[Mark, int] = OrderedDict()
        """With the number of the first change since the last writing, which grows from front to back."""
        self.lines: deque[Document] = deque()
        self.recent: deque[Document] = deque(maxlen=RECENT)
        self.hand = Hand()
        self.dropped_lines = 0
        self.dropped_changes = 0
        self.woken = trio.lowlevel.ParkingLot()
        """The store's actor rests here."""
        self.flushed = trio.lowlevel.ParkingLot()
        """Those who wait for `kept` rest here."""
        self.attached = False
        """Whether a store reads this; without one nothing is marked."""
        self.writer: JournalWriter | None = None
        self.standing = WriterStatus()
        self._changes = 0
        self._next_line = next_line

    def keep(self, kind: str, source: Source) -> Mapping[str, Document]:
        """Say who knows the documents of a kind; returns those that the store held at the start."""
        self.sources[kind] = source
        return self.stored.get(kind, {})

    def recall(self, kind: str, read: Callable[[str, Document], T]) -> list[T]:
        """What `read` makes of each document that the store held of a kind at the start.

        Whatever cannot be read (of an older version, or tampered with) stays where it is: one warning for all of them.
        """
        found: list[T] = []
        failed: list[str] = []
        for key, document in self.stored.get(kind, {}).items():
            try:
                found.append(read(key, document))
            except Exception:  # nobody knows what a file that was tampered with holds
                failed.append(key)
        if failed:
            what = "%d of the kept documents of kind '%s' cannot be read and are left out, the first: %s"
            log.warning(what, len(failed), kind, failed[0][:200])
        return found

    def touch(self, kind: str, key: str) -> None:
        """Something about this entity has changed, or it is gone."""
        if not self.attached:
            return
        self._changes += 1
        if (kind, key) not in self.touched:
            if len(self.touched) >= MOST_MARKS:
                self.dropped_changes += 1
                return
            self.touched[kind, key] = self._changes
        self.woken.unpark_all()

    def audit(self, line: Document) -> None:
        """Append a line to the audit log; it gets a number of its own as `id`."""
        numbered = {**line, "id": self._next_line}
        self._next_line += 1
        self.recent.append(numbered)
        if self.attached:
            self.lines.append(numbered)
            self._bound_lines()
            self.woken.unpark_all()

    async def kept(self, within: float) -> bool:
        """Wait until everything marked so far is on disk, at most `within` seconds; False if it is not.

        While writing fails there is no point in waiting: the answer comes at once. Without a store it is True.
        """
        if not self.attached:
            return self.standing.state == "off"
        last, line, dropped = self._changes, self._next_line - 1, self._dropped
        with trio.move_on_after(within):
            while not self._written(last, line) and self.standing.state != "degraded":
                await self.flushed.park()
        return self._written(last, line) and self._dropped == dropped

    async def history(self, limit: int, before: int | None = None) -> list[Document]:
        """The last lines of the audit log, newest first, whose `id` is smaller than `before`; at most `RECENT` a call.

        From memory as far as that reaches, and for what is older from the store, if there is one and it answers.
        """
        limit = max(0, min(limit, RECENT))
        before = self._next_line if before is None else before
        latest = max([*self.hand.lines, *self.lines], list(self.recent), key=len)  # both end with the newest line
        found = [line for line in reversed(latest) if line["id"] < before][:limit]
        if self.writer is not None and len(found) < limit:
            oldest = latest[0]["id"] if latest else self._next_line
            found += await self.writer.lines(limit - len(found), min(before, oldest))
        return found

    def view(self) -> StoreView:
        """How the store is at this moment."""
        return StoreView(
            **asdict(self.standing),
            pending=self.pending,
            dropped_lines=self.dropped_lines,
            dropped_changes=self.dropped_changes,
        )

    @property
    def pending(self) -> int:
        """How many changes are not on disk yet."""
        return len(self.touched) + len(self.lines) + len(self.hand.marks) + len(self.hand.lines)

    # For the store's actor.

    def attach(self, writer: JournalWriter) -> None:
        """There is a store: from now on changes are marked, and this one writes them."""
        self.writer, self.attached = writer, True

    def detach(self) -> None:
        """The store is closed: nothing is marked any more."""
        self.attached = False

    def lose_line(self) -> None:
        """A line of the audit log that was in hand will never be on disk."""
        self.dropped_lines += 1

    def take_mark(self) -> tuple[Mark, int]:
        """The oldest mark, which is in the store's hand now. Raises KeyError if there is none."""
        mark, number = self.touched.popitem(last=False)
        self.hand.marks[mark] = number
        return mark, number

    def take_lines(self, most: int) -> list[Document]:
        """The oldest lines, which are in the store's hand now."""
        while self.lines and len(self.hand.lines) < most:
            self.hand.lines.append(self.lines.popleft())
        return self.hand.lines

    def settle(self) -> None:
        """What was in hand is on disk."""
        self.hand = Hand()
        self.flushed.unpark_all()

    def give_back(self) -> None:
        """What was in hand is not on disk: it waits again, before everything else."""
        hand, self.hand = self.hand, Hand()
        for mark, number in reversed(hand.marks.items()):
            self.touched[mark] = number
            self.touched.move_to_end(mark, last=False)
        self.lines.extendleft(reversed(hand.lines))
        self._bound_lines()
        self.flushed.unpark_all()

    def lose(self, mark: Mark) -> None:
        """A change that was in hand will never be on disk."""
        if self.hand.marks.pop(mark, None) is not None:
            self.dropped_changes += 1

    # ---- counting

    @property
    def _dropped(self) -> int:
        return self.dropped_lines + self.dropped_changes

    def _written(self, change: int, line: int) -> bool:
        """Whether all changes up to this number and all lines up to that one are on disk."""
        waiting = next(iter(self.touched.values()), change + 1)
        in_hand = min(self.hand.marks.values(), default=change + 1)
        lines = [queue[0]["id"] for queue in (self.hand.lines, self.lines) if queue]
        return min(waiting, in_hand) > change and min(lines, default=line + 1) > line

    def _bound_lines(self) -> None:
        while len(self.lines) > MOST_LINES:
            self.lines.popleft()
            self.dropped_lines += 1
