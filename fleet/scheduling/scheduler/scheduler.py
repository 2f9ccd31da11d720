"""The dispatcher's mind: the queue, the index of servers, the policy. Pure; the actor brings the time.

Invariant (property-tested): no model has both a waiter and a ready server which that waiter accepts, unless the queue
is paused, the fleet-wide cap is reached, or the policy plans: then whoever waits is asked again at a finite time (see
`choice.planned`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf
from typing import Final

from fleet.breakers.gate import GateState
from fleet.common.errors import FleetError, ModelNotFound, NoServer, QueueFull, ServerNotFound
from fleet.common.ids import ANY_MODEL, ModelName, ServerId
from fleet.common.randomness import Chance
from fleet.scheduling.choice.at_once import AtOnce, Chooser, Proposal
from fleet.scheduling.choice.balancing import BalancingPolicy, Scored
from fleet.scheduling.choice.planned import Planned
from fleet.scheduling.rates import ServiceRate
from fleet.scheduling.scheduler.decisions import Decision, Grant, SchedulerLimits, SchedulerMemory
from fleet.scheduling.server_index import ServerIndex
from fleet.scheduling.server_state import Health, ServerState
from fleet.scheduling.wait_queue import Queue, Ticket, TicketLine

_MOST_RATES: Final = 4096
"""Models with a pace of their own, before those that nobody lists any more are forgotten."""


ALONE: Final = 5.0
"""Seconds for which one that has to be alone is; who kills runners has done it by then, nearly always."""
_QUIET: Final = 10.0
"""Seconds for which a pair is kept from others until it is idle; then one is chosen anew."""


class Scheduler:
    """Every method is synchronous; each leaves the invariant intact once its grants have been handed out."""

    def __init__(
        self, rules: SchedulerLimits, policy: BalancingPolicy, chance: Chance, memory: SchedulerMemory, now: float
    ) -> None:
        self.rules = rules
        self.policy = policy
        self.memory = memory
        self.queue = Queue(rules.ageing)
        self.index = ServerIndex(now)
        self._chance = chance
        self.chooser = self._make_chooser()

    def reconfigure(self, rules: SchedulerLimits, policy: BalancingPolicy, now: float) -> None:
        """Go on by other rules; nobody who waits is sent away. The caller goes on with `serve_anywhere`."""
        waiting = self.queue.tickets() if rules.ageing != self.rules.ageing else None
        self.rules, self.policy = rules, policy
        self.memory.keep_to(rules)
        if waiting is not None:  # ranks are fixed when a ticket enters its line
            self.queue = Queue(rules.ageing)
            for ticket in waiting:
                self.queue.push(ticket)
        self.chooser = self._make_chooser()
        for ticket in self.queue.tickets():
            self.chooser.entered(ticket, now)

    @property
    def blocked(self) -> bool:
        """Nothing may be granted: paused, or the fleet-wide cap is reached."""
        return self.memory.paused or self.memory.total.free < 1

    def submit(self, ticket: Ticket, now: float) -> Grant | None:
        """A grant, or None when the ticket has to wait (it stands in its line then).

        Raises ModelNotFound, ServerNotFound, NoServer, QueueFull.
        """
        if not ticket.runs and (answering := self._answering(ticket)):
            return self._take(ticket, self.chooser.rank(answering, ticket, now), now, slot=False)
        if self.index.held and not len(self.queue):  # else `serve_due` does, in order
            self._relax(now)
        may_wait = self.rules.may_wait and self._has_room(ticket)
        if not self.blocked and (scored := self.chooser.for_ticket(ticket, now, may_wait=may_wait)):
            return self._take(ticket, scored, now)
        if ticket.pinned:
            self._check_pinned(ticket)
        elif not self.index.accepts(ticket.model, ticket.excluded):
            self._check_hope(ticket, now)
        self._admit(ticket, now)
        return None

    def withdraw(self, ticket: Ticket) -> None:
        """The client left or its time is up."""
        self._remove(ticket)

    def freed(self, server: ServerState, model: ModelName, now: float) -> None:
        """A lease ended; its ledger entries are gone already. The caller goes on with `serve` or `serve_anywhere`."""
        if server.holds:
            if not self.queue.alone and not server.ledger.of_model(model):
                server.release(model)
            self.index.note_holds(server)
        self.memory.rate.note(now)
        rate = self.memory.rates.get(model)
        if rate is not None:
            rate.note(now)
        elif self.index.knows(model):
            self._new_rate(model).note(now)

    def moved(self, server: ServerState) -> None:
        """A server changed otherwise than by a slot, or is gone. The index knows already; the caller serves it next."""
        if len(self.queue):
            self.chooser.moved(server)

    def serve(self, server: ServerState, now: float) -> Iterable[tuple[Ticket, Grant]]:
        """Hand out whatever this server can take now.

        The caller uses each grant, or undoes it, before it asks for the next.
        """
        if len(self.queue):
            return self._serve_all(server, now)
        self.index.update_slots(server)
        return ()

    def _serve_all(self, server: ServerState, now: float) -> Iterator[tuple[Ticket, Grant]]:
        while given := self._next_for(server, now):
            yield given
        if self.index.servers.get(server.id) is server:  # who used the last grant may have found it removed
            self.index.update_slots(server)

    def serve_anywhere(self, now: float) -> Iterator[tuple[Ticket, Grant]]:
        """Hand out whatever any server can take: after a pause, and whenever the fleet-wide cap matters. O(lines)."""
        while given := self._next_anywhere(now):
            yield given

    def serve_due(self, now: float) -> Iterator[tuple[Ticket, Grant]]:
        """Hand out what those choose whose time to be asked again has come; used or undone one by one, as above.

        And what servers take again that have had enough to do.
        """
        if self.blocked:
            return
        for server in self._relax(now) if self.index.held else ():
            yield from self.serve(server, now) if self.rules.max_in_flight is None else self.serve_anywhere(now)
        for proposal in self.chooser.due(now):
            ticket, scored = proposal
            self._remove(ticket)
            yield ticket, self._take(ticket, scored, now)
            if self.memory.total.free < 1:
                return

    @property
    def next_due(self) -> float:
        """When `serve_due` has to be called, at the latest. Whoever ends a block calls `serve_anywhere`."""
        if self.blocked or not len(self.queue):
            return inf
        due = self.chooser.next_due
        if self.index.held:
            due = min(due, *(hold.due for server in self.index.held.values() for hold in server.holds.values()))
        return due

    def undo(self, grant: Grant) -> None:
        """Take a grant back that nobody will ever use."""
        grant.server.ledger.close(grant.number)
        self.memory.total.close(grant.number)
        if grant.gate is not None:
            grant.gate.give_back()
        self.index.update_slots(grant.server)

    def sweep(self, now: float) -> list[tuple[Ticket, FleetError]]:
        """Refuse everybody in lines that no server has been able to serve for longer than the grace."""
        hopeless = [line for line in self.queue.lines() if self._hopeless(line, now)]
        refused = [(ticket, self._no_server(ticket, now)) for line in hopeless for ticket in line.tickets()]
        for ticket, _ in refused:
            self._remove(ticket)
        return refused

    def _make_chooser(self) -> Chooser:
        rules, prices = self.rules, self.policy.prices
        capped = rules.max_in_flight is not None
        if prices is not None:
            return Planned(prices, self.queue, self.index, self._chance, rules.candidates, capped=capped)
        return AtOnce(self.policy, self.queue, self.index, self._chance, rules.candidates, capped=capped)

    def _new_rate(self, model: ModelName) -> ServiceRate:
        if len(self.memory.rates) >= _MOST_RATES:
            self.memory.rates = {m: rate for m, rate in self.memory.rates.items() if self.index.knows(m)}
        rate = self.memory.rates[model] = ServiceRate()
        return rate

    def _relax(self, now: float) -> list[ServerState]:
        """Servers that may be sent more than before."""
        relaxed = [server for server in self.index.held.values() if server.relax(now)]
        for server in relaxed:
            self.index.note_holds(server)
        for line in self.queue.lonely():
            self._make_quiet(line.head()[2], now)
        return relaxed

    # ---- choosing

    def _next_for(self, server: ServerState, now: float) -> tuple[Ticket, Grant] | None:
        if self.blocked or not len(self.queue) or server.ledger.free < 1 or not server.usable:
            return None
        return self._serve(self.chooser.for_server(server, now), now)

    def _next_anywhere(self, now: float) -> tuple[Ticket, Grant] | None:
        return None if self.blocked else self._serve(self.chooser.for_anybody(now), now)

    def _answering(self, ticket: Ticket) -> list[ServerState]:
        """Usable servers that list the model, busy or not, whatever their breakers say."""
        if ticket.model == ANY_MODEL or ticket.pinned:
            return []
        listing = [self.index.servers[server] for server in self.index.holders(ticket.model) - ticket.excluded]
        usable = [server for server in listing if server.usable]
        return ([server for server in usable if ticket.model not in server.cooling] or usable)[: self.rules.candidates]

    def _serve(self, proposal: Proposal | None, now: float) -> tuple[Ticket, Grant] | None:
        if proposal is None:
            return None
        ticket, scored = proposal
        self._remove(ticket)
        return ticket, self._take(ticket, scored, now)

    def _take(self, ticket: Ticket, scored: list[Scored], now: float, *, slot: bool = True) -> Grant:
        """Reserve, in the same step as the choice. Without `slot`, ledgers and gate do not know of it."""
        memory, model, server = self.memory, ticket.model, scored[0][0]
        number = memory.numbers = memory.numbers + 1
        server.last_granted = number
        waited = now - ticket.enqueued
        gate = None
        if slot:
            gate = server.gates.get(model) if server.gates and not ticket.pinned else None
            entered = server.ledger.open(number, model) and memory.total.open(number, model)
            passed = gate is None or gate.take()
            assert entered, "a chosen server has a free slot"
            assert passed, "a chosen server's gate admits"
            self.index.update_slots(server)
            if self.policy.prices is not None:
                self.index.warming(server, model)
            memory.waited.add(waited)
            if ticket.alone:
                server.reserve(model, now + ALONE)
                self.index.note_holds(server)
        name, parts = self.policy.name, self.policy.parts
        hope, fallback = ticket.hope, ticket.fallback
        decision = Decision(now, ticket.request_id, model, name, waited, scored, parts, hope, fallback)
        memory.decisions.append(decision)
        return Grant(number, server, model, gate, decision)

    # ---- refusing

    def _check_pinned(self, ticket: Ticket) -> None:
        assert ticket.pinned is not None
        server = self.index.servers.get(ticket.pinned)
        if server is None:
            raise ServerNotFound(f"server '{ticket.pinned}' not found")
        if not server.usable and server.health is not Health.UNKNOWN:
            raise NoServer(
                f"server '{server.id}' cannot be used now", details=_state_of(server, ticket.model), retry_after=5.0
            )

    def _admit(self, ticket: Ticket, now: float) -> None:
        if not self.rules.may_wait:
            raise NoServer("all servers are busy and the queue is switched off", retry_after=1.0)
        if not self._has_room(ticket):
            self.memory.dropped += 1
            raise QueueFull(
                f"the queue is full ({len(self.queue)} requests wait)",
                details="try again later, or raise queue.max_size",
                retry_after=self._retry_after(ticket.model, now),
            )
        self.memory.queued += 1
        self.queue.push(ticket)
        self.chooser.entered(ticket, now)
        if ticket.alone:
            self._make_quiet(ticket, now)

    # Somebody who has to be alone would wait for ever on a busy fleet, where no runner is ever idle. So one pair is
    # kept from all others until it is: the one with the least to finish. One at a time for each model is enough, and
    # all that a client can bring about; and if that server goes away meanwhile, another is chosen in time.
    def _make_quiet(self, ticket: Ticket, now: float) -> None:
        """Let a pair run empty for a ticket that has to be alone."""
        model = ticket.model
        servers = self.index.acceptable(model, ticket.excluded, self.rules.candidates, self._chance)
        if servers and not any(server.reserved(model) for server in servers):
            server = min(servers, key=lambda each: each.ledger.of_model(model))
            server.reserve(model, now + _QUIET)
            self.index.note_holds(server)

    def _has_room(self, ticket: Ticket) -> bool:
        """Who comes back from a server that had enough to do was let in before."""
        return len(self.queue) < self.rules.max_size or ticket.back

    def _remove(self, ticket: Ticket) -> None:
        if self.queue.remove(ticket):
            self.chooser.left(ticket)

    def _retry_after(self, model: ModelName, now: float) -> float:
        """When about half of those who wait for this model will have been served, from the observed pace."""
        rate = self.memory.rates.get(model, self.memory.rate)
        return min(max(rate.wait_for(self.queue.waiting_of(model) / 2 + 1, now) or 5.0, 1.0), 300.0)

    def _check_hope(self, ticket: Ticket, now: float) -> None:
        """No server can take this ticket. Raises unless one may turn up within the grace."""
        if not self.index.servers or self._unservable(ticket.model, ticket.excluded, now):
            raise self._no_server(ticket, now)

    def _hopeless(self, line: TicketLine, now: float) -> bool:
        if line.terms.pinned is not None:
            server = self.index.servers.get(line.terms.pinned)
            return server is None or (not server.usable and now - server.since >= self.rules.grace)
        assert line.terms.model is not None
        if self.index.accepts(line.terms.model, line.terms.excluded):
            return False
        return self._unservable(line.terms.model, line.terms.excluded, now)

    def _unservable(self, model: ModelName, excluded: frozenset[ServerId], now: float) -> bool:
        """Of a model that nobody accepting can serve now: whether waiting any longer makes no sense."""
        if excluded and self.index.accepts(model, frozenset()):
            return True
        if not self.index.knows(model) and self.index.complete(now):
            return True
        return now - self.index.unroutable_since(model) >= self.rules.grace

    def _no_server(self, ticket: Ticket, now: float) -> FleetError:
        if ticket.pinned is None and not self.index.knows(ticket.model) and self.index.complete(now):
            return ModelNotFound(f"model '{ticket.model}' not found")
        holders = self.index.holders(ticket.model) if ticket.pinned is None else {ticket.pinned}
        states = [self.index.servers[server] for server in sorted(holders) if server in self.index.servers]
        why = "; ".join(_state_of(state, ticket.model) for state in states[:5]) or "no server that answers lists it"
        waits = [gate.retry_at - now for state in states if (gate := state.gates.get(ticket.model))]
        soon = min((wait for wait in waits if 0 < wait < float("inf")), default=5.0)
        what = f"model '{ticket.model}'" if ticket.model != ANY_MODEL else "this request"
        return NoServer(f"no server can serve {what} now", details=why, retry_after=min(max(soon, 1.0), 300.0))


_BREAKER_WORDS: Final = {GateState.OPEN: "closed", GateState.LIMITED: "half-open", GateState.SHUT: "open"}
"""A gate that is shut belongs to a breaker that is, in everybody's words, open."""


def _state_of(server: ServerState, model: ModelName) -> str:
    if server.usable and model in server.barred:
        return f"{server.id}: kept away from this model for a while"
    if server.usable:
        return f"{server.id}: circuit breaker {_BREAKER_WORDS[server.gate_state(model)]}"
    return f"{server.id}: {server.health.value}, {server.admin.value} ({server.why})"
