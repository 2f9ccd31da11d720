"""What it costs that a pair may fail, and the metric without estimates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.scheduling.estimates.failure_cost import LOST, FailureCost
from fleet.scheduling.estimates.lmetric import lmetric
from tests.fleet.scheduling.estimates.pairs import AM, BM


def test_who_never_failed_costs_nothing() -> None:
    cost = FailureCost()
    cost.learn(AM, 0.0)
    assert cost.chance(AM, 0.0) == 0.0
    assert cost.seconds(AM, 100.0, 0.0) == 0.0
    assert cost.lost(AM, 0.0) == LOST


def test_who_fails_fast_does_not_look_fast() -> None:
    """One that refuses in 20 ms, and one that serves in 10 s: the sinkhole costs nearly all that the other takes."""
    cost = FailureCost()
    for at in range(20):
        cost.learn(AM, at * 0.1, failed_after=0.02)
    assert cost.chance(AM, 2.0) > 0.9
    assert 0.02 + cost.seconds(AM, 10.0, 2.0) > 9.0


def test_one_failure_among_many_successes_costs_little() -> None:
    cost = FailureCost()
    cost.learn(AM, 0.0, failed_after=3.0)
    assert cost.chance(AM, 0.0) == pytest.approx(1 / 3)
    for _ in range(40):
        cost.learn(AM, 0.0)
    assert cost.chance(AM, 0.0) < 0.03
    assert cost.lost(AM, 0.0) == pytest.approx(2.0)


def test_failures_are_forgotten_within_minutes_without_traffic() -> None:
    """A server that was killed and is back: nobody sends it anything, so only time can clear it."""
    cost = FailureCost()
    for _ in range(3):
        cost.learn(AM, 0.0, failed_after=0.1)
    assert cost.seconds(AM, 10.0, 0.0) > 5.0
    assert cost.seconds(AM, 10.0, 300.0) < 0.6
    assert cost.chance(BM, 300.0) == 0.0


@given(st.lists(st.one_of(st.none(), st.floats(), st.integers()), max_size=30), st.floats(0.0, 1e4))
def test_a_cost_is_never_negative_and_never_more_than_failing_for_sure(ends: list[object], next_best: float) -> None:
    cost = FailureCost()
    for end in ends:
        cost.learn(AM, 0.0, failed_after=end)
    assert 0.0 <= cost.seconds(AM, next_best, 1.0) <= 600.0 + next_best


@given(st.floats(0.0, 1e6), st.floats(0.0, 1e6), st.integers(0, 100))
def test_lmetric_grows_with_what_is_not_cached_and_with_the_batch(tokens: float, hit: float, streams: int) -> None:
    metric = lmetric(tokens, hit, streams)
    assert metric >= 1.0
    assert lmetric(tokens + 1.0, hit, streams) >= metric
    assert lmetric(tokens, hit + 1.0, streams) <= metric
    assert lmetric(tokens, hit, streams + 1) > metric


def test_lmetric_is_the_product() -> None:
    assert lmetric(1000.0, 400.0, 2) == 1800.0
    assert lmetric(10.0, 400.0, -1) == 1.0
