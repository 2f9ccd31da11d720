"""The waiting lines: bounded, by priority, with ageing, first come first served within a class.

Ageing is linear: every `ageing` seconds of waiting are worth one level of priority. Two tickets then keep their order
for ever, so a ticket's rank is one number, fixed when it enters: `enqueued - priority * ageing`, the smallest first.

A line holds the tickets that every server would treat alike: same model, same servers ruled out (those already tried
in failover). Tickets pinned to one server stand in that server's own line. Withdrawn tickets stay as tombstones until
they reach the head or make up more than half of a line.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fleet.ids import ModelName, RequestId, ServerId

_COMPACT_ABOVE = 32


@dataclass(slots=True, eq=False)
class Ticket:
    """A request for one slot. Settled exactly once: by a grant, a refusal, or its own withdrawal.

    `runs` is False when no model runner is needed: any server that lists the model may answer, slot or no slot.
    """

    number: int
    request_id: RequestId
    model: ModelName
    priority: int
    enqueued: float
    pinned: ServerId | None = None
    excluded: frozenset[ServerId] = frozenset()
    runs: bool = True

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
    """One heap of tickets with equal terms. Who is not in `members` any more is a tombstone."""

    terms: Terms
    heap: list[tuple[float, int, Ticket]] = field(default_factory=list)
    members: set[int] = field(default_factory=set)

    def head(self) -> tuple[float, int, Ticket] | None:
        """The next ticket with its rank; tombstones before it are dropped."""
        while self.heap and self.heap[0][1] not in self.members:
            heapq.heappop(self.heap)
        return self.heap[0] if self.heap else None

    def tickets(self) -> list[Ticket]:
        """All members, in order."""
        return [entry[2] for entry in sorted(self.heap, key=_order) if entry[1] in self.members]

    def compact(self) -> None:
        if len(self.heap) > _COMPACT_ABOVE and len(self.members) * 2 < len(self.heap):
            self.heap = [entry for entry in self.heap if entry[1] in self.members]
            heapq.heapify(self.heap)


_NO_LINES: Mapping[Terms, Line] = {}


class Queue:
    """All lines. Every operation is O(log n) in the tickets of one line.

    The queue alone knows who waits in it: a ticket that an earlier queue held means nothing here.
    """

    def __init__(self, ageing: float) -> None:
        self.ageing = ageing
        self._by_model: dict[ModelName, dict[Terms, Line]] = {}
        self._pinned: dict[ServerId, Line] = {}
        self._where: dict[int, Line] = {}

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, ticket: object) -> bool:
        return isinstance(ticket, Ticket) and ticket.number in self._where

    def rank(self, ticket: Ticket) -> float:
        return ticket.enqueued - ticket.priority * self.ageing

    def push(self, ticket: Ticket) -> None:
        """Let a ticket wait. A ticket that waits already stays where it is."""
        if ticket.number in self._where:
            return
        line = self._where[ticket.number] = self._line(ticket.terms)
        line.members.add(ticket.number)
        heapq.heappush(line.heap, (self.rank(ticket), ticket.number, ticket))

    def remove(self, ticket: Ticket) -> bool:
        """Take a ticket out, whether granted, refused or withdrawn; False if it does not wait here."""
        line = self._where.pop(ticket.number, None)
        if line is None:
            return False
        line.members.discard(ticket.number)
        if line.members:
            line.compact()
        else:
            self._drop(line.terms)
        return True

    def models(self) -> Collection[ModelName]:
        """Models somebody waits for (pinned tickets apart)."""
        return self._by_model.keys()

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
        entries = [entry for line in self.lines() for entry in line.heap if entry[1] in line.members]
        return [entry[2] for entry in sorted(entries, key=_order)]

    def waiting_of(self, model: ModelName) -> int:
        return sum(len(line.members) for line in self._by_model.get(model, {}).values())

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
