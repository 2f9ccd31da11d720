"""The policy that prices in seconds: what it makes of probes, of answers, and of its own loads."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from fleet.common.model_names import canonical
from fleet.scheduling.choice.expected_completion import ExpectedCompletion
from fleet.scheduling.estimates.evictions import Resident
from fleet.scheduling.scheduler.decisions import Grant
from fleet.scheduling.scheduler.scheduler import Scheduler
from fleet.scheduling.server_state import ServerState
from fleet.scheduling.wait_queue import Ticket
from tests.fleet.builders import make_board, make_server, make_ticket, release

GB = 10**9


@dataclass
class Told:
    """An answer of 500 prompt tokens in half a second and 100 tokens in two."""

    load_seconds: float | None = 0.0
    prompt_tokens: int | None = 500
    output_tokens: int | None = 100
    prompt_seconds: float | None = 0.5
    output_seconds: float | None = 2.0

    @property
    def total_seconds(self) -> float | None:
        return 2.5 + (self.load_seconds or 0.0)


class Bench:
    """A scheduler with the policy, told of everything as its owner has to."""

    def __init__(self, *servers: ServerState) -> None:
        self.policy = ExpectedCompletion()
        self.board: Scheduler = make_board(*servers, policy=self.policy)

    def show(self, server: ServerState, *models: str, now: float = 0.0, context: int = 4096) -> None:
        """A probe shows these models as loaded, five gigabytes each."""
        names = [canonical(model) for model in models]
        server.resident = {name: {"context_length": context} for name in names}
        self.policy.shown(server, [Resident(name, 5.0 * GB, now + 300.0) for name in names], now)
        self.board.index.update(server, now)

    def ask(self, model: str = "m", now: float = 0.0, options: int | None = None) -> tuple[Ticket, Grant | None]:
        ticket = make_ticket(model, at=now)
        profile = self.policy.estimates.profile(("ann", ticket.model, "/api/chat"), 2000, now, options=options)
        self.policy.arrived(ticket, profile, now)
        grant = self.board.submit(ticket, now)
        if grant is not None:
            self.policy.sent(ticket, grant.number, grant.server, now)
        return ticket, grant

    def answer(self, grant: Grant, now: float, load: float = 0.0, options: int | None = None) -> None:
        """The first chunk half a second before, and the end now."""
        self.policy.spoke(grant.number, grant.server, grant.model, options, now - 2.0)
        self.policy.ended(grant.number, Told(load), now, "well")
        release(self.board, grant, now)


def server(name: str, *models: str, slots: int = 4) -> ServerState:
    state = make_server(name, *models, slots=slots)
    for model in models:
        state.models[canonical(model)]["size"] = 5 * GB
    return state


def test_a_warm_server_is_chosen_and_waited_for() -> None:
    hot, cold = server("hot", "m", slots=1), server("cold", "m", slots=1)
    bench = Bench(hot, cold)
    bench.show(hot, "m")
    bench.show(cold)
    _, first = bench.ask()
    assert first is not None
    assert first.server is hot
    waits, none = bench.ask(now=1.0)
    assert none is None
    bench.answer(first, 2.5)
    ((who, grant),) = bench.board.serve(hot, 2.5)
    assert (who, grant.server) == (waits, hot)


def test_a_runner_that_has_answered_is_warm_before_a_probe_shows_it() -> None:
    a, b = server("a", "m"), server("b", "m")
    bench = Bench(a, b)
    _, first = bench.ask()
    assert first is not None
    bench.answer(first, 12.0, load=9.5)
    _, second = bench.ask(now=13.0)
    assert second is not None
    assert second.server is first.server
    assert second.decision.scored[0][1][1] == 0.0, "no load"


def test_what_a_load_throws_out_is_not_taken_for_warm() -> None:
    only = server("a", "m", "n", "o")
    bench = Bench(only)
    bench.show(only, "m", "n", now=10.0)
    bench.show(only, "n", "o", now=20.0)
    _, grant = bench.ask("m", now=100.0)
    assert grant is not None
    priced = bench.policy.price(ticket_for(bench, "n", 101.0), only, 0, 101.0)
    assert priced[1] < 0.0, "n went when m came"


def ticket_for(bench: Bench, model: str, now: float) -> Ticket:
    ticket = make_ticket(model, at=now)
    profile = bench.policy.estimates.profile(("ann", ticket.model, "/api/chat"), 2000, now)
    bench.policy.arrived(ticket, profile, now)
    return ticket


def test_throwing_out_what_is_asked_for_often_costs_what_its_clients_lose() -> None:
    only = server("a", "m", "n", "o")
    bench = Bench(only)
    bench.show(only, "m", "n", now=10.0)
    bench.show(only, "n", "o", now=20.0)
    ticket = ticket_for(bench, "m", 21.0)
    quiet = bench.policy.price(ticket, only, 0, 21.0)
    for second in range(60):
        bench.policy.evictions.asked(canonical("n"), 21.0 + second)
    busy = bench.policy.price(ticket, only, 0, 81.0)
    harm = bench.policy.harm
    assert quiet[harm] == 0.0
    assert busy[harm] < -0.5


@pytest.mark.parametrize(("asked", "fits"), [(None, True), (4096, True), (8192, False)])
def test_a_runner_serves_who_asks_for_its_context_or_for_none(asked: int | None, fits: bool) -> None:
    only = server("a", "m")
    bench = Bench(only)
    bench.show(only, "m")
    _, grant = bench.ask(options=asked)
    assert grant is not None
    assert (grant.decision.scored[0][1][1] == 0.0) is fits


def test_priority_is_a_bonus_of_seconds() -> None:
    plain, preferred = server("plain", "m"), server("preferred", "m")
    preferred.spec = preferred.spec.model_copy(update={"priority": 4})
    bench = Bench(plain, preferred)
    for each in (plain, preferred):
        bench.show(each, "m")
    _, grant = bench.ask()
    assert grant is not None
    assert grant.server is preferred
