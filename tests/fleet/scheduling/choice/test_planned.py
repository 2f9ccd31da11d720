"""Who waits for a better server although another is ready, by examples and by a state machine."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from fleet.breakers.gate import Gate, GateState
from fleet.common.model_names import canonical
from fleet.scheduling.choice.balancing import Parts, Scored
from fleet.scheduling.choice.intents import Ahead
from fleet.scheduling.choice.planned import Planned
from fleet.scheduling.choice.rents import Rents
from fleet.scheduling.scheduler.decisions import Grant, SchedulerLimits
from fleet.scheduling.scheduler.scheduler import Scheduler
from fleet.scheduling.server_state import Health, Order, ServerState
from fleet.scheduling.wait_queue import Ticket
from tests.fleet.builders import make_board, make_server, make_ticket, release
from tests.fleet.scheduling.scheduler.test_scheduler_machine import MODELS, NAMES, BoardMachine

LOAD = 11.0
SERVICE = 2.0
RETURN = 4.0
"""Seconds: a load, a request, and what others lose when a server has to drop what they use."""


class KnownPrices:
    """A policy that knows what everything takes."""

    name = "known"
    parts = ("wait", "load", "decode", "harm")
    wait = 0
    load = 1
    harm = 3
    doubtful = False

    def __init__(self) -> None:
        self.rents = Rents()

    @property
    def prices(self) -> KnownPrices:
        return self

    def score(self, server: ServerState, model: str, now: float) -> Parts:
        raise AssertionError("a policy that plans is asked for prices")

    def begin(self) -> None:
        self.rents.begin()

    def entered(self, ticket: Ticket, now: float) -> None:
        self.rents.came(ticket.kind, now)

    def left(self, ticket: Ticket, now: float) -> None:
        self.rents.went(ticket.kind, now)

    def claim(self, ticket: Ticket, server: ServerState, wait: float, now: float) -> None:
        """Whatever is loaded here goes at once."""

    def fallback(self, ticket: Ticket, equals: Sequence[Scored], now: float) -> Scored | None:
        return None

    def least(self, ticket: Ticket, server: ServerState, now: float) -> float:
        return 0.0

    def has_room(self, ticket: Ticket, server: ServerState) -> bool:
        return True

    def spares(self, ticket: Ticket, server: ServerState, now: float) -> bool:
        return not server.resident

    def price(self, ticket: Ticket, server: ServerState, ahead: Ahead, now: float) -> Parts:
        short = ahead.alike + sum(many for _, many in ahead.others) + 1 - server.ledger.free
        warm = ticket.model in server.resident or server.ledger.of_model(ticket.model)
        wait = SERVICE * short if short > 0 else 0.0
        load = 0.0 if warm else LOAD
        harm = RETURN if load and server.resident else 0.0
        return -wait, -load, -SERVICE / (1.0 + server.spec.priority / 100.0), -harm


def planning(*servers: ServerState, rules: SchedulerLimits | None = None) -> Scheduler:
    return make_board(*servers, rules=rules, policy=KnownPrices())


def warm(name: str, *models: str, slots: int = 1, loaded: tuple[str, ...] = ()) -> ServerState:
    server = make_server(name, *models, slots=slots)
    server.resident = {canonical(model): {} for model in loaded}
    return server


def served(board: Scheduler, server: ServerState, now: float) -> list[tuple[Ticket, Grant]]:
    return list(board.serve(server, now))


def test_a_request_waits_for_the_warm_server_although_a_cold_one_is_ready() -> None:
    hot, cold = warm("hot", "m", loaded=("m",)), warm("cold", "m")
    board = planning(hot, cold)
    first = board.submit(make_ticket(), 0.0)
    assert first is not None
    assert first.server is hot
    ticket = make_ticket()
    assert board.submit(ticket, 0.0) is None
    assert served(board, cold, 0.0) == []
    release(board, first, 1.0)
    ((who, grant),) = served(board, hot, 1.0)
    assert who is ticket
    assert grant.server is hot


def test_so_many_wait_for_the_warm_server_that_the_next_goes_to_the_cold_one() -> None:
    """A load of eleven seconds is worth five requests ahead at two seconds each."""
    hot, cold = warm("hot", "m", loaded=("m",)), warm("cold", "m")
    board = planning(hot, cold)
    grants = [board.submit(make_ticket(), 0.0) for _ in range(12)]
    where = [grant.server.id if grant else None for grant in grants]
    assert where == ["hot", None, None, None, None, None, "cold", *[None] * 5]


def test_when_a_cold_server_comes_it_is_given_to_the_first_who_gains_by_it() -> None:
    hot, cold = warm("hot", "m", loaded=("m",)), warm("cold", "m")
    board = planning(hot)
    tickets = [make_ticket() for _ in range(9)]
    for ticket in tickets:
        board.submit(ticket, 0.0)
    board.index.update(cold, 0.0)
    board.moved(cold)
    ((who, grant),) = served(board, cold, 0.0)
    assert grant.server is cold
    assert who is tickets[6]


def test_a_server_that_becomes_warm_serves_the_first_in_line() -> None:
    hot, cold = warm("hot", "m", loaded=("m",)), warm("cold", "m")
    board = planning(hot, cold)
    tickets = [make_ticket() for _ in range(4)]
    for ticket in tickets:
        board.submit(ticket, 0.0)
    cold.resident = {canonical("m"): {}}
    board.index.update(cold, 0.0)
    board.moved(cold)
    ((who, _),) = served(board, cold, 0.0)
    assert who is tickets[1]


def test_who_waits_for_a_server_that_goes_away_is_asked_again_at_once() -> None:
    hot, cold = warm("hot", "m", loaded=("m",)), warm("cold", "m")
    board = planning(hot, cold)
    board.submit(make_ticket(), 0.0)
    ticket = make_ticket()
    assert board.submit(ticket, 0.0) is None
    hot.judge(Health.UNHEALTHY, 1.0, "gone")
    board.index.update(hot, 1.0)
    board.moved(hot)
    assert served(board, hot, 1.0) == []
    assert board.next_due <= 1.0
    ((who, grant),) = board.serve_due(1.0)
    assert (who, grant.server) == (ticket, cold)


def test_throwing_out_what_others_use_has_to_be_earned_by_waiting() -> None:
    server = warm("a", "m", "n", loaded=("n",))
    board = planning(server)
    first, second = make_ticket("m"), make_ticket("m", at=1.0)
    assert board.submit(first, 0.0) is None
    assert board.next_due == pytest.approx(RETURN)
    assert board.submit(second, 1.0) is None
    assert list(board.serve_due(2.0)) == []
    due = board.next_due
    assert due == pytest.approx(2.5, rel=0.01), "two wait, so the four seconds are earned sooner"
    ((who, _),) = board.serve_due(due + 0.05)
    assert who is first


def test_a_line_that_has_stood_for_longer_than_a_load_takes_buys_another_home() -> None:
    """Nobody in it would go there for himself: on the warm server each is served sooner."""
    hot, cold = warm("hot", "m", loaded=("m",)), warm("cold", "m")
    board = planning(hot, cold)
    first = board.submit(make_ticket(), 0.0)
    now, bought = 0.0, None
    while bought is None and now < 60.0:  # one comes whenever one is served, so that two wait all the time
        now += SERVICE / 2
        bought = board.submit(make_ticket(at=now), now)
        if bought is None and len(board.queue) > 2:
            assert first is not None
            release(board, first, now)
            ((_, first),) = served(board, hot, now)
    assert bought is not None
    assert bought.server is cold
    assert 1.25 * LOAD / 2 < now < 1.25 * LOAD * 2
    assert board.submit(make_ticket(at=now), now) is None, "all that was saved up is spent"


def test_nobody_waits_where_nobody_may() -> None:
    hot, cold = warm("hot", "m", loaded=("m",)), warm("cold", "m")
    board = planning(hot, cold, rules=SchedulerLimits(may_wait=False))
    grants = [board.submit(make_ticket(), 0.0) for _ in range(2)]
    assert [grant.server for grant in grants if grant] == [hot, cold]


def test_everybody_in_line_is_asked_again_at_a_finite_time() -> None:
    hot = warm("hot", "m", loaded=("m",))
    board = planning(hot)
    for _ in range(5):
        board.submit(make_ticket(), 0.0)
    assert 0.0 < board.next_due <= 30.0
    board.memory.paused = True
    assert board.next_due == float("inf")


def test_an_idle_server_is_seen_however_many_warm_ones_are_busy() -> None:
    hot = [warm(f"hot{n}", "m", loaded=("m",)) for n in range(20)]
    board = planning(*hot)
    for _ in range(20 + 160):
        board.submit(make_ticket(), 0.0)
    idle = warm("idle", "m")
    board.index.update(idle, 0.0)
    assert len(served(board, idle, 0.0)) == 1


def test_where_nobody_may_wait_an_idle_server_is_found_among_many_busy_ones() -> None:
    hot = [warm(f"hot{n}", "m", loaded=("m",)) for n in range(20)]
    board = planning(*hot, warm("idle", "m"), rules=SchedulerLimits(may_wait=False))
    grants = [board.submit(make_ticket(), 0.0) for _ in range(21)]
    assert {grant.server.id for grant in grants if grant} == {server.id for server in hot} | {"idle"}


def test_a_line_that_has_earned_its_load_is_not_asked_all_the_time() -> None:
    """Its server is busy with what it would throw out."""
    server = warm("a", "m", "n", loaded=("n",))
    board = planning(server)
    assert board.submit(make_ticket("n"), 0.0) is not None
    for _ in range(50):
        board.submit(make_ticket("m"), 0.0)
    asked = 0
    while (now := board.next_due) <= 20.0:
        assert list(board.serve_due(now)) == []
        asked += 1
        assert asked < 1000


def test_those_whose_gate_is_shut_hold_nobody_up() -> None:
    server = warm("a", "m", "n", slots=4, loaded=("m", "n"))
    gate = server.gates.setdefault(canonical("n"), Gate())
    board = planning(server)
    gate.show(GateState.LIMITED, limit=0, retry_at=10.0)
    board.index.update(server, 0.0)
    for _ in range(5):
        assert board.submit(make_ticket("n"), 0.0) is None
    assert board.submit(make_ticket("m"), 0.0) is not None


def test_one_who_is_due_is_proposed_once() -> None:
    server = warm("a", "m", "n", slots=4, loaded=("n",))
    board = planning(server)
    ticket = make_ticket("m")
    assert board.submit(ticket, 0.0) is None
    assert [who for who, _ in board.serve_due(RETURN + 0.1)] == [ticket]
    assert server.ledger.in_use == 1


def test_under_a_cap_who_waits_for_it_goes_first() -> None:
    server = warm("a", "m", slots=4, loaded=("m",))
    board = planning(server, rules=SchedulerLimits(max_in_flight=1))
    first = board.submit(make_ticket(), 0.0)
    assert first is not None
    waits, late = make_ticket(), make_ticket()
    assert board.submit(waits, 0.0) is None
    release(board, first, 1.0)
    assert board.submit(late, 1.0) is None, "the news of the free place is still on its way"
    assert [ticket for ticket, _ in board.serve_anywhere(1.0)] == [waits]


def test_all_of_a_line_who_saw_no_server_are_asked_when_one_comes() -> None:
    server = warm("a", "m", loaded=("m",))
    board = planning(server)
    server.judge(Health.UNHEALTHY, 0.0, "gone")
    board.index.update(server, 0.0)
    early = [make_ticket(), make_ticket()]
    for ticket in early:
        assert board.submit(ticket, 0.0) is None
    server.judge(Health.HEALTHY, 1.0, "back")
    board.memory.paused = True
    urgent = make_ticket(priority=1)
    assert board.submit(urgent, 1.0) is None
    board.memory.paused = False
    board.index.update(server, 1.0)
    board.moved(server)
    assert len(served(board, server, 1.0)) == 1
    assert list(board.serve_due(1.0)) == []
    chooser = board.chooser
    assert isinstance(chooser, Planned)
    assert all(chooser.intent_of(ticket) for ticket in board.queue.tickets())


def test_so_many_servers_and_lines_are_looked_at_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [f"m{n}" for n in range(30)]
    servers = [warm(f"s{n}", *models, loaded=tuple(models[:5])) for n in range(100)]
    prices = KnownPrices()
    board = make_board(*servers, policy=prices, rules=SchedulerLimits(max_size=5000))
    grants = [grant for n in range(2000) if (grant := board.submit(make_ticket(models[n % 30]), 0.0))]
    asked: list[ServerState] = []
    plain = KnownPrices.price

    def counted(self: KnownPrices, ticket: Ticket, server: ServerState, ahead: Ahead, now: float) -> Parts:
        asked.append(server)
        return plain(self, ticket, server, ahead, now)

    monkeypatch.setattr(KnownPrices, "price", counted)
    board.submit(make_ticket("m1"), 0.0)
    assert len(asked) <= 12
    asked.clear()
    release(board, grants[0], 0.0)
    for _ in board.serve(grants[0].server, 0.0):
        break
    assert len(asked) <= 8 + 8 * 12


class PlanningMachine(BoardMachine):
    """The same world, and a policy that waits."""

    def board_of(self) -> Scheduler:
        return planning(*self.servers.values(), rules=SchedulerLimits(max_size=20, grace=2.0))

    def overtaken_by(self, granted: Ticket) -> list[Ticket]:
        """Who is ahead may hope for a better server, so that who came later is served first, elsewhere."""
        return []

    @rule(name=st.sampled_from(NAMES), models=st.sets(st.sampled_from(MODELS)))
    def what_is_loaded_changes(self, name: str, models: set[str]) -> None:
        self.servers[name].resident = {canonical(model): {} for model in models}
        self.update(name)

    @rule(seconds=st.floats(0.1, 3.0))
    def time_passes(self, seconds: float) -> None:
        super().time_passes(seconds)
        self.reconsider()

    def reconsider(self) -> None:
        while self.board.next_due <= self.now and not self.board.blocked:
            self.hand_out(self.board.serve_due(self.now))

    @invariant()
    def nobody_waits_for_a_ready_server(self) -> None:
        """Once all have been asked again whose time has come, until the last one's has."""
        if not hasattr(self, "board") or self.late or self.board.memory.paused:
            return
        self.reconsider()
        for ticket in self.waiting:
            chooser = self.board.chooser
            assert isinstance(chooser, Planned)
            intent = chooser.intent_of(ticket)
            if intent is None:
                assert not self.candidates(ticket), "who may be served somewhere is asked again"
            else:
                assert intent.reconsider_at <= self.now + 30.0

    def candidates(self, ticket: Ticket) -> list[ServerState]:
        if ticket.pinned:
            return [server for server in self.servers.values() if server.id == ticket.pinned and server.usable]
        accepted = [server for server in self.servers.values() if server.id not in ticket.excluded]
        return [server for server in accepted if server.routable(ticket.model)]

    @invariant()
    def who_is_due_is_asked_without_a_word_from_anybody(self) -> None:
        if hasattr(self, "board") and not self.board.blocked:
            self.reconsider()

    def teardown(self) -> None:
        """Everything is well again and nobody new comes: all are served, and soon."""
        if not hasattr(self, "board"):
            return
        self.late_news_arrive()
        self.operator_pauses_or_resumes(paused=False)
        for name, server in self.servers.items():
            server.gates.clear()
            server.barred.clear()
            server.cooling.clear()
            server.judge(Health.HEALTHY, self.now, "well")
            server.order(Order.ACTIVATE, self.now, "well")
            self.inventory_changes(name, set(MODELS))
        deadline = self.now + 30.0 * (len(self.waiting) + 1)
        while self.waiting and self.now < deadline:
            self.now += 1.0
            for grant in self.grants[:]:
                self.grants.remove(grant)
                release(self.board, grant, self.now)
                self.serve(grant.server)
            self.reconsider()
        assert all(set(NAMES) <= ticket.excluded for ticket in self.waiting)


PlanningMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestPlanningMachine = PlanningMachine.TestCase
