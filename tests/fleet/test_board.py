"""The dispatcher's mind, by tables and by a state machine over everything that can happen to it."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fleet.board import Board
from fleet.errors import ModelNotFound, NoServer, QueueFull, ServerNotFound
from fleet.gate import Gate, GateState
from fleet.grants import Grant, Rules
from fleet.ids import ModelName
from fleet.names import canonical
from fleet.queue import Ticket
from fleet.server import Health, Order, ServerState
from tests.fleet.builders import make_board, make_server, make_ticket


def release(board: Board, grant: Grant, now: float = 0.0) -> None:
    grant.server.ledger.close(grant.number)
    board.memory.total.close(grant.number)
    if grant.gate is not None:
        grant.gate.give_back()
    board.freed(grant.server, grant.model, now)


def test_a_ready_server_is_granted_at_once() -> None:
    board = make_board(make_server("a", "m", slots=1))
    grant = board.submit(make_ticket("m"), 0.0)
    assert grant is not None
    assert grant.server.id == "a"
    assert grant.server.in_use == 1


def test_the_second_waits_and_is_granted_when_the_slot_is_freed() -> None:
    server = make_server("a", "m", slots=1)
    board = make_board(server)
    first = board.submit(make_ticket("m"), 0.0)
    second = make_ticket("m")
    assert first is not None
    assert board.submit(second, 0.0) is None
    assert not list(board.serve(server, 0.0))
    release(board, first)
    assert [ticket for ticket, _ in board.serve(server, 1.0)] == [second]


def test_the_least_busy_of_equal_servers_wins() -> None:
    a, b = make_server("a", "m", slots=4), make_server("b", "m", slots=4)
    board = make_board(a, b)
    for _ in range(8):
        assert board.submit(make_ticket("m"), 0.0) is not None
        assert abs(a.in_use - b.in_use) <= 1
    assert (a.in_use, b.in_use) == (4, 4)


def test_unknown_model_is_not_found_once_all_servers_were_probed() -> None:
    board = make_board(make_server("a", "m"))
    with pytest.raises(ModelNotFound):
        board.submit(make_ticket("nope"), 0.0)


def test_unknown_model_waits_while_a_server_is_still_unknown() -> None:
    board = make_board(make_server("a", health=Health.UNKNOWN))
    assert board.submit(make_ticket("m"), 0.0) is None


def test_a_model_on_a_dead_server_is_refused_after_the_grace_and_at_once_later() -> None:
    server = make_server("a", "m")
    board = make_board(server)
    server.health = Health.UNHEALTHY
    board.index.update(server, 10.0)
    ticket = make_ticket("m")
    assert board.submit(ticket, 10.0) is None
    assert board.sweep(11.0) == []
    refused = board.sweep(12.1)
    assert [t for t, _ in refused] == [ticket]
    assert isinstance(refused[0][1], NoServer)
    with pytest.raises(NoServer):
        board.submit(make_ticket("m"), 12.2)


def test_a_full_queue_refuses_with_a_wait_from_the_service_rate() -> None:
    server = make_server("a", "m", slots=1)
    board = make_board(server, rules=Rules(max_size=4))
    running = board.submit(make_ticket("m"), 0.0)
    assert running is not None
    for now in range(1, 11):  # one completion a second
        release(board, running, float(now))
        assert not list(board.serve(running.server, float(now)))
        running = board.submit(make_ticket("m"), float(now))
        assert running is not None
    for _ in range(4):
        board.submit(make_ticket("m"), 10.0)
    with pytest.raises(QueueFull) as caught:
        board.submit(make_ticket("m"), 10.0)
    assert caught.value.retry_after == pytest.approx(3.0, rel=0.3)
    assert board.memory.dropped == 1


def test_switched_off_queue_refuses_instead_of_waiting() -> None:
    board = make_board(make_server("a", "m", slots=1), rules=Rules(may_wait=False))
    assert board.submit(make_ticket("m"), 0.0) is not None
    with pytest.raises(NoServer):
        board.submit(make_ticket("m"), 0.0)


def test_excluded_servers_are_not_tried_again() -> None:
    board = make_board(make_server("a", "m"), make_server("b", "m"))
    for _ in range(3):
        grant = board.submit(make_ticket("m", excluded=("a",)), 0.0)
        assert grant is not None
        assert grant.server.id == "b"
    with pytest.raises(NoServer):
        board.submit(make_ticket("m", excluded=("a", "b")), 0.0)


@pytest.mark.parametrize(
    ("health", "order", "error"),
    [(Health.UNHEALTHY, None, NoServer), (Health.HEALTHY, Order.DRAIN, NoServer), (Health.HEALTHY, None, None)],
)
def test_pinned_requests_need_a_usable_server(
    health: Health, order: Order | None, error: type[Exception] | None
) -> None:
    server = make_server("a", health=health)
    if order:
        server.order(order, 0.0, "test")
    board = make_board(server)
    if error is None:
        assert board.submit(make_ticket("m", pinned="a"), 0.0) is not None
        return
    with pytest.raises(error):
        board.submit(make_ticket("m", pinned="a"), 0.0)


def test_pinned_to_an_unknown_server_is_not_found() -> None:
    with pytest.raises(ServerNotFound):
        make_board(make_server("a", "m")).submit(make_ticket("m", pinned="zzz"), 0.0)


def test_a_pause_holds_everybody_and_resuming_serves_in_order() -> None:
    board = make_board(make_server("a", "m", slots=2))
    board.memory.paused = True
    tickets = [make_ticket("m", at=float(n)) for n in range(3)]
    assert all(board.submit(ticket, 5.0) is None for ticket in tickets)
    board.memory.paused = False
    assert [ticket for ticket, _ in board.serve_anywhere(6.0)] == tickets[:2]


def test_the_fleet_wide_cap_counts_over_all_servers() -> None:
    board = make_board(make_server("a", "m"), make_server("b", "m"), rules=Rules(max_in_flight=1))
    grant = board.submit(make_ticket("m"), 0.0)
    assert grant is not None
    waiting = make_ticket("m")
    assert board.submit(waiting, 0.0) is None
    release(board, grant)
    board.index.update_slots(grant.server)
    assert [ticket for ticket, _ in board.serve_anywhere(1.0)] == [waiting]


def test_every_decision_is_explained_by_its_parts() -> None:
    board = make_board(make_server("a", "m"), make_server("b", "m"))
    board.submit(make_ticket("m"), 3.0)
    decision = board.memory.decisions[-1]
    assert {server for server, _ in decision.candidates} == {"a", "b"}
    assert decision.chosen == decision.candidates[0][0]
    assert all(len(parts) == len(board.policy.parts) for _, parts in decision.candidates)


def test_a_gate_that_moves_before_the_freed_slot_is_announced_leaves_the_index_right() -> None:
    server = make_server("a", "m", "n", slots=1)
    board = make_board(server)
    first = board.submit(make_ticket("m"), 0.0)
    assert first is not None
    server.ledger.close(first.number)  # SlotFreed is still on its way ...
    board.memory.total.close(first.number)
    board.index.update(server, 0.0)  # ... when the server's news come
    second = board.submit(make_ticket("m"), 0.0)
    assert second is not None
    assert second.server is server
    assert board.submit(make_ticket("m"), 0.0) is None


MODELS = ["m", "n", "o"]
NAMES = ["a", "b", "c"]


class BoardMachine(RuleBasedStateMachine):
    """Clients, servers, breakers and the operator do as they like; the invariants hold after every step."""

    @initialize(slots=st.lists(st.integers(1, 3), min_size=3, max_size=3))
    def start(self, slots: list[int]) -> None:
        self.now = 0.0
        pairs = zip(NAMES, slots, strict=True)
        self.servers = {name: make_server(name, *MODELS[:2], slots=size) for name, size in pairs}
        self.board = make_board(*self.servers.values(), rules=Rules(max_size=20, grace=2.0))
        self.grants: list[Grant] = []
        self.waiting: list[Ticket] = []
        self.settled: set[int] = set()
        self.late: list[Grant] = []

    def settle(self, ticket: Ticket) -> None:
        assert ticket.number not in self.settled, "settled twice"
        self.settled.add(ticket.number)

    def serve(self, server: ServerState) -> None:
        for ticket, grant in self.board.serve(server, self.now):
            self.settle(ticket)
            self.waiting.remove(ticket)
            self.grants.append(grant)

    @rule(
        model=st.sampled_from(MODELS),
        priority=st.integers(-2, 2),
        pinned=st.sampled_from([None, None, None, *NAMES]),
        excluded=st.sets(st.sampled_from(NAMES), max_size=2),
    )
    def submit(self, model: str, priority: int, pinned: str | None, excluded: set[str]) -> None:
        ticket = make_ticket(model, priority=priority, at=self.now, pinned=pinned, excluded=tuple(excluded))
        try:
            grant = self.board.submit(ticket, self.now)
        except (NoServer, ModelNotFound, QueueFull, ServerNotFound):
            self.settle(ticket)
            return
        if grant is None:
            self.waiting.append(ticket)
        else:
            self.settle(ticket)
            assert grant.server.id not in excluded or pinned
            self.grants.append(grant)

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
        self.serve(server)

    @rule(seconds=st.floats(0.1, 3.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for ticket, _ in self.board.sweep(self.now):
            self.settle(ticket)
            self.waiting.remove(ticket)

    def update(self, name: str) -> None:
        self.board.index.update(self.servers[name], self.now)
        self.serve(self.servers[name])

    @invariant()
    def in_flight_is_the_number_of_open_leases(self) -> None:
        if hasattr(self, "board"):
            assert sum(server.in_use for server in self.servers.values()) == len(self.grants)
            assert self.board.memory.total.in_use == len(self.grants)
            assert all(server.in_use <= server.ledger.capacity for server in self.servers.values())

    @invariant()
    def nobody_waits_for_a_ready_server(self) -> None:
        if hasattr(self, "board") and not self.late:
            for ticket in self.waiting:
                for server in self.servers.values():
                    if ticket.pinned:
                        ready = server.id == ticket.pinned and server.usable and server.ledger.free >= 1
                    else:
                        ready = server.id not in ticket.excluded and server.ready(ticket.model)
                    assert not ready, (ticket, server)

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
                assert drawn == {server.id for server in self.servers.values() if server.ready(model)}
                routable = {server.id for server in index.routable(model)}
                assert routable == {server.id for server in self.servers.values() if server.routable(model)}


BoardMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestBoardMachine = BoardMachine.TestCase


def test_a_pinned_newcomer_does_not_overtake_those_who_wait() -> None:
    """It goes by the ledger, they by what the dispatcher has heard: the slot is free, the news still on its way."""
    server = make_server("a", "m", slots=1)
    board = make_board(server)
    running = board.submit(make_ticket("m"), 0.0)
    assert running is not None
    old, new = make_ticket("m"), make_ticket("m", pinned="a", at=1.0)
    assert board.submit(old, 0.0) is None
    server.ledger.close(running.number)
    board.memory.total.close(running.number)
    assert board.submit(new, 1.0) is None
    board.freed(server, running.model, 1.0)
    assert [ticket for ticket, _ in board.serve(server, 1.0)] == [old]


def test_show_needs_no_slot_and_no_open_gate() -> None:
    server = make_server("a", "m", slots=1)
    server.gates[canonical("m")] = Gate(GateState.SHUT)
    board = make_board(server)
    for _ in range(3):
        ticket = make_ticket("m")
        ticket.runs = False
        grant = board.submit(ticket, 0.0)
        assert grant is not None
    assert server.in_use == 0
