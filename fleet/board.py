"""The dispatcher's mind: the queue, the index of ready servers, the policy. Pure; the actor brings the time.

Invariant (property-tested): no model has both a waiter and a ready server which that waiter accepts, unless the queue
is paused or the fleet-wide cap is reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from fleet.errors import FleetError, ModelNotFound, NoServer, QueueFull, ServerNotFound
from fleet.grants import Decision, Grant, Memory, Rules
from fleet.ids import ANY_MODEL, ModelName
from fleet.indexed import IndexedSet
from fleet.queue import Line, Queue, Ticket
from fleet.rate import ServiceRate
from fleet.routing import Index
from fleet.scoring import Parts, Policy
from fleet.server import Health, ServerState

_TIE = 1e-9
"""Scores closer than this are equal."""

Scored = tuple[ServerState, Parts]


class Chance(Protocol):
    """The part of `random.Random` that we need."""

    def random(self) -> float: ...


class Board:
    """Every method is synchronous; each leaves the invariant intact once its grants have been handed out."""

    def __init__(self, rules: Rules, policy: Policy, chance: Chance, memory: Memory, now: float) -> None:
        self.rules = rules
        self.policy = policy
        self.memory = memory
        self.queue = Queue(rules.ageing)
        self.index = Index(now)
        self._chance = chance

    @property
    def blocked(self) -> bool:
        """Nothing may be granted: paused, or the fleet-wide cap is reached."""
        return self.memory.paused or self.memory.total.free < 1

    def submit(self, ticket: Ticket, now: float) -> Grant | None:
        """A grant, or None when the ticket has to wait (it stands in its line then).

        Raises ModelNotFound, ServerNotFound, NoServer, QueueFull.
        """
        if ticket.pinned:
            self._check_pinned(ticket)
        elif not self.index.accepts(ticket.model, ticket.excluded):
            self._check_hope(ticket, now)
        candidates = [] if self.blocked else self._candidates(ticket)
        if candidates:
            return self._take(ticket, self._rank(candidates, ticket.model), now)
        self._admit(ticket, now)
        return None

    def withdraw(self, ticket: Ticket) -> None:
        """The client left or its time is up."""
        self.queue.remove(ticket)

    def freed(self, server: ServerState, model: ModelName, now: float) -> None:
        """A lease ended; its ledger entries are gone already. The caller goes on with `serve`."""
        self.memory.rate.note(now)
        if self.index.knows(model):
            self.memory.rates.setdefault(model, ServiceRate()).note(now)
        if model in server.gates:  # a permit may have come back with it
            self.index.update_pair(server, model, now)

    def serve(self, server: ServerState, now: float) -> Iterator[tuple[Ticket, Grant]]:
        """Hand out whatever this server can take now; the index learns of its slots at the end.

        (A slot that is freed and taken again at once thus costs the index nothing.) The caller uses each grant, or
        undoes it, before it asks for the next.
        """
        while given := self._next_for(server, now):
            yield given
        self.index.update_slots(server)

    def undo(self, grant: Grant, now: float) -> None:
        """Take a grant back that nobody will ever use."""
        grant.server.ledger.close(grant.number)
        self.memory.total.close(grant.number)
        if grant.gate is not None:
            grant.gate.give_back()
        self.index.update_slots(grant.server)
        self.index.update_pair(grant.server, grant.model, now)

    def _next_for(self, server: ServerState, now: float) -> tuple[Ticket, Grant] | None:
        if self.blocked or not self.queue.size or server.ledger.free < 1 or not server.usable:
            return None
        heads = [self.queue.best_pinned(server.id), *self._heads(server)]
        best = min((head for head in heads if head), default=None, key=lambda head: head[:2])
        return None if best is None else self._serve(best[2], [server], now)

    def next_anywhere(self, now: float) -> tuple[Ticket, Grant] | None:
        """The next grant to anybody on any server: after a pause, or when the fleet-wide cap frees up. O(lines)."""
        if self.blocked:
            return None
        heads = [head for line in self.queue.lines() if (head := line.head()) and self._candidates(head[2])]
        if not heads:
            return None
        ticket = min(heads, key=lambda head: head[:2])[2]
        return self._serve(ticket, self._candidates(ticket), now)

    def sweep(self, now: float) -> list[tuple[Ticket, FleetError]]:
        """Refuse everybody in lines that no server has been able to serve for longer than the grace."""
        refused: list[tuple[Ticket, FleetError]] = []
        for line in list(self.queue.lines()):
            if self._hopeless(line, now):
                refused += [(ticket, self._no_server(ticket, now)) for ticket in line.tickets()]
        for ticket, _ in refused:
            self.queue.remove(ticket)
        return refused

    # ---- choosing

    def _candidates(self, ticket: Ticket) -> Sequence[ServerState]:
        """Ready servers that the ticket accepts, up to the bound."""
        if ticket.pinned:
            server = self.index.servers.get(ticket.pinned)
            return [server] if server and server.usable and server.ledger.free >= 1 else []
        ready = self.index.ready(ticket.model)
        if ticket.excluded:
            return [server for server in ready if server.id not in ticket.excluded][: self.rules.candidates]
        return ready.sample(self.rules.candidates, self._chance) if isinstance(ready, IndexedSet) else ready

    def _rank(self, candidates: Sequence[ServerState], model: ModelName) -> list[Scored]:
        """All candidates with their parts, the winner first: the best score, and among equals any."""
        scored = [(server, self.policy.score(server, model)) for server in candidates]
        if len(scored) == 1:
            return scored
        totals = [sum(parts) for _, parts in scored]
        top = max(totals) - _TIE
        winners = [at for at, total in enumerate(totals) if total >= top]
        at = winners[int(self._chance.random() * len(winners))]
        scored[0], scored[at] = scored[at], scored[0]
        return scored

    def _heads(self, server: ServerState) -> list[tuple[float, int, Ticket] | None]:
        waits = self.queue.waits_for
        models = [m for m in self.index.models_of(server.id) if waits(m) and server.ready(m)]
        return [self.queue.best(model, server.id) for model in models]

    def _serve(self, ticket: Ticket, candidates: Sequence[ServerState], now: float) -> tuple[Ticket, Grant]:
        self.queue.remove(ticket)
        return ticket, self._take(ticket, self._rank(candidates, ticket.model), now)

    def _take(self, ticket: Ticket, scored: list[Scored], now: float) -> Grant:
        """Reserve, in the same step as the choice."""
        server = scored[0][0]
        self.memory.numbers += 1
        number = self.memory.numbers
        entered = server.ledger.open(number, ticket.model) and self.memory.total.open(number, ticket.model)
        assert entered, "chosen servers have a free slot"
        gate = None if ticket.pinned else server.gates.get(ticket.model)
        if gate is not None:
            gate.take()
            self.index.update_pair(server, ticket.model, now)
        server.last_granted = number
        self.index.update_slots(server)
        self.memory.waited.add(now - ticket.enqueued)
        return Grant(number, server, ticket.model, gate, self._decide(ticket, scored, now))

    def _decide(self, ticket: Ticket, scored: list[Scored], now: float) -> Decision:
        candidates = tuple((server.id, parts) for server, parts in scored)
        waited = now - ticket.enqueued
        chosen = candidates[0][0]
        decision = Decision(now, ticket.request_id, ticket.model, self.policy.name, chosen, waited, candidates)
        self.memory.decisions.append(decision)
        return decision

    # ---- refusing

    def _check_pinned(self, ticket: Ticket) -> None:
        assert ticket.pinned is not None
        server = self.index.servers.get(ticket.pinned)
        if server is None:
            raise ServerNotFound(f"server '{ticket.pinned}' not found")
        if not server.usable and server.health is not Health.UNKNOWN:
            raise NoServer(f"server '{server.id}' cannot be used now", details=_state_of(server, ticket.model))

    def _admit(self, ticket: Ticket, now: float) -> None:
        if not self.rules.may_wait:
            raise NoServer("all servers are busy and the queue is switched off", retry_after=1.0)
        if self.queue.size >= self.rules.max_size:
            self.memory.dropped += 1
            raise QueueFull(
                f"the queue is full ({self.queue.size} requests wait)",
                details="try again later, or raise queue.max_size",
                retry_after=self._retry_after(ticket.model, now),
            )
        self.memory.queued += 1
        self.queue.push(ticket)

    def _retry_after(self, model: ModelName, now: float) -> float:
        """When about half of those who wait for this model will have been served, from the observed pace."""
        rate = self.memory.rates.get(model, self.memory.rate)
        return min(max(rate.wait_for(self.queue.waiting_of(model) / 2 + 1, now) or 5.0, 1.0), 300.0)

    def _check_hope(self, ticket: Ticket, now: float) -> None:
        """No server can take this ticket. Raises unless one may turn up within the grace."""
        if ticket.excluded and self.index.accepts(ticket.model, frozenset()):
            raise self._no_server(ticket, now)
        if not self.index.knows(ticket.model) and self.index.all_probed():
            raise self._no_server(ticket, now)
        if not self.index.servers or now - self.index.lonely_since(ticket.model) >= self.rules.grace:
            raise self._no_server(ticket, now)

    def _hopeless(self, line: Line, now: float) -> bool:
        if line.terms.pinned is not None:
            server = self.index.servers.get(line.terms.pinned)
            return server is None or (not server.usable and now - server.since >= self.rules.grace)
        assert line.terms.model is not None
        model = line.terms.model
        if self.index.accepts(model, line.terms.excluded):
            return False
        if line.terms.excluded and self.index.accepts(model, frozenset()):
            return True
        if not self.index.knows(model) and self.index.all_probed():
            return True
        return now - self.index.lonely_since(model) >= self.rules.grace

    def _no_server(self, ticket: Ticket, now: float) -> FleetError:
        if ticket.pinned is None and not self.index.knows(ticket.model) and self.index.all_probed():
            return ModelNotFound(f"model '{ticket.model}' not found")
        holders = self.index.holders(ticket.model) if ticket.pinned is None else {ticket.pinned}
        states = [self.index.servers[s] for s in sorted(holders) if s in self.index.servers]
        why = "; ".join(_state_of(state, ticket.model) for state in states[:5]) or "no server is configured"
        waits = [gate.retry_at - now for state in states if (gate := state.gates.get(ticket.model))]
        soon = min((wait for wait in waits if 0 < wait < float("inf")), default=5.0)
        what = f"model '{ticket.model}'" if ticket.model != ANY_MODEL else "this request"
        return NoServer(f"no server can serve {what} now", details=why, retry_after=min(max(soon, 1.0), 300.0))


def _state_of(server: ServerState, model: ModelName) -> str:
    if server.usable:
        return f"{server.id}: breaker {server.gate_state(model).value}"
    return f"{server.id}: {server.health.value}, {server.admin.value} ({server.why})"
