"""Who is all that is left for a model is tried at once, one trial at a time, however its breaker stands."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from fleet.breakers.gate import GateState
from fleet.breakers.last_resort import last_resort
from fleet.breakers.outcomes import Signal
from fleet.breakers.state_machine import LONGEST_RESCUE_PAUSE, Breaker, BreakerSettings, BreakerState, Why
from fleet.common.ids import ModelName, Pair, ServerId

FAIL, OK = Signal.FAILURE, Signal.SUCCESS
GRACE = 2.0


class Even:
    """Dice without luck."""

    def random(self) -> float:
        return 0.5


def opened(server: str = "a", at: float = 0.0, worked: float | None = None, **rules: int) -> Breaker:
    settings = BreakerSettings(**rules)  # type: ignore[arg-type]  # whole numbers only
    machine = Breaker(Pair(ServerId(server), ModelName("m")), settings, Even())
    if worked is not None:
        machine.record(OK, "completed", worked)
    for _ in range(3):
        machine.record(FAIL, "other", at)
    assert machine.state is BreakerState.OPEN
    return machine


def rescued(at: float = 0.0) -> Breaker:
    machine = opened(at=at)
    assert machine.rescue(at)
    return machine


def trial(machine: Breaker, signal: Signal, now: float) -> bool:
    assert machine.gate.take()
    return machine.record(signal, "other", now, machine.gate.generation)


def test_the_last_that_is_left_half_opens_at_once_for_one_trial_at_a_time() -> None:
    machine = rescued(5.0)
    assert (machine.state, machine.why) == (BreakerState.HALF_OPEN, Why.LAST_LEFT.value)
    assert machine.gate.take()
    assert not machine.gate.take()


def test_the_first_trial_that_succeeds_lets_in_as_many_as_any_half_open_breaker_and_five_close_it() -> None:
    machine = rescued()
    assert trial(machine, OK, 1.0), "there are permits again"
    assert (machine.gate.limit, machine.gate.permits) == (3, 3)
    for n in range(4):
        assert machine.state is BreakerState.HALF_OPEN
        trial(machine, OK, 2.0 + n)
    assert machine.state is BreakerState.CLOSED


def test_trials_that_fail_are_kept_apart_but_never_longer_than_a_client_waits() -> None:
    machine, now = rescued(), 0.0
    tried = [now]
    for _ in range(8):
        trial(machine, FAIL, now)
        assert machine.state is BreakerState.OPEN
        assert not machine.rescue(now)
        assert machine.wake_at == machine.gate.retry_at == machine.rescue_at
        assert not machine.tick(now)
        now = machine.wake_at
        assert machine.tick(now)
        assert (machine.why, machine.gate.permits) == (Why.LAST_LEFT.value, 1)
        tried.append(now)
    gaps = [later - earlier for earlier, later in pairwise(tried)]
    assert gaps == [0.5, 1.0, *[LONGEST_RESCUE_PAUSE] * 6]
    assert max(gaps) < GRACE


def test_failures_of_the_last_that_is_left_do_not_shut_it_for_longer_once_there_are_others() -> None:
    machine = rescued()
    for n in range(6):
        trial(machine, FAIL, float(10 * n))
        assert machine.gate.retry_at == 10 * n + 120.0, "others are there: its period is the first, as before"
        machine.rescue(10.0 * n + 5.0)


def test_a_success_ends_the_memory_of_trials_that_failed() -> None:
    machine = rescued()
    trial(machine, FAIL, 1.0)
    assert machine.gate.in_vain
    assert machine.rescue(3.0)
    trial(machine, OK, 4.0)
    assert (machine.failed_rescues, machine.gate.in_vain, machine.last_left) == (0, False, False)
    trial(machine, FAIL, 5.0)
    assert (machine.failed_recoveries, machine.failed_rescues) == (1, 0)


@pytest.mark.parametrize("state", list(BreakerState))
def test_what_an_operator_has_forced_stays(state: BreakerState) -> None:
    machine = opened()
    machine.force(state, 1.0, "ada")
    assert machine.rescue_at == math.inf
    assert not machine.rescue(2.0)
    assert last_resort([machine], 2.0) is None
    assert (machine.state, machine.last_left) == (state, False)


def test_a_forced_breaker_of_one_that_was_to_be_tried_opens_as_wide_as_any() -> None:
    machine = rescued()
    machine.force(BreakerState.HALF_OPEN, 1.0, "ada")
    assert not machine.last_left


def test_an_open_period_that_ends_sooner_is_not_made_longer() -> None:
    machine = opened(open_timeout=0)
    machine.failed_rescues = 5
    assert machine.rescue_at == machine.gate.retry_at == 0.0


def test_who_may_be_tried_first_is_and_then_who_failed_least_and_then_who_worked_last() -> None:
    failed = rescued()
    trial(failed, FAIL, 10.0)
    fresh, older, never = opened("b", 9.0, worked=8.0), opened("c", 9.0, worked=2.0), opened("d", 9.0)
    assert last_resort([failed, never, older, fresh], 10.0) is fresh
    assert last_resort([failed, never, older], 10.0) is older
    assert last_resort([failed, never], 10.0) is never
    assert last_resort([failed], 10.0) is failed
    often = opened("e", 9.0, worked=8.5)
    often.failed_recoveries = 1
    assert last_resort([often, never], 10.0) is never


def test_the_breaker_of_a_server_that_is_back_has_its_trials_at_once_and_is_shut_again_by_one_that_fails() -> None:
    machine = opened()
    assert machine.returned(20.0)
    assert (machine.state, machine.why) == (BreakerState.HALF_OPEN, Why.RETURNED.value)
    assert machine.gate.permits == 3
    assert not machine.returned(21.0)
    trial(machine, FAIL, 22.0)
    assert (machine.state, machine.failed_recoveries) == (BreakerState.OPEN, 1)
    machine.force(BreakerState.OPEN, 23.0, "ada")
    assert not machine.returned(24.0)


def test_who_was_told_already_is_not_told_again() -> None:
    machine = rescued()
    trial(machine, FAIL, 1.0)
    assert last_resort([machine], 1.0) is machine
    machine.rescue(1.0)
    assert last_resort([machine], 1.0) is None
    assert machine.gate.state is GateState.SHUT
