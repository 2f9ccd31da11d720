"""Recovery tests: when they are made, what their results do, and that they never pile up."""

from __future__ import annotations

from itertools import pairwise

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fleet.breakers.outcomes import Signal
from fleet.breakers.state_machine import BreakerState
from tests.actors.breakers.breaker_bench import PERIOD, A, B, Script, bench_with

FAIL, OK, NEUTRAL = Signal.FAILURE, Signal.SUCCESS, Signal.NEUTRAL


async def test_recovery_tests_alone_can_close_a_breaker(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    tester = Script(*[True] * 5)
    bench = await bench_with(nursery, tester)
    await trio.sleep(PERIOD + 5 * 16.0)
    times = [at for at, _ in tester.asked]
    assert len(times) == 5
    assert all(10.0 <= later - sooner <= 15.5 for sooner, later in pairwise(times))
    assert (len(bench.registry), bench.gates) == (0, {})


async def test_a_failed_recovery_test_opens_it_again(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench = await bench_with(nursery, Script(True, False))
    await trio.sleep(PERIOD + 16)
    view = bench.registry.get(A)
    assert view is not None
    assert (view.state, view.consecutive_failed_recoveries) == (BreakerState.OPEN, 1)


async def test_a_test_that_is_not_possible_is_tried_again_later_and_proves_nothing(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    tester = Script(None, None)
    bench = await bench_with(nursery, tester)
    await trio.sleep(PERIOD + 60)
    assert 4 <= len(tester.asked) <= 9
    view = bench.registry.get(A)
    assert view is not None
    assert (view.state, view.total_request_count, view.active_tests) == (BreakerState.HALF_OPEN, 3, 0)
    assert bench.gates[A].trials_out == 0


async def test_a_hanging_test_fails_at_its_deadline(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    async def hang() -> bool:
        await trio.sleep_forever()

    bench = await bench_with(nursery, Script(hang))
    await trio.sleep(PERIOD)
    assert bench.registry.describe()[0].active_tests == 1
    assert bench.gates[A].trials_out == 1
    await trio.sleep(300)
    assert bench.registry.describe()[0].active_tests == 0
    assert bench.state() is BreakerState.OPEN


async def test_a_tester_that_crashes_proves_nothing(
    autojump_clock: MockClock, nursery: trio.Nursery, expected_errors: list[str]
) -> None:
    expected_errors.append("recovery test of llama3:8b on s1 crashed")
    bench = await bench_with(nursery, Script(OSError("tester broke")))
    await trio.sleep(PERIOD)
    assert bench.state() is BreakerState.HALF_OPEN
    assert bench.gates[A].trials_out == 0


async def test_a_server_is_tested_for_one_model_at_a_time(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    async def slow() -> bool:
        await trio.sleep(5)
        return True

    tester = Script(*[slow] * 10)  # it asserts itself that no two run at a time
    bench = await bench_with(nursery, tester)
    await bench.fail(B)
    await trio.sleep(PERIOD + 15 * 14)
    assert {pair for _, pair in tester.asked} == {A, B}
    assert len(bench.registry) == 0


async def test_no_test_while_real_traffic_tries_the_pair(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    tester = Script(None)
    bench = await bench_with(nursery, tester)
    await trio.sleep(PERIOD)
    assert bench.gates[A].take()
    asked = len(tester.asked)
    await trio.sleep(60)
    assert len(tester.asked) == asked


async def test_a_test_can_be_asked_for_when_half_open_only(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    tester = Script(True)
    bench = await bench_with(nursery, tester)
    early = bench.registry.test(A)
    assert early is not None
    assert await early.wait(1) is None
    forced = bench.registry.force(A, BreakerState.HALF_OPEN, "ada")
    assert forced is not None
    await forced.wait(1)
    await trio.sleep(100)
    assert not tester.asked
    now = bench.registry.test(A)
    assert now is not None
    assert await now.wait(1) is True
    assert bench.registry.test(B) is None


async def test_a_breaker_that_retires_takes_its_test_along(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    async def hang() -> bool:
        await trio.sleep_forever()

    tester = Script(hang)
    bench = await bench_with(nursery, tester)
    await trio.sleep(PERIOD)
    assert tester.running == 1
    for _ in range(5):
        bench.attempt(OK)
        await wait_all_tasks_blocked()
    assert (len(bench.registry), tester.running) == (0, 0)
    assert bench.registry.enter(A)
