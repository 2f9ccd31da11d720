"""The circuit breaker's rules, on a clock that the tests hold."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import pytest

from fleet.breakers.failure_classes import FailureKind
from fleet.breakers.gate import Gate, GateState
from fleet.breakers.outcomes import Signal
from fleet.breakers.persistence import restore, snapshot
from fleet.breakers.state_machine import Breaker, BreakerSettings, BreakerState, Why
from fleet.breakers.values import MOVES, ErrorWindow, FailureRun
from fleet.common.ids import ModelName, Pair, ServerId

PAIR = Pair(ServerId("s1:11434"), ModelName("llama3:8b"))
FAIL, SOFT, OK, NEUTRAL = Signal.FAILURE, Signal.SOFT_FAILURE, Signal.SUCCESS, Signal.NEUTRAL


@dataclass
class Even:
    """Dice without luck: jitter is nought."""

    value: float = 0.5

    def random(self) -> float:
        return self.value


def breaker(dice: float = 0.5, **rules: float) -> Breaker:
    return Breaker(PAIR, BreakerSettings(**rules), Even(dice))  # type: ignore[arg-type]  # whole numbers among them


def opened(**rules: float) -> Breaker:
    machine = breaker(**rules)
    for _ in range(3):
        machine.record(FAIL, "other", 0.0)
    assert machine.state is BreakerState.OPEN
    return machine


def half_open(**rules: float) -> Breaker:
    machine = opened(**rules)
    assert machine.tick(machine.wake_at)
    assert machine.state is BreakerState.HALF_OPEN
    return machine


@pytest.mark.parametrize(
    ("kinds", "strikes"),
    [
        (["other"], 3),
        (["backend_unreachable"], 5),
        (["refused_503", "idle_timeout"], 5),
        (["stream_error"], 2),
        (["refused_500"], 2),
        (["backend_broke", "stream_error"], 3),
    ],
)
def test_it_opens_after_as_many_failures_as_their_kind_deserves(kinds: list[str], strikes: int) -> None:
    machine = breaker()
    for n in range(strikes):
        assert machine.state is BreakerState.CLOSED
        changed = machine.record(FAIL, kinds[n % len(kinds)], float(n))
        assert changed is (n == strikes - 1)
    assert machine.state is BreakerState.OPEN
    assert machine.why == Why.STRIKES.value
    assert machine.gate.state is GateState.SHUT


@pytest.mark.parametrize(
    ("transient", "crashes", "adaptive", "expected"),
    [(4, 0, True, 5), (0, 4, True, 2), (2, 2, True, 3), (7, 3, True, 3), (4, 0, False, 3), (0, 4, False, 3)],
)
def test_the_threshold_adapts_within_its_bounds(transient: int, crashes: int, adaptive: bool, expected: int) -> None:
    run = FailureRun()
    for sort, times in ((FailureKind.TRANSIENT, transient), (FailureKind.CRASH, crashes)):
        for _ in range(times):
            run.add(1.0, sort)
    assert run.threshold(BreakerSettings(adaptive=adaptive)) == expected
    tight = BreakerSettings(adaptive=adaptive, min_failure_threshold=3, max_failure_threshold=4)
    assert run.threshold(tight) == min(max(expected, 3), 4)


def test_too_many_requests_count_half_a_strike() -> None:
    machine = breaker(error_rate_min_requests=100)
    for n in range(5):
        assert not machine.record(SOFT, "refused_429", float(n))
    assert machine.record(SOFT, "refused_429", 5.0)


def test_success_wipes_out_strikes_and_neutral_proves_nothing() -> None:
    machine = breaker(error_rate_min_requests=100)
    for signal in (FAIL, FAIL, OK, FAIL, FAIL, NEUTRAL, NEUTRAL):
        assert not machine.record(signal, "other", 0.0)
    assert machine.record(FAIL, "other", 0.0)


def test_a_high_error_rate_opens_it_without_a_run_of_failures() -> None:
    machine = breaker()
    for n in range(8):
        machine.record(FAIL if n % 4 == 0 else OK, "other", float(n))
    assert machine.state is BreakerState.CLOSED
    machine.record(OK, "completed", 8.0)
    assert machine.record(FAIL, "other", 9.0)
    assert machine.why == Why.ERROR_RATE.value


def test_old_failures_leave_the_error_window() -> None:
    machine = breaker()
    for n in range(9):
        machine.record(FAIL if n % 3 == 0 else OK, "other", float(n))
    assert not machine.record(FAIL, "other", 80.0)


def test_strikes_are_forgotten_after_a_long_time() -> None:
    machine = breaker()
    machine.record(FAIL, "other", 0.0)
    machine.record(FAIL, "other", 1.0)
    assert machine.wake_at == 601.0
    assert not machine.quiet(600.0)
    machine.tick(601.0)
    assert machine.quiet(601.0)
    assert machine.wake_at == math.inf


def test_it_is_quiet_again_when_the_last_failure_leaves_the_window() -> None:
    machine = breaker()
    machine.record(FAIL, "other", 0.0)
    machine.record(OK, "completed", 1.0)
    assert not machine.quiet(59.0)
    assert machine.wake_at == 60.0
    machine.tick(60.0)
    assert machine.quiet(60.0)


@pytest.mark.parametrize(("dice", "expected"), [(0.0, 108.0), (0.5, 120.0), (0.999999, 132.0)])
def test_the_open_period_is_jittered(dice: float, expected: float) -> None:
    machine = breaker(dice)
    for _ in range(3):
        machine.record(FAIL, "other", 0.0)
    assert machine.wake_at == pytest.approx(expected, abs=0.01)
    assert machine.gate.retry_at == machine.wake_at


def test_each_failed_recovery_doubles_the_open_period_up_to_ten_times() -> None:
    machine, now, periods = opened(), 0.0, []
    for _ in range(6):
        periods.append(machine.wake_at - now)
        now = machine.wake_at
        machine.tick(now)
        machine.record(FAIL, "other", now)
    assert periods == [120.0, 240.0, 480.0, 960.0, 1200.0, 1200.0]


def test_half_open_lets_a_few_through_and_closes_after_enough_successes() -> None:
    machine = half_open()
    for n in range(5):
        assert [machine.gate.take() for _ in range(4)] == [True, True, True, False]
        today = machine.gate.generation
        assert machine.record(OK, "completed", 130.0 + n, today)
        if n < 4:
            machine.record(NEUTRAL, "client_left", 130.0 + n, today)
            machine.record(NEUTRAL, "client_left", 130.0 + n, today)
            assert machine.gate.permits == 3
    assert machine.state is BreakerState.CLOSED
    assert machine.gate.admits
    assert machine.quiet(200.0)


def test_one_failed_trial_opens_it_again_but_a_single_429_does_not() -> None:
    machine = half_open()
    machine.gate.take()
    assert machine.record(SOFT, "refused_429", 121.0, machine.gate.generation)
    assert machine.gate.state is GateState.LIMITED
    machine.gate.take()
    assert machine.record(FAIL, "idle_timeout", 122.0, machine.gate.generation)
    assert machine.state is BreakerState.OPEN
    assert machine.failed_recoveries == 1


def test_no_traffic_is_no_reason_to_shut() -> None:
    machine = half_open()
    for _ in range(100):
        assert not machine.tick(machine.wake_at)
    assert machine.state is BreakerState.HALF_OPEN


def test_hung_trials_open_it_again() -> None:
    machine = half_open()
    machine.gate.take()
    while not machine.tick(machine.wake_at):
        pass
    assert machine.why == Why.TRIALS_HUNG.value
    assert 300.0 <= machine.since - 120.0 <= 375.0


def test_a_trial_that_just_began_does_not_hang() -> None:
    machine = half_open()
    for _ in range(9):
        machine.tick(machine.wake_at)
    machine.gate.take()
    assert not machine.tick(machine.wake_at)
    assert not machine.tick(machine.wake_at)
    assert machine.state is BreakerState.HALF_OPEN


def test_trials_that_end_show_that_nothing_hangs() -> None:
    machine = half_open(recovery_success_threshold=1000)
    machine.gate.take()
    for _ in range(20):
        assert machine.gate.take()
        machine.record(OK, "completed", machine.wake_at, machine.gate.generation)
        machine.tick(machine.wake_at)
    assert machine.state is BreakerState.HALF_OPEN


def test_stragglers_of_an_earlier_life_prove_nothing() -> None:
    machine = half_open()
    machine.gate.take()
    for signal in (FAIL, OK, NEUTRAL):
        assert not machine.record(signal, "other", 130.0, 0)
    assert machine.state is BreakerState.HALF_OPEN
    assert (machine.successes, machine.gate.permits, machine.total) == (0, 2, 6)


def test_before_its_first_move_a_breaker_believes_everybody() -> None:
    machine = Breaker.fresh(PAIR, BreakerSettings(), Even(), Gate(generation=7), 0.0)
    for _ in range(3):
        machine.record(FAIL, "other", 0.0, 0)
    assert machine.state is BreakerState.OPEN


def test_results_while_open_change_nothing() -> None:
    machine = opened()
    wake_at = machine.wake_at
    assert not machine.record(FAIL, "other", 5.0)
    assert not machine.record(OK, "completed", 6.0)
    assert (machine.state, machine.wake_at) == (BreakerState.OPEN, wake_at)


@pytest.mark.parametrize("state", list(BreakerState))
def test_a_forced_state_stays_until_reset(state: BreakerState) -> None:
    machine = breaker()
    machine.force(state, 5.0, "ada")
    for n in range(200):
        machine.gate.take()
        machine.record(FAIL if n % 2 else OK, "other", 5.0 + n, machine.gate.generation)
        machine.tick(1e6)
    view = machine.describe(1e6)
    assert (view.state, view.forced_by, view.since) == (state, "ada", 5.0)
    assert machine.wake_at == math.inf
    assert not machine.quiet(1e6)
    assert view.next_retry_at is None
    machine.reset(1e6)
    assert machine.quiet(1e6)
    assert machine.gate.state is GateState.OPEN


def test_history_is_bounded_and_says_why() -> None:
    machine, now = opened(), 0.0
    for _ in range(50):
        now = machine.wake_at
        machine.tick(now)
        machine.record(FAIL, "other", now)
    assert len(machine.history) == 32
    assert [t.why for t in machine.history][-2:] == [Why.WAITED.value, Why.TRIAL_FAILED.value]
    assert all(MOVES[t.came_from, Why(t.why)] is t.to for t in machine.history)


def test_the_kinds_it_counts_are_bounded() -> None:
    machine = breaker()
    machine.force(BreakerState.CLOSED, 0.0, "ada")
    for n in range(1000):
        machine.record(FAIL, f"kind_{n}", 0.0)
    assert len(machine.kinds) == 65
    assert sum(machine.kinds.values()) == 1000


def test_the_view_says_what_the_admin_api_shows() -> None:
    machine = opened()
    view = machine.describe(20.0, active_tests=1)
    assert (view.state, view.failure_count, view.total_request_count) == (BreakerState.OPEN, 3, 3)
    assert (view.next_retry_at, view.last_failure, view.last_success) == (120.0, 0.0, None)
    assert (view.error_rate, view.error_counts, view.active_tests) == (1.0, {"other": 3}, 1)
    assert view.next_step == "half-open in 100 s"
    machine.tick(120.0)
    view = machine.describe(121.0)
    assert (view.half_open_started_at, view.next_retry_at) == (120.0, None)
    assert view.next_step == "closes after 5 more successes"
    assert breaker().describe(0.0).next_step == "opens after 3 more failures in a row"
    machine.force(BreakerState.OPEN, 122.0, "ada")
    assert "forced by ada" in machine.describe(123.0).next_step


def test_settings_come_in_milliseconds() -> None:
    @dataclass
    class Section:
        base_failure_threshold: int = 4
        min_failure_threshold: int = 1
        max_failure_threshold: int = 9
        adaptive: bool = False
        open_timeout: int = 1_500
        half_open_timeout: int = 2_000
        half_open_max_requests: int = 6
        recovery_success_threshold: int = 7
        active_test_timeout: int = 8_000
        error_rate_threshold: float = 0.9
        error_rate_window: int = 10_000
        error_rate_min_requests: int = 11
        open_jitter: float = 0.2

    rules = BreakerSettings.from_config(Section())
    assert rules == BreakerSettings(4, 1, 9, False, 1.5, 2.0, 6, 7, 8.0, 0.9, 10.0, 11, 0.2)


def test_the_window_stays_small() -> None:
    window = ErrorWindow()
    for n in range(100_000):
        window.add(1.0, n * 0.01, 60.0)
    assert len(window.buckets) <= 13
    assert 5_500 <= window.results <= 6_001


def test_a_snapshot_is_plain_and_can_move_to_another_clock() -> None:
    machine = opened()
    data = json.loads(json.dumps(snapshot(machine)))
    again = restore(PAIR, machine.settings, Even(), Gate(), data, shift=1000.0)
    assert (again.state, again.wake_at, again.gate.state) == (BreakerState.OPEN, 1120.0, GateState.SHUT)
    assert again.describe(1000.0).last_failure == 1000.0
    machine.force(BreakerState.OPEN, 5.0, "ada")
    again = restore(PAIR, machine.settings, Even(), Gate(), json.loads(json.dumps(snapshot(machine))))
    assert (again.wake_at, again.forced_by) == (math.inf, "ada")


@pytest.mark.parametrize("state", list(BreakerState))
@pytest.mark.parametrize("forced_by", [None, "ada"])
def test_a_fresh_breaker_keeps_the_verdict_of_its_gate(state: BreakerState, forced_by: str | None) -> None:
    old = breaker()
    old.force(state, 0.0, "ada")
    old.gate.take()
    before = (old.gate.state, old.gate.permits, old.gate.generation)
    new = Breaker.fresh(PAIR, old.settings, Even(), old.gate, 50.0, forced_by)
    assert (new.gate.state, new.gate.permits, new.gate.generation) == before
    assert (new.state, new.forced_by, new.total) == (state, forced_by, 0)
    assert (new.wake_at == math.inf) is (forced_by is not None or state is BreakerState.CLOSED)


def test_a_success_is_absorbed_while_there_is_nothing_to_wipe_out() -> None:
    machine = breaker()
    machine.record(FAIL, "other", 0.0)
    assert not machine.absorb(1.0)  # it wipes out a strike
    machine.record(OK, "completed", 1.0)
    wakes = machine.wake_at
    assert machine.absorb(2.0)
    assert (machine.total, machine.total_successes, machine.last_success) == (3, 2, 2.0)
    assert (machine.window.results, machine.window.failures) == (3, 1)
    assert machine.wake_at == wakes


def test_nothing_is_absorbed_unless_closed_nor_from_an_earlier_life() -> None:
    machine = opened()
    assert not machine.absorb(1.0)
    machine.reset(2.0)
    assert not machine.absorb(3.0, generation=0)
    assert machine.absorb(3.0, generation=machine.gate.generation)
