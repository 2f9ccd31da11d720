"""Who in line waits for which server, since when it hopes to be done, and when it wants to be asked again.

Kept by the planned choice. Of two tickets that wait for the same server the one with the smaller rank is ahead, so
"how much work is ahead of me there" is a bisection. Every intent has a finite time at which its ticket is reconsidered,
and those on a server that went away are due at once; who has none (he sees no server) is the caller's to remember.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple

from fleet.common.ids import ModelName, ServerId
from fleet.scheduling.wait_queue import Entry, Ticket, TicketKind

_SLACK = 64
"""Alarms that mean nothing any more, beyond as many as there are intents, before they are swept out."""


class Ahead(NamedTuple):
    """Who goes before on a server. `alike`: to the same runner; `others`: how many by model, None for any."""

    alike: int
    others: Sequence[tuple[ModelName | None, int]]


NOBODY: Final = Ahead(0, ())


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
        self._at: dict[ServerId, dict[TicketKind | None, list[Entry]]] = {}
        """In order of rank, by server and kind. Under None those who insist on the server: no gate holds them up."""
        self._alarms: list[tuple[float, int]] = []
        self._void: OrderedDict[int, Entry] = OrderedDict()  # its first is found at once, however many have gone

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
            insort(self._at.setdefault(server, {}).setdefault(_kind(entry), []), entry)
        self._of[number] = Intent(entry, server, done_at, reconsider_at)
        heapq.heappush(self._alarms, (reconsider_at, number))
        if len(self._alarms) > 2 * len(self._of) + _SLACK:
            self._alarms = [(each.reconsider_at, number) for number, each in self._of.items()]
            heapq.heapify(self._alarms)

    def drop(self, ticket: Ticket) -> None:
        """The ticket waits no more, or for nothing."""
        self._void.pop(ticket.number, None)
        self._leave_server(self._of.pop(ticket.number, None))

    def ahead(self, server: ServerId, entry: Entry, counts: Callable[[ModelName], bool]) -> Ahead:
        """Who waits for this server with a smaller rank, of models that count. O(kinds log tickets)."""
        lists = self._at.get(server)
        if not lists:
            return NOBODY
        own, alike, others = _kind(entry), 0, []
        for kind, waiting in lists.items():
            if (kind is None or counts(kind.model)) and (many := bisect_left(waiting, entry)):
                if kind == own:
                    alike = many
                else:
                    others.append((None if kind is None else kind.model, many))
        return Ahead(alike, others) if alike or others else NOBODY

    def at(self, server: ServerId) -> list[Entry]:
        """Those who wait for this server, in order of rank within each kind."""
        return [entry for waiting in self._at.get(server, {}).values() for entry in waiting]

    def first(self, server: ServerId, most: int, fits: Callable[[Entry], bool]) -> list[Entry]:
        """Of each kind the first few that wait for this server, if the very first fits: all of them are alike."""
        lists = self._at.get(server, {}).values()
        return [entry for waiting in lists if fits(waiting[0]) for entry in waiting[:most]]

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
            return self._void.popitem(last=False)[1]
        while self._alarms and self._alarms[0][0] <= now:
            at, number = heapq.heappop(self._alarms)
            intent = self._of.get(number)
            if intent is not None and intent.reconsider_at == at:
                return intent.entry
        return None

    def _leave_server(self, intent: Intent | None) -> None:
        if intent is None:
            return
        lists, kind = self._at[intent.server], _kind(intent.entry)
        waiting = lists[kind]
        del waiting[bisect_left(waiting, intent.entry)]
        if not waiting:
            del lists[kind]
        if not lists:
            del self._at[intent.server]


def _kind(entry: Entry) -> TicketKind | None:
    ticket = entry[2]
    return ticket.kind if ticket.pinned is None else None
