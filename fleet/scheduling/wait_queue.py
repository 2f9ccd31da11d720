"""The waiting lines: bounded, by priority, with ageing, first come first served within a class.

Ageing is linear: every `ageing` seconds of waiting are worth one level of priority. Two tickets then keep their order
for ever, so a ticket's rank is one number, fixed when it enters: `enqueued - priority * ageing`, the smallest first.

A line holds the tickets that every server would treat alike: same model, same runner options where the policy heeds
them, same servers ruled out (those already tried in failover). Tickets pinned to one server stand in that server's own
line.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fleet.common.ids import ModelName, RequestId, ServerId
from fleet.scheduling.estimates.forecast.terms import RequestProfile


class Hope(NamedTuple):
    """What a ticket hoped for when it entered its line: the server, and the parts of its price there."""

    at: float
    server: ServerId
    parts: tuple[float, ...]


@dataclass(slots=True, eq=False)
class Ticket:
    """A request for one slot. Settled exactly once: by a grant, a refusal, or its own withdrawal.

    `runs` is False when no model runner is needed: any server that lists the model may answer, slot or no slot.
    `back`: it has been granted before, and its server had enough to do; it has its old number, and so its old place.
    `alone`: it has crashed a runner, or was there when one crashed, so nobody else shall run beside it.
    """

    number: int
    request_id: RequestId
    model: ModelName
    priority: int
    enqueued: float
    pinned: ServerId | None = None
    excluded: frozenset[ServerId] = frozenset()
    runs: bool = True
    profile: RequestProfile | None = None
    """What it is expected to be; only a policy that plans asks for it."""
    lane: int = 0
    """Which of the sets of runner options that are asked for: only a policy that plans tells them apart."""
    back: bool = False
    alone: bool = False
    hope: Hope | None = None
    """None: it never waited, saw no server that could serve it, or its policy does not plan."""
    fallback: bool = False
    """Whether its policy went by something else at last, because predictions were not to be trusted."""

    @property
    def terms(self) -> TicketTerms:
        if self.pinned is not None:
            return TicketTerms(None, self.pinned, frozenset())
        return TicketTerms(self.model, None, self.excluded, self.alone, self.lane)

    @property
    def kind(self) -> TicketKind:
        """What makes tickets equal wherever they may go."""
        return TicketKind(self.model, self.lane, self.alone)


Entry = tuple[float, int, Ticket]
"""A ticket as it stands in line: its rank, its number (no two are equal, so tickets are never compared), itself."""


class TicketTerms(NamedTuple):
    """What makes tickets equal in the eyes of every server."""

    model: ModelName | None
    pinned: ServerId | None
    excluded: frozenset[ServerId]
    alone: bool = False
    lane: int = 0


class TicketKind(NamedTuple):
    """What one runner would serve."""

    model: ModelName
    lane: int
    alone: bool


@dataclass(slots=True, eq=False)
class TicketLine:
    """The tickets with equal terms, sorted: anybody's place in it, and who stands at a place, are known at once.

    A sorted list and not a heap, because a policy that plans asks who stands at a given place. Entering and leaving
    move pointers behind the place (a microsecond in a line of 5,000). A line with nobody in it does not exist.
    """

    terms: TicketTerms
    entries: list[Entry] = field(default_factory=list)
    enqueued: float = 0.0
    """The sum of the times at which they came."""

    def waited(self, now: float) -> float:
        """Seconds that all of them have waited, together."""
        return now * len(self.entries) - self.enqueued

    def head(self) -> Entry:
        """The next ticket with its rank."""
        return self.entries[0]

    def tickets(self) -> list[Ticket]:
        """All of them, in order."""
        return [entry[2] for entry in self.entries]


_NO_LINES: Mapping[TicketTerms, TicketLine] = {}


class Queue:
    """All lines. Every operation is O(log n) in the tickets of one line, but for pointers that move.

    The queue alone knows who waits in it: a ticket that an earlier queue held means nothing here.
    """

    def __init__(self, ageing: float) -> None:
        self.ageing = ageing
        self.alone = 0
        """How many of those who wait have to be alone where they run."""
        self._by_model: dict[ModelName, dict[TicketTerms, TicketLine]] = {}
        self._pinned: dict[ServerId, TicketLine] = {}
        self._where: dict[int, TicketLine] = {}

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, ticket: object) -> bool:
        return isinstance(ticket, Ticket) and ticket.number in self._where

    def rank(self, ticket: Ticket) -> float:
        return ticket.enqueued - ticket.priority * self.ageing

    def entry(self, ticket: Ticket) -> Entry:
        """The ticket as it stands in line, or would."""
        return self.rank(ticket), ticket.number, ticket

    def push(self, ticket: Ticket) -> None:
        """Let a ticket wait. A ticket that waits already stays where it is."""
        if ticket.number in self._where:
            return
        line = self._where[ticket.number] = self._line(ticket.terms)
        line.enqueued += ticket.enqueued
        self.alone += line.terms.alone
        insort(line.entries, self.entry(ticket))

    def remove(self, ticket: Ticket) -> bool:
        """Take a ticket out, whether granted, refused or withdrawn; False if it does not wait here."""
        line = self._where.pop(ticket.number, None)
        if line is None:
            return False
        entries = line.entries
        line.enqueued -= ticket.enqueued
        self.alone -= line.terms.alone
        del entries[bisect_left(entries, (self.rank(ticket), ticket.number))]
        if not entries:
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
        *,
        alone: bool = False,
    ) -> Entry | None:
        """The first in line for the model among those that accept this server; `than` unless it is ahead of that.

        `only` says of which model and excluded servers a line may be; `alone`: of those who have to be alone there.
        """
        best = than
        for line in self._by_model.get(model, _NO_LINES).values():
            head = line.entries[0]
            terms = line.terms
            ahead = (best is None or head < best) and terms.alone is alone and server not in terms.excluded
            if ahead and (only is None or only(model, terms.excluded)):
                best = head
        return best

    def lonely(self) -> list[TicketLine]:
        """The lines of those who have to be alone."""
        return [line for line in self.lines() if line.terms.alone] if self.alone else []

    def best_pinned(self, server: ServerId) -> Entry | None:
        """The first of those that want this server and no other."""
        line = self._pinned.get(server)
        return line.head() if line else None

    def line_of(self, ticket: Ticket) -> TicketLine | None:
        """The line in which the ticket stands."""
        return self._where.get(ticket.number)

    def lines_of(self, model: ModelName) -> Collection[TicketLine]:
        """The lines of those who wait for the model, wherever."""
        return self._by_model.get(model, _NO_LINES).values()

    def pinned_to(self, server: ServerId) -> TicketLine | None:
        """The line of those who want this server and no other."""
        return self._pinned.get(server)

    def lines(self) -> Iterator[TicketLine]:
        """Every line with somebody in it."""
        for lines in self._by_model.values():
            yield from lines.values()
        yield from self._pinned.values()

    def tickets(self) -> list[Ticket]:
        """Everybody who waits, in the order in which they would be served by one server that could serve all."""
        entries = [entry for line in self.lines() for entry in line.entries]
        return [entry[2] for entry in sorted(entries)]

    def waiting_of(self, model: ModelName) -> int:
        return sum(len(line.entries) for line in self._by_model.get(model, {}).values())

    def _line(self, terms: TicketTerms) -> TicketLine:
        if terms.pinned is not None:
            return self._pinned.get(terms.pinned) or self._pinned.setdefault(terms.pinned, TicketLine(terms))
        assert terms.model is not None
        lines = self._by_model.setdefault(terms.model, {})
        return lines.get(terms) or lines.setdefault(terms, TicketLine(terms))

    def _drop(self, terms: TicketTerms) -> None:
        if terms.pinned is not None:
            self._pinned.pop(terms.pinned, None)
            return
        assert terms.model is not None
        lines = self._by_model[terms.model]
        del lines[terms]
        if not lines:
            del self._by_model[terms.model]
