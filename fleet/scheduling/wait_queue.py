"""The waiting lines: bounded, by priority, with ageing, first come first served within a class.

Ageing is linear: every `ageing` seconds of waiting are worth one level of priority. Two tickets then keep their order
for ever, so a ticket's rank is one number, fixed when it enters: `enqueued - priority * ageing`, the smallest first.

A line holds the tickets that every server would treat alike: same model, same servers ruled out (those already tried
in failover). Tickets pinned to one server stand in that server's own line. Withdrawn tickets stay as tombstones until
they reach the head or make up more than half of a line.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fleet.common.ids import ModelName, RequestId, ServerId

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
    def terms(self) -> TicketTerms:
        if self.pinned is not None:
            return TicketTerms(None, self.pinned, frozenset())
        return TicketTerms(self.model, None, self.excluded)


Entry = tuple[float, int, Ticket]
"""A ticket as it stands in line: its rank, its number (no two are equal, so tickets are never compared), itself."""


class TicketTerms(NamedTuple):
    """What makes tickets equal in the eyes of every server."""

    model: ModelName | None
    pinned: ServerId | None
    excluded: frozenset[ServerId]


@dataclass(slots=True, eq=False)
class TicketHeap:
    """One heap of tickets with equal terms. Who is not in `members` any more is a tombstone; none is at the head.

    A line with nobody in it does not exist: `head` is there whenever the line is.
    """

    terms: TicketTerms
    heap: list[Entry] = field(default_factory=list)
    members: set[int] = field(default_factory=set)

    def head(self) -> Entry:
        """The next ticket with its rank."""
        return self.heap[0]

    def tickets(self) -> list[Ticket]:
        """All members, in order."""
        return [entry[2] for entry in sorted(self.heap) if entry[1] in self.members]

    def tidy(self) -> None:
        """Drop the tombstones at the head, and all of them once they are more than half."""
        heap, members = self.heap, self.members
        while heap[0][1] not in members:
            heapq.heappop(heap)
        if len(heap) > _COMPACT_ABOVE and len(members) * 2 < len(heap):
            self.heap = [entry for entry in heap if entry[1] in members]
            heapq.heapify(self.heap)


_NO_LINES: Mapping[TicketTerms, TicketHeap] = {}


class Queue:
    """All lines. Every operation is O(log n) in the tickets of one line.

    The queue alone knows who waits in it: a ticket that an earlier queue held means nothing here.
    """

    def __init__(self, ageing: float) -> None:
        self.ageing = ageing
        self._by_model: dict[ModelName, dict[TicketTerms, TicketHeap]] = {}
        self._pinned: dict[ServerId, TicketHeap] = {}
        self._where: dict[int, TicketHeap] = {}

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
        number = ticket.number
        line = self._where[number] = self._line(ticket.terms)
        line.members.add(number)
        heapq.heappush(line.heap, (self.rank(ticket), number, ticket))

    def remove(self, ticket: Ticket) -> bool:
        """Take a ticket out, whether granted, refused or withdrawn; False if it does not wait here."""
        line = self._where.pop(ticket.number, None)
        if line is None:
            return False
        line.members.discard(ticket.number)
        if line.members:
            line.tidy()
        else:
            self._drop(line.terms)
        return True

    def models(self) -> Collection[ModelName]:
        """Models somebody waits for (pinned tickets apart)."""
        return self._by_model.keys()

    def best(
        self,
        model: ModelName,
        server: ServerId,
        than: Entry | None = None,
        only: Callable[[ModelName, frozenset[ServerId]], bool] | None = None,
    ) -> Entry | None:
        """The first in line for the model among those that accept this server; `than` unless it is ahead of that.

        `only` says of which model and excluded servers a line may be.
        """
        best = than
        for line in self._by_model.get(model, _NO_LINES).values():
            head = line.heap[0]
            ahead = (best is None or head < best) and server not in line.terms.excluded
            if ahead and (only is None or only(model, line.terms.excluded)):
                best = head
        return best

    def best_pinned(self, server: ServerId) -> Entry | None:
        """The first of those that want this server and no other."""
        line = self._pinned.get(server)
        return line.head() if line else None

    def lines(self) -> Iterator[TicketHeap]:
        """Every line with somebody in it."""
        for lines in self._by_model.values():
            yield from lines.values()
        yield from self._pinned.values()

    def tickets(self) -> list[Ticket]:
        """Everybody who waits, in the order in which they would be served by one server that could serve all."""
        entries = [entry for line in self.lines() for entry in line.heap if entry[1] in line.members]
        return [entry[2] for entry in sorted(entries)]

    def waiting_of(self, model: ModelName) -> int:
        return sum(len(line.members) for line in self._by_model.get(model, {}).values())

    def _line(self, terms: TicketTerms) -> TicketHeap:
        if terms.pinned is not None:
            return self._pinned.get(terms.pinned) or self._pinned.setdefault(terms.pinned, TicketHeap(terms))
        assert terms.model is not None
        lines = self._by_model.setdefault(terms.model, {})
        return lines.get(terms) or lines.setdefault(terms, TicketHeap(terms))

    def _drop(self, terms: TicketTerms) -> None:
        if terms.pinned is not None:
            self._pinned.pop(terms.pinned, None)
            return
        assert terms.model is not None
        lines = self._by_model[terms.model]
        del lines[terms]
        if not lines:
            del self._by_model[terms.model]
