"""The book of failures and recoveries, fed by servers that fail and come back, and by breakers: numbers are facts."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import actors.servers.health_probe
from actors.breakers.breaker_actor import BreakerActor
from actors.servers.server_actor import ServerActor
from actors.servers.server_context import ServerContext
from actors.state.messages import Probed
from actors.state.servers import ServerCell
from fleet.breakers.outcomes import Signal
from fleet.breakers.recovery_log import ServerLog, Source
from fleet.breakers.state_machine import BreakerState
from fleet.breakers.values import Why
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.scheduling.server_state import Health
from tests.actors.breakers.breaker_bench import PERIOD, A, B, Bench, Script, bench_with
from tests.actors.life.test_failures import crash_on
from tests.kit.fleets.fleet import Client, Fleet, chat, open_fleet

FAIL, OK, NEUTRAL = Signal.FAILURE, Signal.SUCCESS, Signal.NEUTRAL
PAIR = Pair(ServerId("a"), ModelName("m:latest"))
STEADY = {"interval": 10.0, "jitter": 0.0}
PLAIN = {"adaptive": False, "open_jitter": 0.0}


def page_of(fleet: Fleet, server: str = "a") -> ServerLog:
    return fleet.system.recovery_log.page(ServerId(server))


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Health, bool, float]]:
    """Every round of probes of server a: the server's health before the verdict, whether it answered, when."""
    seen: list[tuple[Health, bool, float]] = []
    probe = actors.servers.health_probe.probe

    async def watched(context: ServerContext, cell: ServerCell) -> Probed | None:
        result = await probe(context, cell)
        if cell.state.id == "a":
            assert result is not None
            seen.append((cell.state.health, not result.error, trio.current_time()))
        return result

    monkeypatch.setattr(actors.servers.health_probe, "probe", watched)
    return seen


async def until(fleet: Fleet, health: Health) -> None:
    while fleet.cell("a").state.health is not health:
        await trio.sleep(0.1)


# ---- servers


async def test_a_server_that_dies_and_comes_back_twice_is_told_attempt_by_attempt(
    autojump_clock: MockClock, rounds: list[tuple[Health, bool, float]]
) -> None:
    async with open_fleet("a", "b", health=STEADY) as fleet:
        for seconds in (200.0, 35.0):
            fleet["a"].kill()
            await until(fleet, Health.UNHEALTHY)
            await trio.sleep(seconds)
            fleet["a"].restart()
            await until(fleet, Health.HEALTHY)
            await trio.sleep(100.0)
        page = page_of(fleet)
        tried = [(answered, at) for health, answered, at in rounds if health is Health.UNHEALTHY]
        assert [(each.ok, each.at) for each in page.attempts] == tried
        assert (page.tried, page.succeeded, page.in_a_row) == (len(tried), 2, 0)
        assert len(tried) == 7
        assert [each.number for each in page.attempts] == list(range(1, len(tried) + 1))
        runs = [each.in_a_row for each in page.attempts]
        first = runs.index(0)
        assert runs == [*range(1, first + 1), 0, *range(1, len(runs) - first - 1), 0]
        assert {(each.type, each.source, each.model) for each in page.failures} == {
            ("connection_refused", Source.HEALTH_CHECK, "")
        }
        assert page.last_error == "a: a.internal:11434 cannot be reached: Connection refused."
        assert page_of(fleet, "b").tried == 0


async def test_failed_probes_of_a_healthy_server_are_no_attempts_to_recover(autojump_clock: MockClock) -> None:
    async with open_fleet("a", health=STEADY | {"failures": 5}) as fleet:
        fleet["a"].host.faults.set("status:500:oops,paths=/api/tags,times=3")
        await trio.sleep(100.0)
        assert fleet.cell("a").state.health is Health.HEALTHY
        assert page_of(fleet).tried == 0


BROKEN = [
    # fault, type, a part of the text
    ("status:500:a secret prompt", "server_error", "/api/tags answered 500"),
    ("garbage", "network_error", "a: "),
    ("reset-before-headers", "network_error", "a: "),
    ("hang-before-headers", "timeout", "/api/tags did not answer within 5 s"),
]


@pytest.mark.parametrize(("fault", "expected", "text"), BROKEN)
async def test_the_type_of_a_failed_probe_is_that_of_its_error(
    autojump_clock: MockClock, fault: str, expected: str, text: str
) -> None:
    async with open_fleet("a", health=STEADY) as fleet:
        fleet["a"].host.faults.set(f"{fault},paths=/api/tags")
        await until(fleet, Health.UNHEALTHY)
        await trio.sleep(60.0)
        failures = list(page_of(fleet).failures)
        assert failures
        assert {each.type for each in failures} == {expected}
        assert all(text in each.error for each in failures)
        assert not any("secret" in each.error for each in failures)


async def test_the_breaker_state_of_a_probe_is_the_servers_worst(autojump_clock: MockClock) -> None:
    async with open_fleet("a", health=STEADY) as fleet:
        forced = fleet.system.breakers.force(PAIR, BreakerState.HALF_OPEN, "ada")
        assert forced is not None
        await forced.wait(1)
        fleet["a"].kill()
        await until(fleet, Health.UNHEALTHY)
        await trio.sleep(40.0)
        assert {each.state for each in page_of(fleet).attempts} == {BreakerState.HALF_OPEN}
        other = fleet.system.breakers.force(Pair(PAIR.server, ModelName("n:latest")), BreakerState.OPEN, "ada")
        assert other is not None
        await other.wait(1)
        await trio.sleep(61.0)
        assert page_of(fleet).attempts[-1].state is BreakerState.OPEN


async def test_the_book_outlives_the_server_actor(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    expected_errors.append("actor server a crashed")
    async with open_fleet("a", health=STEADY) as fleet:
        fleet["a"].kill()
        await until(fleet, Health.UNHEALTHY)
        await trio.sleep(40.0)
        before = page_of(fleet).tried
        assert before >= 1
        crashes = crash_on(monkeypatch, ServerActor, Probed, times=1)
        while not crashes[0]:
            await trio.sleep(1.0)
        await trio.sleep(130.0)
        page = page_of(fleet)
        assert page.tried > before
        assert [each.number for each in page.attempts] == list(range(1, page.tried + 1))
        assert page.in_a_row == page.tried


async def test_a_removed_server_leaves_no_page_and_a_new_one_of_its_name_begins_anew(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet("a", "b", health=STEADY) as fleet:
        fleet["a"].kill()
        await until(fleet, Health.UNHEALTHY)
        await trio.sleep(60.0)
        forced = fleet.system.breakers.force(PAIR, BreakerState.OPEN, "ada")
        assert forced is not None
        await forced.wait(1)
        assert page_of(fleet).tried
        spec, book = fleet.cell("a").state.spec, fleet.system.recovery_log
        fleet.system.refresh(spec.id)
        await fleet.system.remove_server(spec.id, drain=False)
        await trio.sleep(100.0)
        assert len(book) == 0
        fleet.system.add_server(spec)
        await trio.sleep(25.0)
        assert page_of(fleet).tried == page_of(fleet).failed
        assert 0 < page_of(fleet).tried <= 3


async def test_a_verdict_that_comes_just_after_the_removal_makes_no_new_page(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b", health=STEADY) as fleet:
        fleet["a"].kill()
        await until(fleet, Health.UNHEALTHY)
        cell = fleet.cell("a")
        await fleet.system.remove_server(cell.state.id, drain=False)
        actor = ServerActor(fleet.system.membership._context, cell)
        actor._handle(Probed("late", None, None, None, 0.0), trio.current_time())
        assert len(fleet.system.recovery_log) == 0


# ---- breakers


@pytest.fixture
async def bench(nursery: trio.Nursery) -> Bench:
    bench = Bench()
    await nursery.start(bench.registry.run)
    return bench


def book_page(bench: Bench) -> ServerLog:
    return bench.registry.book.page(A.server)


def moves(page: ServerLog) -> list[tuple[str, str, str]]:
    return [(move.came_from.value, move.to.value, move.why) for move in page.moves]


OPENED = ("closed", "open", Why.STRIKES.value)
LAST_LEFT = ("open", "half-open", Why.LAST_LEFT.value)
WAITED = ("open", "half-open", Why.WAITED.value)
FAILED = ("half-open", "open", Why.TRIAL_FAILED.value)
RECOVERED = ("half-open", "closed", Why.RECOVERED.value)


async def test_a_breaker_opens_half_opens_fails_and_recovers_and_the_book_says_so(
    autojump_clock: MockClock, bench: Bench
) -> None:
    await bench.fail()
    opened = trio.current_time()
    await trio.sleep(PERIOD)
    view = bench.registry.get(A)
    assert view is not None
    half = view.since
    bench.attempt(OK)
    bench.attempt(NEUTRAL)
    bench.attempt(FAIL, kind="refused_503")
    await wait_all_tasks_blocked()
    again = trio.current_time()
    view = bench.registry.get(A)
    assert view is not None
    assert moves(book_page(bench)) == [(t.came_from.value, t.to.value, t.why) for t in view.history]
    await trio.sleep(2 * PERIOD)
    for _ in range(5):
        bench.attempt(OK)
        await wait_all_tasks_blocked()
    page = book_page(bench)
    assert moves(page) == [OPENED, WAITED, FAILED, WAITED, RECOVERED]
    assert [move.at for move in page.moves][:3] == [opened, half, again]
    assert [move.spent for move in page.moves][1:3] == [half - opened, again - half]
    assert page.open_seconds == page.moves[1].spent + page.moves[3].spent
    assert (page.opened, page.closed, page.left_open, page.moved) == (2, 1, 2, 5)
    tried = [(each.ok, each.type, each.source, each.state, each.model) for each in page.attempts]
    passed = (True, "", Source.TRIAL, BreakerState.HALF_OPEN, A.model)
    assert tried == [passed, (False, "server_error", Source.TRIAL, BreakerState.HALF_OPEN, A.model), *[passed] * 5]
    assert page.last_error == "a trial ended: refused_503"


async def test_failures_of_a_closed_breaker_and_stragglers_are_no_attempts_to_recover(
    autojump_clock: MockClock, bench: Bench
) -> None:
    await bench.fail(times=2)
    generation = bench.gates[A].generation
    await bench.fail(times=1)
    bench.registry.record(A, FAIL, "other", generation)
    await trio.sleep(PERIOD)
    bench.registry.record(A, FAIL, "other", generation)
    bench.registry.record(A, OK, "completed", generation)
    await wait_all_tasks_blocked()
    assert bench.state() is BreakerState.HALF_OPEN
    assert (book_page(bench).tried, book_page(bench).moved) == (0, 2)


async def test_recovery_tests_are_told_with_their_length_and_their_end(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def hang() -> bool:
        await trio.sleep_forever()

    bench = await bench_with(nursery, Script(True, None, False, hang))
    await trio.sleep(PERIOD + 40.0)
    page = book_page(bench)
    assert (page.tests.passed, page.tests.failed, page.tests.seconds) == (1, 1, 1.0)
    assert [(each.ok, each.error) for each in page.attempts] == [(True, ""), (False, "the recovery test failed")]
    await trio.sleep(700.0)
    assert (page.tests.timed_out, page.tests.cancelled, page.tests.seconds) == (1, 0, 301.0)
    assert (page.attempts[-1].type, page.attempts[-1].error) == ("timeout", "no answer within 300 s")
    assert {each.source for each in page.attempts} == {Source.RECOVERY_TEST}


async def test_a_tester_that_crashes_is_no_evidence_in_the_book_either(
    autojump_clock: MockClock, nursery: trio.Nursery, expected_errors: list[str]
) -> None:
    expected_errors.append("recovery test of llama3:8b on s1 crashed")
    bench = await bench_with(nursery, Script(OSError("tester broke")))
    await trio.sleep(PERIOD)
    page = book_page(bench)
    assert (page.tried, page.tests.ended, page.tests.cancelled) == (0, 0, 0)


async def hanging(nursery: trio.Nursery) -> Bench:
    """A bench whose recovery test is under way."""

    async def hang() -> bool:
        await trio.sleep_forever()

    bench = await bench_with(nursery, Script(hang, True))
    await trio.sleep(PERIOD)
    assert bench.registry.describe()[0].active_tests == 1
    return bench


async def test_a_test_that_a_reset_ends_is_counted_as_cancelled_once(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = await hanging(nursery)
    reset = bench.registry.reset(A)
    assert reset is not None
    await reset.wait(1)
    await trio.sleep(400.0)
    page = book_page(bench)
    assert (page.tests.cancelled, page.tests.ended, page.tried) == (1, 0, 0)
    assert moves(page)[-1] == ("half-open", "closed", "reset")


async def test_a_test_that_a_crash_ends_is_cancelled_and_the_book_goes_on(
    autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    expected_errors.append("actor breaker llama3:8b on s1 crashed")
    bench = await hanging(nursery)
    before = moves(book_page(bench))
    digest, left = BreakerActor._digest, [1]

    def crash(self: BreakerActor, message: object, now: float) -> bool:
        if left[0]:
            left[0] = 0
            raise RuntimeError("injected")
        return digest(self, message, now)  # type: ignore[arg-type]

    monkeypatch.setattr(BreakerActor, "_digest", crash)
    bench.registry.record(A, NEUTRAL, "client_left", bench.gates[A].generation)
    await trio.sleep(30.0)
    page = book_page(bench)
    assert moves(page) == before == [OPENED, WAITED]
    assert (page.tests.cancelled, page.tests.passed) == (1, 1)


async def test_breakers_that_end_open_are_closed_in_the_book(autojump_clock: MockClock, bench: Bench) -> None:
    await bench.fail()
    await bench.fail(B)
    await trio.sleep(10.0)
    bench.registry.configure(bench.registry.settings, enabled=False)
    page = book_page(bench)
    assert moves(page)[2:] == [("open", "closed", "breakers were switched off")] * 2
    assert (page.closed, page.open_seconds) == (2, 20.0)


async def test_forced_states_are_in_the_book_with_who_forced_them(autojump_clock: MockClock, bench: Bench) -> None:
    for state in (BreakerState.OPEN, BreakerState.OPEN, BreakerState.CLOSED):
        forced = bench.registry.force(A, state, "ada")
        assert forced is not None
        await forced.wait(1)
    assert moves(book_page(bench)) == [("closed", "open", "forced by ada"), ("open", "closed", "forced by ada")]


async def test_forgetting_a_server_tears_its_page_out_even_if_a_test_was_under_way(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = await hanging(nursery)
    bench.registry.forget_server(A.server)
    await trio.sleep(400.0)
    assert len(bench.registry.book) == 0


# ---- both, with real requests


async def test_a_failed_recovery_test_tells_the_servers_own_words_and_never_a_prompt(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet("a", "b", circuit_breaker=PLAIN) as fleet:
        await fleet.system.exchange(chat(pinned="a", text="a very secret prompt"), Client())  # loads the model
        fleet["a"].host.faults.set("status:503:down,times=3", "status:500:CUDA is gone,paths=/api/generate")
        for _ in range(3):
            await fleet.system.exchange(chat(pinned="a", text="a very secret prompt"), Client())
        await trio.sleep(125.0)
        page = page_of(fleet)
        (test,) = page.attempts
        assert (test.source, test.type, test.model) == (Source.RECOVERY_TEST, "server_error", "m:latest")
        assert test.error == "answered 500: CUDA is gone"
        assert page.tests.failed == 1
        assert moves(page) == [OPENED, WAITED, FAILED]
        assert "secret" not in repr(page)


async def test_a_real_trial_that_fails_is_in_the_book(autojump_clock: MockClock) -> None:
    async with open_fleet("a", circuit_breaker=PLAIN) as fleet:
        fleet["a"].host.faults.set("status:503:down")
        for _ in range(3):
            await fleet.system.exchange(chat(pinned="a"), Client())
        await wait_all_tasks_blocked()
        await fleet.system.exchange(chat(), Client())
        await wait_all_tasks_blocked()
        page = page_of(fleet)
        assert moves(page) == [OPENED, LAST_LEFT, FAILED]
        assert [(each.ok, each.source, each.type) for each in page.attempts] == [(False, Source.TRIAL, "server_error")]
