"""The policy that prices in seconds: what it makes of probes, of answers, and of its own loads."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.common.ids import Pair
from fleet.common.model_names import canonical
from fleet.scheduling.choice.expected_completion import ExpectedCompletion
from fleet.scheduling.choice.intents import NOBODY
from fleet.scheduling.choice.loaded_runners import NO_WISH, Wish
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
        return 0.5 + (self.output_seconds or 0.0) + (self.load_seconds or 0.0)


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

    def ask(self, model: str = "m", now: float = 0.0, context: int | None = None) -> tuple[Ticket, Grant | None]:
        ticket = make_ticket(model, at=now)
        profile = self.policy.estimates.profile(("ann", ticket.model, "/api/chat"), 2000, now, options=Wish(context))
        self.policy.arrived(ticket, profile, now)
        grant = self.board.submit(ticket, now)
        if grant is not None:
            self.policy.sent(ticket, grant.number, grant.server, now)
        return ticket, grant

    def answer(self, grant: Grant, now: float, load: float = 0.0, context: int | None = None) -> None:
        """The first chunk half a second before, and the end now."""
        self.policy.spoke(grant.number, grant.server, grant.model, Wish(context), now - 2.0)
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
    priced = bench.policy.price(ticket_for(bench, "n", 101.0), only, NOBODY, 101.0)
    assert priced[1] < 0.0, "n went when m came"


def ticket_for(bench: Bench, model: str, now: float) -> Ticket:
    ticket = make_ticket(model, at=now)
    profile = bench.policy.estimates.profile(("ann", ticket.model, "/api/chat"), 2000, now, options=NO_WISH)
    bench.policy.arrived(ticket, profile, now)
    return ticket


def test_throwing_out_what_is_asked_for_often_costs_what_its_clients_lose() -> None:
    only = server("a", "m", "n", "o")
    bench = Bench(only)
    bench.show(only, "m", "n", now=10.0)
    bench.show(only, "n", "o", now=20.0)
    ticket = ticket_for(bench, "m", 21.0)
    quiet = bench.policy.price(ticket, only, NOBODY, 21.0)
    for second in range(60):
        bench.policy.evictions.asked(canonical("n"), 21.0 + second)
    busy = bench.policy.price(ticket, only, NOBODY, 81.0)
    harm = bench.policy.harm
    assert quiet[harm] == 0.0
    assert busy[harm] < -0.5


def test_options_that_are_loaded_nowhere_cost_a_load_once_nobody_uses_the_runner() -> None:
    only = server("a", "m")
    bench = Bench(only)
    bench.show(only, "m")
    _, first = bench.ask()
    assert first is not None
    assert first.decision.scored[0][1][bench.policy.load] == 0.0
    _, none = bench.ask(now=1.0, context=8192)
    assert none is None, "Ollama would keep it waiting, and everybody behind it"
    bench.answer(first, 2.5)
    ((_, grant),) = bench.board.serve(only, 2.5)
    assert grant.decision.scored[0][1][bench.policy.load] < 0.0


def test_each_set_of_options_gets_a_server_of_its_own() -> None:
    a, b = server("a", "m", slots=1), server("b", "m", slots=1)
    bench = Bench(a, b)
    bench.show(a, "m")
    bench.show(b, "m", context=8192)
    for now in range(0, 60, 10):
        (_, plain), (_, large) = bench.ask(now=now), bench.ask(now=now, context=8192)
        assert plain is not None
        assert large is not None
        assert (plain.server, large.server) == (a, b)
        bench.answer(plain, now + 3.0)
        bench.answer(large, now + 3.0, context=8192)


def test_one_with_odd_options_gets_its_turn_on_a_server_that_is_never_idle() -> None:
    """The runner it needs loaded anew would serve those who come one after another for ever."""
    only = server("a", "m", slots=2)
    bench = Bench(only)
    bench.show(only, "m")
    running = [grant for _, grant in (bench.ask(), bench.ask(now=1.0)) if grant]
    odd, none = bench.ask(now=1.5, context=8192)
    assert none is None
    now, served = 2.0, False
    while not served:
        assert now < 60.0
        bench.ask(now=now)
        if running:
            bench.answer(running.pop(0), now + 0.5)
        for ticket, grant in [*bench.board.serve(only, now + 0.5), *bench.board.serve_due(now + 0.5)]:
            bench.policy.sent(ticket, grant.number, grant.server, now + 0.5)
            running.append(grant)
            served |= ticket is odd
        now += 1.0


def test_clients_cannot_make_lines_without_end_by_odd_options() -> None:
    only = server("a", "m", slots=1)
    bench = Bench(only)
    bench.show(only, "m")
    bench.ask()
    for context in range(1000, 1100):
        bench.ask(now=1.0, context=context)
    assert len(bench.board.queue) == 100
    assert len(list(bench.board.queue.lines())) <= 10


def test_what_is_loaded_elsewhere_too_is_less_of_a_loss() -> None:
    a, b = server("a", "m", "n", "o"), server("b", "m", "n", "o")
    bench = Bench(a, b)
    for each in (a, b):
        bench.show(each, "m", "n", now=10.0)
        bench.show(each, "n", "o", now=20.0)
    for second in range(60):
        bench.policy.evictions.asked(canonical("n"), 21.0 + second)
    ticket = ticket_for(bench, "m", 81.0)
    with_another_home = bench.policy.price(ticket, a, NOBODY, 81.0)[bench.policy.harm]
    assert not bench.policy.spares(ticket, a, 81.0) or with_another_home < 0.0
    bench.show(b, now=82.0)
    alone = bench.policy.price(ticket, a, NOBODY, 82.0)[bench.policy.harm]
    assert alone < 3.0 * with_another_home < 0.0
    assert not bench.policy.spares(ticket, a, 82.0)


def test_a_second_of_the_answer_counts_less_than_one_before_it() -> None:
    fast, slow = server("fast", "m", slots=1), server("slow", "m", slots=1)
    bench = Bench(fast, slow)
    for each in (fast, slow):
        bench.show(each, "m")
    for now in range(0, 100, 10):
        for _, grant in (bench.ask(now=now), bench.ask(now=now)):
            assert grant is not None
            bench.policy.spoke(grant.number, grant.server, grant.model, NO_WISH, now + 0.5)
            took = 2.0 if grant.server is fast else 6.0
            bench.policy.ended(grant.number, Told(output_seconds=took), now + 0.5 + took, "well")
            release(bench.board, grant, now + 0.5 + took)
    _, first = bench.ask(now=200.0)
    _, second = bench.ask(now=200.0)
    assert first is not None
    assert second is not None
    assert [first.server, second.server] == [fast, slow], "two seconds in line would have saved four of the answer"


def test_a_runner_that_died_is_not_taken_for_warm() -> None:
    a = server("a", "m")
    bench = Bench(a)
    bench.show(a, "m")
    _, grant = bench.ask()
    assert grant is not None
    bench.policy.ended(grant.number, None, 1.0, "failed")
    bench.policy.unloaded(a, grant.model, 1.0)
    release(bench.board, grant, 1.0)
    assert bench.policy.price(ticket_for(bench, "m", 1.0), a, NOBODY, 1.0)[bench.policy.load] < 0.0


def test_priority_is_a_bonus_of_seconds() -> None:
    plain, preferred = server("plain", "m"), server("preferred", "m")
    preferred.spec = preferred.spec.model_copy(update={"priority": 4})
    bench = Bench(plain, preferred)
    for each in (plain, preferred):
        bench.show(each, "m")
    _, grant = bench.ask()
    assert grant is not None
    assert grant.server is preferred


def doubtful() -> tuple[Bench, ServerState, ServerState]:
    """Two warm servers, of which the one is twice as fast; predictions for it are not to be trusted."""
    fast, slow = server("fast", "m", slots=8), server("slow", "m", slots=8)
    bench = Bench(fast, slow)
    for each in (fast, slow):
        bench.show(each, "m")
        for at in range(20):
            pair = Pair(each.id, canonical("m"))
            bench.policy.estimates.decode.learn(pair, 5 * GB, 0.0, 100, 1.0 if each is fast else 6.0, float(at))
            bench.policy.estimates.prefill.learn(pair, 5 * GB, 1, 1000, 0.2 if each is fast else 2.0, float(at))
    return bench, fast, slow


def test_where_predictions_are_not_to_be_trusted_warm_servers_are_chosen_by_lmetric() -> None:
    bench, fast, slow = doubtful()
    grants = [bench.ask(now=20.0)[1] for _ in range(2)]
    assert [grant.server for grant in grants if grant] == [fast] * 2, "prices prefer the faster one, with one open too"
    assert not any(grant.decision.fallback for grant in grants if grant)
    bench, fast, slow = doubtful()
    for at in range(60):
        bench.policy.estimates.trust.learn(Pair(fast.id, canonical("m")), 1.0, 1.0, 20.0, 8.0 if at % 2 else 0.125)
    grants = [bench.ask(now=20.0)[1] for _ in range(4)]
    assert bench.policy.estimates.doubted == {Pair(fast.id, canonical("m"))}
    assert [grant.server for grant in grants if grant] == [fast, slow, fast, slow], "the one with less to do"
    assert all(grant.decision.fallback for grant in grants[:3] if grant)


def test_lmetric_never_chooses_a_server_that_has_to_load() -> None:
    bench, fast, slow = doubtful()
    cold = server("cold", "m", slots=8)
    bench.board.index.update(cold, 20.0)
    for at in range(60):
        bench.policy.estimates.trust.learn(Pair(fast.id, canonical("m")), 1.0, 1.0, 20.0, 8.0 if at % 2 else 0.125)
    grants = [bench.ask(now=20.0)[1] for _ in range(4)]
    assert {grant.server.id for grant in grants if grant} == {fast.id, slow.id}


def test_who_waits_is_counted_once_however_often_the_lines_are_made_anew() -> None:
    only = server("a", "m", slots=1)
    bench = Bench(only)
    bench.show(only, "m")
    bench.ask()
    waiting, _ = bench.ask(now=1.0)
    for _ in range(3):  # as for another configuration, or after a crash of the dispatcher
        bench.board.reconfigure(bench.board.rules, bench.policy, 2.0)
    assert bench.policy.rents.waiting(waiting.kind) == 1
    assert bench.policy.rents.waiting(waiting.model) == 1
    bench.board.withdraw(waiting)
    assert bench.policy.rents.waiting(waiting.model) == 0


def test_a_claim_holds_up_only_those_whose_runner_has_to_leave() -> None:
    only = server("a", "m", "n", slots=4)
    bench = Bench(only)
    bench.show(only, "m", "n")
    _, running = bench.ask()
    assert running is not None
    odd = make_ticket("m", at=1.0)
    bench.policy.arrived(
        odd, bench.policy.estimates.profile(("ann", odd.model, "/api/chat"), 2000, 1.0, options=Wish(8192)), 1.0
    )
    bench.policy.claim(odd, only, 5.0, 1.0)
    wait = bench.policy.wait
    assert bench.policy.price(ticket_for(bench, "m", 1.0), only, NOBODY, 1.0)[wait] < 0.0
    assert bench.policy.price(ticket_for(bench, "n", 1.0), only, NOBODY, 1.0)[wait] == 0.0
