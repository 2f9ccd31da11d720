"""Who in line waits for which server, since when it hopes to be done, and when it wants to be asked again.

Kept by the planned choice. Of two tickets that wait for the same server the one with the smaller rank is ahead, so
"how much work is ahead of me there" is a bisection. Nothing here can lose anybody: every intent has a finite time at
which its ticket is reconsidered, and intents on a server that went away are due at once.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf

from fleet.common.ids import ServerId
from fleet.scheduling.wait_queue import Entry, Ticket

_SLACK = 64
"""Alarms that mean nothing any more, beyond as many as there are intents, before they are swept out."""


@dataclass(slots=True, eq=False)
class Intent:
    """One ticket's hope: to be served by `server` and done by `done_at` (monotonic seconds)."""

    entry: Entry
    server: ServerId
    done_at: float
    reconsider_at: float


class Intents:
    """Every operation is O(log n) in those who wait for one server, but for pointers that move.

    Bounded by the queue: one intent per ticket that waits, twice as many alarms and a few.
    """

    def __init__(self) -> None:
        self._of: dict[int, Intent] = {}
        self._at: dict[ServerId, list[Entry]] = {}
        self._alarms: list[tuple[float, int]] = []
        self._void: dict[int, Entry] = {}

    def __len__(self) -> int:
        return len(self._of)

    def of(self, ticket: Ticket) -> Intent | None:
        """What the ticket hopes for; None if it has no intent."""
        return self._of.get(ticket.number)

    def form(self, entry: Entry, server: ServerId, done_at: float, reconsider_at: float) -> None:
        """The ticket waits for this server from now on, whatever it waited for before."""
        number = entry[1]
        intent = self._of.get(number)
        if intent is None or intent.server != server:
            self._leave_server(intent)
            insort(self._at.setdefault(server, []), entry)
        self._of[number] = Intent(entry, server, done_at, reconsider_at)
        heapq.heappush(self._alarms, (reconsider_at, number))
        if len(self._alarms) > 2 * len(self._of) + _SLACK:
            self._alarms = [(each.reconsider_at, number) for number, each in self._of.items()]
            heapq.heapify(self._alarms)

    def drop(self, ticket: Ticket) -> None:
        """The ticket waits no more, or for nothing."""
        self._void.pop(ticket.number, None)
        self._leave_server(self._of.pop(ticket.number, None))

    def ahead(self, server: ServerId, entry: Entry) -> int:
        """How many wait for this server with a smaller rank."""
        waiting = self._at.get(server)
        return bisect_left(waiting, entry) if waiting else 0

    def at(self, server: ServerId) -> list[Entry]:
        """Those who wait for this server, in order. The caller's to read, until the next change."""
        return self._at.get(server, [])

    def void(self, entries: Iterable[Entry]) -> None:
        """What these tickets hope for, if they hope at all, holds no more: they are due at once. O(those)."""
        self._void.update((entry[1], entry) for entry in entries)

    @property
    def next_due(self) -> float:
        """The earliest time at which somebody wants to be asked; perhaps earlier than anybody still does."""
        if self._void:
            return -inf
        return self._alarms[0][0] if self._alarms else inf

    def due(self, now: float, most: int) -> Iterator[Entry]:
        """Up to `most` tickets that want to be asked now. Each has to form an intent again, or to be dropped."""
        for _ in range(most):
            entry = self._next(now)
            if entry is None:
                return
            yield entry

    def _next(self, now: float) -> Entry | None:
        if self._void:
            return self._void.pop(next(iter(self._void)))
        while self._alarms and self._alarms[0][0] <= now:
            at, number = heapq.heappop(self._alarms)
            intent = self._of.get(number)
            if intent is not None and intent.reconsider_at == at:
                return intent.entry
        return None

    def _leave_server(self, intent: Intent | None) -> None:
        if intent is None:
            return
        waiting = self._at[intent.server]
        del waiting[bisect_left(waiting, intent.entry)]
        if not waiting:
            del self._at[intent.server]
