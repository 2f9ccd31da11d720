"""The dispatcher's mind, by a state machine over everything that can happen to it."""

from __future__ import annotations

import random
from collections.abc import Iterable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fleet.breakers.gate import Gate, GateState
from fleet.common.errors import ModelNotFound, NoServer, QueueFull, ServerNotFound
from fleet.common.ids import ModelName
from fleet.common.model_names import canonical
from fleet.scheduling.scheduler.decisions import Grant, SchedulerLimits
from fleet.scheduling.scheduler.scheduler import Scheduler
from fleet.scheduling.server_state import Health, Order, ServerState
from fleet.scheduling.wait_queue import Ticket
from tests.fleet.builders import make_board, make_server, make_ticket, release

MODELS = ["m", "n", "o"]
NAMES = ["a", "b", "c"]


class BoardMachine(RuleBasedStateMachine):
    """Clients, servers, breakers and the operator do as they like; the invariants hold after every step."""

    @initialize(slots=st.lists(st.integers(1, 3), min_size=3, max_size=3))
    def start(self, slots: list[int]) -> None:
        self.now = 0.0
        pairs = zip(NAMES, slots, strict=True)
        self.servers = {name: make_server(name, *MODELS[:2], slots=size) for name, size in pairs}
        self.board = self.board_of()
        self.grants: list[Grant] = []
        self.waiting: list[Ticket] = []
        self.settled: set[int] = set()
        self.late: list[Grant] = []
        self.shown: list[Grant] = []

    def board_of(self) -> Scheduler:
        return make_board(*self.servers.values(), rules=SchedulerLimits(max_size=20, grace=2.0))

    def settle(self, ticket: Ticket) -> None:
        assert ticket.number not in self.settled, "settled twice"
        self.settled.add(ticket.number)

    def serve(self, server: ServerState) -> None:
        self.hand_out(self.board.serve(server, self.now))
        for stirred in self.board.index.stirred():
            self.hand_out(self.board.serve(self.servers[stirred], self.now))

    def hand_out(self, given: Iterable[tuple[Ticket, Grant]]) -> None:
        for ticket, grant in given:
            self.settle(ticket)
            self.waiting.remove(ticket)
            self.check(ticket, grant)
            self.grants.append(grant)

    def check(self, ticket: Ticket, grant: Grant) -> None:
        """What holds for every grant of a slot, whether given at once or after waiting."""
        assert not self.board.memory.paused
        assert not self.overtaken_by(ticket), "who came later was served first"
        assert grant.server.usable
        assert not ticket.alone or grant.server.ledger.of_model(ticket.model) == 1, "somebody is beside it"
        if ticket.pinned:
            assert grant.server.id == ticket.pinned
        else:
            assert grant.server.id not in ticket.excluded
            assert ticket.model in grant.server.models
            if ticket.model in grant.server.barred:
                assert ticket.model in grant.server.cooling
                routable = [s for s in self.servers.values() if s.routable(ticket.model)]
                assert all(s.id in ticket.excluded for s in routable), "another could have served it"
            assert grant.server.gate_state(ticket.model) is not GateState.SHUT

    def overtaken_by(self, granted: Ticket) -> list[Ticket]:
        """Those who wait on the same terms for the same model with the same priority, and came before.

        Of those who insist on one server, who wants a model that is held for somebody may be passed by others.
        """
        wanted = (granted.terms, granted.model, granted.priority)
        same = [t for t in self.waiting if (t.terms, t.model, t.priority) == wanted]
        return [ticket for ticket in same if ticket.number < granted.number]

    @rule(
        model=st.sampled_from(MODELS),
        priority=st.integers(-2, 2),
        pinned=st.sampled_from([None, None, None, *NAMES]),
        excluded=st.sets(st.sampled_from(NAMES), max_size=2),
        alone=st.sampled_from([False, False, False, True]),
    )
    def submit(self, model: str, priority: int, pinned: str | None, excluded: set[str], alone: bool) -> None:
        ticket = make_ticket(model, priority=priority, at=self.now, pinned=pinned, excluded=tuple(excluded))
        ticket.alone = alone and pinned is None
        try:
            grant = self.board.submit(ticket, self.now)
        except (NoServer, ModelNotFound, QueueFull, ServerNotFound):
            self.settle(ticket)
            return
        if grant is None:
            self.waiting.append(ticket)
        else:
            self.settle(ticket)
            self.check(ticket, grant)
            self.grants.append(grant)

    @rule(model=st.sampled_from(MODELS), excluded=st.sets(st.sampled_from(NAMES), max_size=2))
    def show(self, model: str, excluded: set[str]) -> None:
        """No runner is needed: any usable server that lists the model answers, however busy."""
        ticket = make_ticket(model, at=self.now, excluded=tuple(excluded))
        ticket.runs = False
        key = canonical(model)
        able = {s.id for s in self.servers.values() if s.usable and key in s.models and s.id not in excluded}
        try:
            grant = self.board.submit(ticket, self.now)
        except (NoServer, ModelNotFound, QueueFull):
            assert not able
            self.settle(ticket)
            return
        if grant is None:
            assert not able
            self.waiting.append(ticket)
        elif able:
            self.settle(ticket)
            assert grant.server.id in able
            assert grant.gate is None
            self.shown.append(grant)
        else:
            raise AssertionError("nobody could answer")

    @rule(data=st.data())
    def one_was_shown(self, data: st.DataObject) -> None:
        if self.shown:
            grant = self.shown.pop(data.draw(st.integers(0, len(self.shown) - 1)))
            release(self.board, grant, self.now)
            self.serve(grant.server)

    @rule(paused=st.booleans())
    def operator_pauses_or_resumes(self, paused: bool) -> None:
        self.board.memory.paused = paused
        if not paused:
            self.hand_out(self.board.serve_anywhere(self.now))

    @rule(name=st.sampled_from(NAMES), model=st.sampled_from(MODELS), barred=st.booleans())
    def a_model_is_barred_or_let_in(self, name: str, model: str, barred: bool) -> None:
        server, key = self.servers[name], canonical(model)
        server.cooling.discard(key)
        (server.barred.add if barred else server.barred.discard)(key)
        self.board.index.update_pair(server, key, self.now)
        self.board.moved(server)
        self.serve(server)

    @rule(name=st.sampled_from(NAMES), model=st.sampled_from(MODELS), cooling=st.booleans())
    def a_model_is_passed_over_or_not(self, name: str, model: str, cooling: bool) -> None:
        server, key = self.servers[name], canonical(model)
        for models in (server.barred, server.cooling):
            (models.add if cooling else models.discard)(key)
        self.board.index.update_pair(server, key, self.now)
        self.board.moved(server)
        self.serve(server)

    @rule(data=st.data())
    def end_one(self, data: st.DataObject) -> None:
        if self.grants:
            grant = self.grants.pop(data.draw(st.integers(0, len(self.grants) - 1)))
            release(self.board, grant, self.now)
            self.serve(grant.server)

    @rule(data=st.data())
    def one_ends_and_the_news_is_late(self, data: st.DataObject) -> None:
        if self.grants:
            grant = self.grants.pop(data.draw(st.integers(0, len(self.grants) - 1)))
            grant.server.ledger.close(grant.number)
            self.board.memory.total.close(grant.number)
            self.late.append(grant)

    @rule()
    def late_news_arrive(self) -> None:
        for grant in self.late:
            if grant.gate is not None:
                grant.gate.give_back()
            self.board.freed(grant.server, grant.model, self.now)
            self.serve(grant.server)
        self.late.clear()

    @rule(data=st.data())
    def client_leaves(self, data: st.DataObject) -> None:
        if self.waiting:
            ticket = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
            self.settle(ticket)
            self.board.withdraw(ticket)

    @rule(name=st.sampled_from(NAMES), health=st.sampled_from([Health.HEALTHY, Health.UNHEALTHY]))
    def health_changes(self, name: str, health: Health) -> None:
        self.servers[name].judge(health, self.now, "test")
        self.update(name)

    @rule(name=st.sampled_from(NAMES), order=st.sampled_from([Order.DRAIN, Order.ACTIVATE, Order.MAINTAIN]))
    def operator_orders(self, name: str, order: Order) -> None:
        self.servers[name].order(order, self.now, "test")
        self.update(name)

    @rule(name=st.sampled_from(NAMES), models=st.sets(st.sampled_from(MODELS)))
    def inventory_changes(self, name: str, models: set[str]) -> None:
        self.servers[name].models = {canonical(model): {} for model in models}
        self.update(name)

    @rule(name=st.sampled_from(NAMES), model=st.sampled_from(MODELS), state=st.sampled_from(GateState))
    def gate_moves(self, name: str, model: str, state: GateState) -> None:
        server, key = self.servers[name], canonical(model)
        gate = server.gates.setdefault(key, Gate())
        gate.show(state, limit=2, retry_at=self.now + 10)
        self.board.index.update_pair(server, key, self.now)
        self.board.moved(server)
        self.serve(server)

    @rule(data=st.data())
    def a_server_has_enough_to_do(self, data: st.DataObject) -> None:
        if self.grants:
            grant = self.grants.pop(data.draw(st.integers(0, len(self.grants) - 1)))
            grant.server.ledger.close(grant.number)
            self.board.memory.total.close(grant.number)
            if grant.gate is not None:
                grant.gate.give_back()
            grant.server.hold_back(grant.model, 0.0, self.now)
            self.board.freed(grant.server, grant.model, self.now)
            self.serve(grant.server)

    @rule(seconds=st.floats(0.1, 3.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        while self.board.next_due <= self.now:
            self.hand_out(self.board.serve_due(self.now))
        for ticket, _ in self.board.sweep(self.now):
            self.settle(ticket)
            self.waiting.remove(ticket)

    def update(self, name: str) -> None:
        self.board.index.update(self.servers[name], self.now)
        self.board.moved(self.servers[name])
        self.serve(self.servers[name])

    @invariant()
    def in_flight_is_the_number_of_open_leases(self) -> None:
        if hasattr(self, "board"):
            assert sum(server.in_use for server in self.servers.values()) == len(self.grants)
            assert self.board.memory.total.in_use == len(self.grants)
            assert all(server.in_use <= server.ledger.capacity for server in self.servers.values())

    @invariant()
    def nobody_waits_for_a_ready_server(self) -> None:
        if hasattr(self, "board") and not self.late and not self.board.memory.paused:
            for ticket in self.waiting:
                for server in self.servers.values():
                    if ticket.pinned:
                        ready = server.id == ticket.pinned and server.ready_pinned(ticket.model)
                    else:
                        ready = server.id not in ticket.excluded and self.takes(server, ticket)
                    assert not ready, (ticket, server)

    def takes(self, server: ServerState, ticket: Ticket) -> bool:
        """Whether a server is ready for a ticket, if only because nobody else could serve it."""
        if ticket.alone:
            return server.ready_alone(ticket.model) and server in self.board.index.acceptable(
                ticket.model, ticket.excluded, 99, random.Random(0)
            )
        if server.ready(ticket.model):
            return True
        others = [s for s in self.servers.values() if s.routable(ticket.model) and s.id not in ticket.excluded]
        return server.spare_ready(ticket.model) and not others

    @invariant()
    def the_queue_knows_exactly_who_waits(self) -> None:
        if hasattr(self, "board"):
            assert {t.number for t in self.board.queue.tickets()} == {t.number for t in self.waiting}
            assert len(self.board.queue) == len(self.waiting)

    @invariant()
    def a_draw_gives_exactly_the_ready_servers(self) -> None:
        if hasattr(self, "board") and not self.late:
            index = self.board.index
            for name in (*MODELS, ""):
                model = canonical(name) if name else ModelName("")
                drawn = {server.id for server in index.draw(model, 99, random.Random(0))}
                ready = {server.id for server in self.servers.values() if server.ready(model)}
                if not any(server.routable(model) for server in self.servers.values()):
                    ready = {server.id for server in self.servers.values() if server.spare_ready(model)}
                assert drawn == ready
                routable = {server.id for server in index.routable(model)}
                assert routable == {server.id for server in self.servers.values() if server.routable(model)}


BoardMachine.TestCase.settings = settings(max_examples=400, stateful_step_count=40, deadline=None)
TestBoardMachine = BoardMachine.TestCase
