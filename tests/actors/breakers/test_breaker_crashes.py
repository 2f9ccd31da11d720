"""A breaker actor that crashes: the gate keeps its verdict, the siblings never notice."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.breakers.breaker_actor import BreakerActor
from actors.breakers.messages import TryEnded
from fleet.breakers.gate import GateState
from fleet.breakers.outcomes import Signal
from fleet.breakers.state_machine import Breaker, BreakerState
from tests.actors.breakers.breaker_bench import PERIOD, A, B, Bench, C, Script, bench_with

FAIL, OK, NEUTRAL = Signal.FAILURE, Signal.SUCCESS, Signal.NEUTRAL


@pytest.fixture
async def bench(nursery: trio.Nursery) -> Bench:
    # Each test asks for the clock itself: the test runner looks for clocks among a test's own arguments only.
    bench = Bench()
    await nursery.start(bench.registry.run)
    return bench


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]) -> None:
    """A failure of kind "poison" crashes whoever records it."""
    expected_errors.append("crashed")
    record = Breaker.record

    def crashing(self: Breaker, signal: Signal, kind: str, now: float, generation: int | None = None) -> bool:
        if kind == "poison":
            self.total = -1
            raise ZeroDivisionError(kind)
        return record(self, signal, kind, now, generation)

    monkeypatch.setattr(Breaker, "record", crashing)


def alerts(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if getattr(record, "alert", False)]


@pytest.mark.usefixtures("poison")
async def test_breaker_actor_crashes(
    autojump_clock: MockClock, bench: Bench, caplog: pytest.LogCaptureFixture, expected_errors: list[str]
) -> None:
    expected_errors.append("breaker llama3:8b on s1 keeps crashing: fails open for 300 s")
    await bench.fail()
    gate = bench.gates[A]
    before = (gate.state, gate.generation, gate.retry_at)

    bench.registry.record(A, FAIL, "poison")
    await trio.sleep(1)
    view = bench.registry.get(A)
    assert view is not None
    assert bench.gates[A] is gate
    assert (gate.state, gate.generation, gate.retry_at) == before
    assert (view.total_request_count, view.last_failure_kind) == (3, "other")  # as the snapshot says

    bench.registry.record(A, FAIL, "poison")
    await trio.sleep(1)
    view = bench.registry.get(A)
    assert view is not None
    assert (gate.state, view.state, view.total_request_count) == (GateState.SHUT, BreakerState.OPEN, 0)  # fresh
    assert not alerts(caplog)

    bench.registry.record(A, FAIL, "poison")
    await trio.sleep(1)
    assert (len(bench.registry), bench.gates) == (0, {})
    assert bench.heard[-1][1:] == (A, None)
    assert len(alerts(caplog)) == 1

    await bench.fail()
    assert len(bench.registry) == 0
    await trio.sleep(300)
    await bench.fail()
    assert bench.state() is BreakerState.OPEN


@pytest.mark.usefixtures("poison")
async def test_nobody_sees_what_a_crash_left_half_done(autojump_clock: MockClock, bench: Bench) -> None:
    await bench.fail()
    bench.registry.record(A, FAIL, "poison")
    await wait_all_tasks_blocked()  # it has crashed, and is not started again yet
    view = bench.registry.get(A)
    assert view is not None
    assert view.total_request_count == 3


@pytest.mark.usefixtures("poison")
async def test_a_crash_once_in_a_while_is_forgiven(autojump_clock: MockClock, bench: Bench) -> None:
    bench.registry.force(A, BreakerState.OPEN, "ada")
    for _ in range(10):
        bench.registry.record(A, FAIL, "poison")
        await trio.sleep(61)
        view = bench.registry.get(A)
        assert view is not None
        assert (view.state, view.forced_by, len(view.history)) == (BreakerState.OPEN, "ada", 1)


@pytest.mark.usefixtures("poison")
async def test_a_crash_looping_breaker_does_not_take_its_siblings_along(
    autojump_clock: MockClock, bench: Bench, expected_errors: list[str]
) -> None:
    expected_errors.append("keeps crashing")
    for pair in (B, C):
        await bench.fail(pair)
    for _ in range(5):
        bench.registry.record(A, FAIL, "poison")
        await trio.sleep(1)
    assert set(bench.gates) == {B, C}
    await trio.sleep(PERIOD)
    assert bench.state(B) is bench.state(C) is BreakerState.HALF_OPEN


@pytest.mark.usefixtures("poison")
async def test_messages_sent_during_a_restart_are_handled_after_it(autojump_clock: MockClock, bench: Bench) -> None:
    bench.registry.record(A, FAIL, "poison")
    for _ in range(3):
        bench.registry.record(A, FAIL, "other")
    forced = bench.registry.force(B, BreakerState.OPEN, "ada")
    bench.registry.record(B, FAIL, "poison")
    lifted = bench.registry.reset(B)
    assert forced is not None
    assert lifted is not None
    await trio.sleep(1)
    assert bench.state(A) is BreakerState.OPEN
    assert (await lifted.wait(0)).state is BreakerState.CLOSED


@pytest.mark.usefixtures("poison")
async def test_a_test_that_runs_during_a_crash_gives_its_permit_back(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def hang() -> bool:
        await trio.sleep_forever()

    tester = Script(hang, True)
    bench = await bench_with(nursery, tester)
    await trio.sleep(PERIOD)
    assert bench.gates[A].trials_out == 1
    bench.registry.record(A, FAIL, "poison")
    await trio.sleep(1)
    assert (bench.state(), bench.gates[A].trials_out, tester.running) == (BreakerState.HALF_OPEN, 0, 0)
    await trio.sleep(20)
    assert len(tester.asked) >= 2


async def test_an_error_that_meets_cancellation_stays_inside(
    autojump_clock: MockClock, bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def stubborn(self: BreakerActor) -> None:
        self._tests.start_soon(trio.sleep_forever)  # so that Cancelled and the error come out together
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("while being cancelled")

    monkeypatch.setattr(BreakerActor, "_read", stubborn)
    bench.attempt(FAIL)
    await wait_all_tasks_blocked()
    bench.registry.forget_server(A.server)
    await trio.sleep(1)
    assert len(bench.registry) == 0
    assert [record.getMessage() for record in caplog.records] == ["breaker llama3:8b on s1 ended with an error"]


@pytest.mark.usefixtures("poison")
async def test_successes_absorbed_while_the_actor_rested_outlive_its_crash(
    autojump_clock: MockClock, bench: Bench
) -> None:
    await bench.fail(times=1)
    bench.registry.record(A, OK, "completed")
    await wait_all_tasks_blocked()
    bench.registry.record(A, OK, "completed")
    view = bench.registry.get(A)
    assert view is not None
    assert view.total_request_count == 3  # without a turn of the actor
    bench.registry.record(A, FAIL, "poison")
    await trio.sleep(1)
    view = bench.registry.get(A)
    assert view is not None
    assert (view.total_request_count, view.success_count) == (3, 2)


@pytest.mark.usefixtures("poison")
async def test_a_trial_whose_end_crashes_the_actor_keeps_no_permit(autojump_clock: MockClock, bench: Bench) -> None:
    """Forced half-open, nobody looks whether trials hang: a permit that is lost once is lost for good."""
    bench.registry.force(A, BreakerState.HALF_OPEN, "ada")
    await wait_all_tasks_blocked()
    gate = bench.gates[A]
    for _ in range(gate.limit):
        bench.attempt(FAIL, kind="poison")
        bench.heard.clear()
        await trio.sleep(61)
        assert (gate.state, gate.trials_out) == (GateState.LIMITED, 0)
        assert (A, GateState.LIMITED) in [heard[1:] for heard in bench.heard]  # somebody may wait for the permit


async def test_a_recovery_test_whose_end_crashes_the_actor_is_not_the_last(
    autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    expected_errors.append("crashed")
    ended, crashes = BreakerActor._end_test, iter((True,))

    def crashing(self: BreakerActor, message: TryEnded, now: float) -> bool:
        if next(crashes, False):
            raise ZeroDivisionError("injected")
        return ended(self, message, now)

    monkeypatch.setattr(BreakerActor, "_end_test", crashing)
    tester = Script(True, True)
    bench = await bench_with(nursery, tester)
    await trio.sleep(PERIOD + 60)
    assert len(tester.asked) >= 2
    assert bench.gates[A].trials_out == 0
