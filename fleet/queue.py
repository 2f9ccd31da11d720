"""The waiting lines: bounded, by priority, with ageing, first come first served within a class.

Ageing is linear: every `ageing` seconds of waiting are worth one level of priority. Two tickets then keep their order
for ever, so a ticket's rank is one number, fixed when it enters: `enqueued - priority * ageing`, the smallest first.

A line holds the tickets that every server would treat alike: same model, same servers ruled out (those already tried
in failover). Tickets pinned to one server stand in that server's own line. Withdrawn tickets stay as tombstones until
they reach the head or make up more than half of a line.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fleet.ids import ModelName, RequestId, ServerId

_COMPACT_ABOVE = 32


@dataclass(slots=True, eq=False)
class Ticket:
    """A request for one slot. Settled exactly once: by a grant, a refusal, or its own withdrawal."""

    number: int
    request_id: RequestId
    model: ModelName
    priority: int
    enqueued: float
    pinned: ServerId | None = None
    excluded: frozenset[ServerId] = frozenset()
    waiting: bool = False

    @property
    def terms(self) -> Terms:
        if self.pinned is not None:
            return Terms(None, self.pinned, frozenset())
        return Terms(self.model, None, self.excluded)


class Terms(NamedTuple):
    """What makes tickets equal in the eyes of every server."""

    model: ModelName | None
    pinned: ServerId | None
    excluded: frozenset[ServerId]


@dataclass(slots=True, eq=False)
class Line:
    """One heap of tickets with equal terms."""

    terms: Terms
    heap: list[tuple[float, int, Ticket]] = field(default_factory=list)
    live: int = 0

    def head(self) -> tuple[float, int, Ticket] | None:
        """The next live ticket with its rank; tombstones before it are dropped."""
        while self.heap and not self.heap[0][2].waiting:
            heapq.heappop(self.heap)
        return self.heap[0] if self.heap else None

    def tickets(self) -> list[Ticket]:
        """All live tickets, in order."""
        return [entry[2] for entry in sorted(self.heap, key=lambda e: e[:2]) if entry[2].waiting]

    def compact(self) -> None:
        if len(self.heap) > _COMPACT_ABOVE and self.live * 2 < len(self.heap):
            self.heap = [entry for entry in self.heap if entry[2].waiting]
            heapq.heapify(self.heap)


_NO_LINES: Mapping[Terms, Line] = {}


class Queue:
    """All lines. Every operation is O(log n) in the tickets of one line."""

    def __init__(self, ageing: float) -> None:
        self.ageing = ageing
        self.paused = False
        self.size = 0
        self._by_model: dict[ModelName, dict[Terms, Line]] = {}
        self._pinned: dict[ServerId, Line] = {}

    def rank(self, ticket: Ticket) -> float:
        return ticket.enqueued - ticket.priority * self.ageing

    def push(self, ticket: Ticket) -> None:
        """Let a ticket wait. A ticket that waits already stays where it is."""
        if ticket.waiting:
            return
        line = self._line(ticket.terms)
        ticket.waiting = True
        line.live += 1
        self.size += 1
        heapq.heappush(line.heap, (self.rank(ticket), ticket.number, ticket))

    def remove(self, ticket: Ticket) -> bool:
        """Take a ticket out, whether granted, refused or withdrawn; False if it was not waiting."""
        if not ticket.waiting:
            return False
        line = self._line(ticket.terms)
        ticket.waiting = False
        line.live -= 1
        self.size -= 1
        if line.live:
            line.compact()
        else:
            self._drop(line.terms)
        return True

    def waits_for(self, model: ModelName) -> bool:
        return model in self._by_model

    def best(self, model: ModelName, server: ServerId) -> tuple[float, int, Ticket] | None:
        """The first in line for the model among those that accept this server."""
        best = None
        for terms, line in self._by_model.get(model, _NO_LINES).items():
            if server not in terms.excluded:
                head = line.head()
                if head is not None and (best is None or head[:2] < best[:2]):
                    best = head
        return best

    def best_pinned(self, server: ServerId) -> tuple[float, int, Ticket] | None:
        """The first of those that want this server and no other."""
        line = self._pinned.get(server)
        return line.head() if line else None

    def lines(self) -> Iterator[Line]:
        """Every line with somebody in it."""
        for lines in self._by_model.values():
            yield from lines.values()
        yield from self._pinned.values()

    def tickets(self) -> list[Ticket]:
        """Everybody who waits, in the order in which they would be served by one server that could serve all."""
        entries = [entry for line in self.lines() for entry in line.heap if entry[2].waiting]
        return [entry[2] for entry in sorted(entries, key=_order)]

    def waiting_of(self, model: ModelName) -> int:
        return sum(line.live for line in self._by_model.get(model, {}).values())

    def by_model(self) -> dict[ModelName, int]:
        return {model: self.waiting_of(model) for model in self._by_model}

    def by_priority(self) -> dict[int, int]:
        return dict(Counter(ticket.priority for ticket in self.tickets()))

    def _line(self, terms: Terms) -> Line:
        if terms.pinned is not None:
            return self._pinned.setdefault(terms.pinned, Line(terms))
        assert terms.model is not None
        return self._by_model.setdefault(terms.model, {}).setdefault(terms, Line(terms))

    def _drop(self, terms: Terms) -> None:
        if terms.pinned is not None:
            self._pinned.pop(terms.pinned, None)
            return
        assert terms.model is not None
        lines = self._by_model[terms.model]
        del lines[terms]
        if not lines:
            del self._by_model[terms.model]


def _order(entry: tuple[float, int, Ticket]) -> tuple[float, int]:
    return entry[0], entry[1]
