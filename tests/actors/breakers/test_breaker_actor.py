"""Breakers at work on a virtual clock: born, opened, half-opened, forced, forgotten, retired."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.kit.mailbox import ActorGone
from fleet.breakers.gate import GateState
from fleet.breakers.outcomes import Signal
from fleet.breakers.state_machine import BreakerSettings, BreakerState
from tests.actors.breakers.breaker_bench import PERIOD, A, B, Bench, C

FAIL, OK, NEUTRAL = Signal.FAILURE, Signal.SUCCESS, Signal.NEUTRAL


@pytest.fixture
async def bench(nursery: trio.Nursery) -> Bench:
    # Each test asks for the clock itself: the test runner looks for clocks among a test's own arguments only.
    bench = Bench()
    await nursery.start(bench.registry.run)
    return bench


async def test_nothing_is_made_for_pairs_that_never_fail(autojump_clock: MockClock, bench: Bench) -> None:
    for _ in range(100):
        bench.registry.record(A, OK, "completed")
        bench.registry.record(B, NEUTRAL, "client_left")
    assert bench.registry.get(A) is None
    assert bench.registry.reset(A) is None
    assert (len(bench.registry), bench.gates, bench.registry.describe()) == (0, {}, [])


async def test_it_opens_half_opens_and_closes_again(autojump_clock: MockClock, bench: Bench) -> None:
    await bench.fail()
    assert not bench.gates[A].admits
    await trio.sleep(PERIOD)
    for n in range(5):
        assert bench.state() is BreakerState.HALF_OPEN, n
        bench.attempt(OK)
        await wait_all_tasks_blocked()
    assert [(pair, state) for _, pair, state in bench.heard[:2]] == [(A, GateState.SHUT), (A, GateState.LIMITED)]
    assert bench.heard[0][0] == 0.0
    assert 108.0 <= bench.heard[1][0] <= 132.0
    assert (len(bench.registry), bench.gates) == (0, {})


async def test_a_breaker_retires_when_the_failure_is_old(autojump_clock: MockClock, bench: Bench) -> None:
    bench.attempt(FAIL)
    await trio.sleep(30)
    assert list(bench.gates) == [A]
    bench.attempt(OK)
    await trio.sleep(31)
    assert (len(bench.registry), bench.gates) == (0, {})


async def test_a_breaker_reborn_does_not_take_old_results_for_its_own(autojump_clock: MockClock, bench: Bench) -> None:
    await bench.fail()
    await trio.sleep(PERIOD)
    old = bench.gates[A].generation
    view = bench.registry.reset(A)
    assert view is not None
    assert (await view.wait(1)).state is BreakerState.CLOSED
    await bench.fail()
    await trio.sleep(PERIOD)
    assert bench.gates[A].generation > old
    bench.registry.record(A, FAIL, "other", old)
    await wait_all_tasks_blocked()
    assert bench.state() is BreakerState.HALF_OPEN


async def test_permits_come_back_when_a_trial_ends_neutrally(autojump_clock: MockClock, bench: Bench) -> None:
    await bench.fail()
    await trio.sleep(PERIOD)
    gate = bench.gates[A]
    assert [gate.take() for _ in range(4)] == [True, True, True, False]
    bench.heard.clear()
    bench.registry.record(A, NEUTRAL, "client_left", gate.generation)
    await wait_all_tasks_blocked()
    assert gate.permits == 1
    assert len(bench.heard) == 1


async def test_a_mailbox_that_never_empties_does_not_hold_up_a_deadline(
    autojump_clock: MockClock, bench: Bench
) -> None:
    await bench.fail()
    for _ in range(50):
        bench.registry.record(A, NEUTRAL, "client_left", 0)
    autojump_clock.jump(PERIOD)
    for _ in range(5):
        await trio.lowlevel.checkpoint()
    view = bench.registry.get(A)
    assert view is not None
    assert view.total_request_count < 50  # there is mail left
    assert view.state is BreakerState.HALF_OPEN


async def test_force_and_reset_answer_with_what_became_of_it(autojump_clock: MockClock, bench: Bench) -> None:
    forced = bench.registry.force(A, BreakerState.OPEN, "ada")
    assert forced is not None
    view = await forced.wait(1)
    assert (view.state, view.forced_by) == (BreakerState.OPEN, "ada")
    await trio.sleep(10_000)
    assert bench.state() is BreakerState.OPEN
    lifted = bench.registry.reset(A)
    assert lifted is not None
    assert (await lifted.wait(1)).state is BreakerState.CLOSED
    await wait_all_tasks_blocked()
    assert len(bench.registry) == 0


async def test_forget_server_ends_everything_of_it_and_nothing_else(
    autojump_clock: MockClock, bench: Bench, nursery: trio.Nursery
) -> None:
    for pair in (A, B, C):
        await bench.fail(pair)
    in_hand, buffered = bench.registry.reset(A), bench.registry.reset(A)
    assert in_hand is not None
    assert buffered is not None
    bench.registry.forget_server(A.server)
    assert (await in_hand.wait(1)).pair == A
    with pytest.raises(ActorGone, match="breaker llama3:8b on s1"):
        await buffered.wait(0)
    await wait_all_tasks_blocked()
    assert list(bench.gates) == [C]
    assert [view.pair for view in bench.registry.describe()] == [C]
    bench.registry.record(A, NEUTRAL, "revoked", 1)
    assert len(bench.registry) == 1


async def test_switched_off_there_are_no_breakers(autojump_clock: MockClock, bench: Bench) -> None:
    await bench.fail()
    bench.registry.configure(BreakerSettings(), enabled=False)
    await bench.fail(B, 5)
    assert (len(bench.registry), bench.gates) == (0, {})
    assert bench.registry.force(A, BreakerState.OPEN, "ada") is None


async def test_new_settings_reach_living_breakers(autojump_clock: MockClock, bench: Bench) -> None:
    await bench.fail()
    bench.registry.configure(BreakerSettings(half_open_max_requests=1, recovery_success_threshold=1), enabled=True)
    await trio.sleep(PERIOD)
    assert bench.gates[A].limit == 1
    bench.attempt(OK)
    await wait_all_tasks_blocked()
    assert bench.state() is BreakerState.CLOSED


async def test_breakers_made_before_the_nursery_start_with_it(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench = Bench()
    for _ in range(3):
        bench.attempt(FAIL)
    await nursery.start(bench.registry.run)
    await wait_all_tasks_blocked()
    assert bench.state() is BreakerState.OPEN


async def test_the_number_of_breakers_is_bounded(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench = Bench(limit=2)
    await nursery.start(bench.registry.run)
    await bench.fail(A)
    await bench.fail(B, 1)
    await bench.fail(C)
    assert set(bench.gates) == {A, C}
    await bench.fail(B, 3)
    assert set(bench.gates) == {A, C}
    assert bench.registry.force(B, BreakerState.OPEN, "ada") is None


async def test_the_actor_handles_without_awaiting(autojump_clock: MockClock, bench: Bench) -> None:
    with trio.testing.assert_no_checkpoints():
        for signal in Signal:
            bench.registry.record(A, signal, "other")
        bench.registry.force(A, BreakerState.OPEN, "ada")
        bench.registry.describe(math.inf)
