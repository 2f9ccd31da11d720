"""How long a request would wait for a slot."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.scheduling.estimates.wait import SERVICE, ServiceTimes, wait_seconds
from tests.fleet.scheduling.estimates.pairs import AM, AN, BM, BN, JUNK

WAITS = [
    # what is left of each open request, slots, ahead, how long one of those takes, seconds
    ([], 1, 0, 5.0, 0.0),
    ([3.0], 2, 0, 5.0, 0.0),
    ([3.0], 1, 0, 5.0, 3.0),
    ([3.0, 1.0], 2, 0, 5.0, 1.0),
    ([3.0, 1.0], 1, 0, 5.0, 3.0),  # one more than there are slots: the second to end frees one
    ([4.0, 3.0, 1.0], 2, 0, 5.0, 3.0),
    ([3.0], 1, 1, 5.0, 8.0),  # who is ahead counts as work
    ([3.0], 1, 2, 5.0, 13.0),
    ([], 1, 1, 5.0, 5.0),
    ([], 2, 1, 5.0, 0.0),
    ([1.0, 3.0], 2, 1, 5.0, 3.0),  # it takes the slot that is free at 1
    ([1.0, 9.0], 2, 1, 5.0, 6.0),
    ([3.0], 0, 0, 5.0, 3.0),
    ([0.0], 1, 5000, 1.0, 5000.0),
]


@pytest.mark.parametrize(("left", "slots", "ahead", "service", "seconds"), WAITS)
def test_the_wait_is_until_enough_have_ended(
    left: list[float], slots: int, ahead: int, service: float, seconds: float
) -> None:
    assert wait_seconds(left, slots, ahead, service) == pytest.approx(seconds)


_left = st.lists(st.floats(0.0, 100.0), max_size=12)


@given(_left, st.integers(1, 8), st.integers(0, 40), st.floats(0.01, 100.0))
def test_more_slots_never_mean_more_waiting_and_more_ahead_never_less(
    left: list[float], slots: int, ahead: int, service: float
) -> None:
    wait = wait_seconds(left, slots, ahead, service)
    assert wait >= 0.0
    assert wait_seconds(left, slots + 1, ahead, service) <= wait + 1e-9
    assert wait_seconds(left, slots, ahead + 1, service) >= wait - 1e-9
    assert wait_seconds([*left, 50.0], slots, ahead, service) >= wait - 1e-9


def test_the_narrowest_histogram_that_knows_enough_is_used() -> None:
    times = ServiceTimes()
    assert times.best(AM, 0.0).mean(SERVICE, 0.0) == SERVICE
    for _ in range(3):
        times.learn(BN, 100.0, 0.0)
    assert times.best(AM, 0.0).mean(SERVICE, 0.0, 1e-9) == pytest.approx(100.0)  # the fleet's
    for _ in range(3):
        times.learn(BM, 20.0, 0.0)
    assert times.best(AM, 0.0).mean(SERVICE, 0.0, 1e-9) == pytest.approx(20.0)  # the model's
    for _ in range(3):
        times.learn(AM, 4.0, 0.0)
    assert times.best(AM, 0.0).mean(SERVICE, 0.0, 1e-9) == pytest.approx(4.0)  # its own
    assert times.best(AN, 0.0).mean(SERVICE, 0.0, 1e-9) == pytest.approx(100.0)  # the same model elsewhere


def test_without_traffic_a_pair_is_as_unknown_as_before() -> None:
    times = ServiceTimes()
    for _ in range(100):
        times.learn(AM, 500.0, 0.0)
    assert times.best(AM, 1e6).mean(SERVICE, 1e6) == pytest.approx(SERVICE)


def test_the_wait_at_a_busy_runner_is_told_within_a_tenth() -> None:
    """Against the truth: two slots, exponential service of 4 s, who comes waits for the first of two to end (2 s)."""
    dice, times = random.Random(1), ServiceTimes()
    for _ in range(2000):
        times.learn(AM, dice.expovariate(1 / 4.0), 0.0)
    best = times.best(AM, 0.0)
    for elapsed in (0.5, 2.0, 6.0):  # no memory: what is left does not depend on it
        assert best.remaining(elapsed, SERVICE, 0.0) == pytest.approx(4.0, rel=0.1)


def test_plain_and_back_is_the_same_for_models_and_the_fleet() -> None:
    times, back = ServiceTimes(), ServiceTimes()
    for _ in range(5):
        times.learn(AM, 4.0, 0.0)
    back.load_plain(times.to_plain(0.0, 100), 900.0)
    for pair in (BM, BN):
        assert back.best(pair, 900.0).mean(1.0, 900.0) == pytest.approx(times.best(pair, 0.0).mean(1.0, 0.0))


@pytest.mark.parametrize("data", [*JUNK, [["", [[0, 1.0, -1.0]]]]])
def test_junk_in_a_file_is_left_out(data: object) -> None:
    times = ServiceTimes()
    times.load_plain(data, 0.0)
    assert times.best(AM, 0.0).weight_at(0.0) == 0.0
