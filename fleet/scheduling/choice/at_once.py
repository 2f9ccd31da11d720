"""Who gets which slot now: the question behind every grant, answered for one ticket or for one server.

A chooser looks, and takes nothing: the scheduler reserves what it proposes, in the same step. `AtOnce` never lets
anybody wait while a server is ready; `planned.Planned` may.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import Final, Protocol

from fleet.common.ids import ModelName
from fleet.common.randomness import Chance
from fleet.scheduling.choice.balancing import BalancingPolicy, Scored
from fleet.scheduling.server_index import ServerIndex
from fleet.scheduling.server_state import ServerState
from fleet.scheduling.wait_queue import Entry, Queue, Ticket

_TIE: Final = 1e-9
"""Scores closer than this are equal."""

Proposal = tuple[Ticket, list[Scored]]
"""Who shall be served, and by whom: the chosen server first, with everybody it was compared with."""


class Chooser(Protocol):
    """One way to match those who wait with those who are free. Every list of `Scored` has its winner first."""

    def for_ticket(self, ticket: Ticket, now: float, *, may_wait: bool) -> list[Scored]:
        """Who shall serve a ticket that has just come, at once; empty when it has to wait, or shall and `may_wait`."""
        ...

    def for_server(self, server: ServerState, now: float) -> Proposal | None:
        """Whom a server with a free slot shall serve now; None when nobody who waits shall have it."""
        ...

    def for_anybody(self, now: float) -> Proposal | None:
        """Who of all that wait shall be served now, by whomever. O(lines)."""
        ...

    def rank(self, candidates: Sequence[ServerState], ticket: Ticket, now: float) -> list[Scored]:
        """These servers with the parts of their scores, the best first."""
        ...

    def entered(self, ticket: Ticket, now: float) -> None:
        """The ticket stands in its line from now on."""
        ...

    def left(self, ticket: Ticket) -> None:
        """The ticket stands in no line any more."""
        ...

    def moved(self, server: ServerState) -> None:
        """Something may have changed about the server; perhaps it went away."""
        ...

    def due(self, now: float) -> Iterable[Proposal]:
        """Those whose time to be reconsidered has come and who shall be served now. The caller uses each at once."""
        ...

    @property
    def next_due(self) -> float:
        """When somebody has to be reconsidered, at the latest; infinity when nobody has to."""
        ...


class AtOnce:
    """Nobody waits while a server is ready: a free slot goes to the first in line, a ticket to the best free slot."""

    next_due = inf

    def __init__(
        self, policy: BalancingPolicy, queue: Queue, index: ServerIndex, chance: Chance, most: int, *, capped: bool
    ) -> None:
        self._policy = policy
        self._queue = queue
        self._index = index
        self._chance = chance
        self._most = most
        self._capped = capped

    def for_ticket(self, ticket: Ticket, now: float, *, may_wait: bool) -> list[Scored]:
        if len(self._queue) and self._others_first(ticket):
            return []
        candidates = self._candidates(ticket)
        return self.rank(candidates, ticket, now) if candidates else []

    def for_server(self, server: ServerState, now: float) -> Proposal | None:
        head = self._first_for(server)
        return (head[2], self.rank([server], head[2], now)) if head is not None else None

    def for_anybody(self, now: float) -> Proposal | None:
        heads = [line.head() for line in self._queue.lines() if self._candidates(line.head()[2], 1)]
        if not heads:
            return None
        ticket = min(heads)[2]
        return ticket, self.rank(self._candidates(ticket), ticket, now)

    def rank(self, candidates: Sequence[ServerState], ticket: Ticket, now: float) -> list[Scored]:
        """The best score first, and among equals any. One that is alone wins unscored."""
        if len(candidates) == 1:
            return [(candidates[0], ())]
        score, model = self._policy.score, ticket.model
        scored = [(server, score(server, model, now)) for server in candidates]
        return put_winner_first(scored, self._chance)

    def entered(self, ticket: Ticket, now: float) -> None:
        """Lines are all there is to know."""

    def left(self, ticket: Ticket) -> None:
        """Likewise."""

    def moved(self, server: ServerState) -> None:
        """Likewise."""

    def due(self, now: float) -> Iterable[Proposal]:
        return ()

    def _others_first(self, ticket: Ticket) -> bool:
        """Whether somebody waits who could be served at once too: the news of a free slot may still be on its way.

        Tickets that go by the index cannot overtake (it hears the same news); pinned ones, and all under a fleet-wide
        cap, go by the ledgers and could.
        """
        if self._capped:
            return any(self._candidates(line.head()[2], 1) for line in self._queue.lines())
        server = self._index.servers.get(ticket.pinned) if ticket.pinned else None
        return server is not None and self._first_for(server) is not None

    def _candidates(self, ticket: Ticket, most: int | None = None) -> Sequence[ServerState]:
        """Ready servers that the ticket accepts, up to the bound."""
        if ticket.pinned:
            server = self._index.servers.get(ticket.pinned)
            return [server] if server and server.ready_pinned(ticket.model) else []
        if ticket.alone:
            return quiet(self._index, ticket, self._most, self._chance)
        return self._index.draw(ticket.model, most or self._most, self._chance, ticket.excluded)

    def _first_for(self, server: ServerState) -> Entry | None:
        """The first of all whom this server could serve now; walks waiting models or its own, the fewer.

        Whether it is ready for a model is asked only for who would be first: few are, whatever the order.
        """
        queue, index = self._queue, self._index
        first = queue.best_pinned(server.id)
        if first is not None and not server.open_to(first[2].model):
            first = None
        for model in shared_models(queue, index, server):
            head = queue.best(model, server.id, first)
            if head is not first and server.ready(model):
                first = head
            elif model in server.cooling and server.spare_ready(model):
                first = queue.best(model, server.id, first, index.needs_spares)
            if queue.alone and server.ready_alone(model):
                needed = index.needs_spares if model in server.cooling else None
                first = queue.best(model, server.id, first, needed, alone=True)
        return first


def quiet(index: ServerIndex, ticket: Ticket, most: int, chance: Chance) -> list[ServerState]:
    """Servers that are ready for a ticket which has to be alone there."""
    found = index.acceptable(ticket.model, ticket.excluded, most, chance)
    return [server for server in found if server.ready_alone(ticket.model)]


def put_winner_first(scored: list[Scored], chance: Chance) -> list[Scored]:
    """The largest sum of parts first, and among equals any; the order of the others does not matter."""
    totals = [sum(parts) for _, parts in scored]
    top = max(totals) - _TIE
    winners = [at for at, total in enumerate(totals) if total >= top]
    at = winners[int(chance.random() * len(winners))]
    scored[0], scored[at] = scored[at], scored[0]
    return scored


def shared_models(queue: Queue, index: ServerIndex, server: ServerState) -> Iterable[ModelName]:
    """Models that somebody waits for and that the server lists, `ANY_MODEL` among them."""
    waiting, own = queue.models(), index.models_of(server.id)
    few, many = (waiting, own) if len(waiting) <= len(own) else (own, waiting)
    return [model for model in few if model in many]
