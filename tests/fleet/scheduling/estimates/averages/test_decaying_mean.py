"""Means that forget with time."""

from __future__ import annotations

import math
import random
from statistics import fmean, pvariance

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.scheduling.estimates.averages.decaying_mean import DecayingMean, LogMean

HALF_LIFE = 100.0
_samples = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


def filled(samples: list[float], step: float = 0.0) -> DecayingMean:
    mean = DecayingMean(HALF_LIFE)
    for at, sample in enumerate(samples):
        mean.add(sample, at * step)
    return mean


@given(_samples)
def test_of_samples_of_one_moment_it_is_the_plain_mean_and_variance(samples: list[float]) -> None:
    mean = filled(samples)
    assert mean.mean == pytest.approx(fmean(samples), abs=1e-3)
    assert mean.squares / mean.weight == pytest.approx(pvariance(samples), rel=1e-6, abs=1e-3)


@given(_samples, st.floats(0.0, 50.0))
def test_it_is_the_mean_with_weights_that_halve_with_time(samples: list[float], step: float) -> None:
    weights = [2.0 ** ((at - len(samples) + 1) * step / HALF_LIFE) for at in range(len(samples))]
    expected = sum(w * x for w, x in zip(weights, samples, strict=True)) / sum(weights)
    assert filled(samples, step).mean == pytest.approx(expected, rel=1e-6, abs=1e-3)


@given(_samples, st.floats(-1e6, 1e6), st.floats(0.0, 1e4), st.floats(0.0, 1e4))
def test_without_traffic_it_moves_towards_the_prior_and_never_beyond(
    samples: list[float], prior: float, early: float, longer: float
) -> None:
    mean = filled(samples)
    before, after = mean.towards(prior, early), mean.towards(prior, early + longer)
    assert abs(after - prior) <= abs(before - prior) + 1e-6
    assert mean.towards(prior, 1e6) == pytest.approx(prior, abs=1e-3)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=20), st.floats(allow_nan=True))
def test_no_sample_makes_it_infinite(samples: list[float], now: float) -> None:
    mean = DecayingMean(HALF_LIFE)
    for sample in samples:
        mean.add(sample, now)
        mean.add(sample, 5.0)
    assert math.isfinite(mean.towards(1.0, 10.0))
    assert math.isfinite(mean.variance(10.0))


def test_a_clock_that_goes_back_takes_nothing_away() -> None:
    mean = filled([4.0])
    mean.add(8.0, -1000.0)
    assert mean.mean == 6.0
    assert mean.weight_at(-5000.0) == 2.0


def test_the_number_of_samples_does_not_matter_only_their_age() -> None:
    """Ten thousand old samples and one new one: after many half-lives the new one has the say."""
    mean = filled([100.0] * 10_000)
    mean.add(1.0, 30 * HALF_LIFE)
    assert mean.mean == pytest.approx(1.0, rel=1e-2)


@given(_samples, st.floats(0.0, 1000.0))
def test_plain_and_back_is_the_same(samples: list[float], now: float) -> None:
    mean = filled(samples)
    back = DecayingMean.from_plain(mean.to_plain(now), HALF_LIFE, now)
    assert back.towards(0.0, now + 7.0) == pytest.approx(mean.towards(0.0, now + 7.0), rel=1e-6, abs=1e-6)
    assert back.variance(now) == pytest.approx(mean.variance(now), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    "data", [None, {}, [], [1.0], [1.0, "2", 3.0], [math.nan, 1.0, 1.0], [1.0, 1.0, -1.0], [1e300, 1, 1], [True, 1, 1]]
)
def test_what_is_no_mean_is_read_as_unknown(data: object) -> None:
    assert DecayingMean.from_plain(data, HALF_LIFE, 0.0).weight == 0.0


def test_the_expectation_of_log_normal_numbers_is_found() -> None:
    dice = random.Random(1)
    mean = LogMean.fresh(1e6, 0.01, 1e4)
    for at in range(3000):
        mean.add(dice.lognormvariate(2.0, 0.6), float(at))
    assert mean.typical(1.0, 3000.0) == pytest.approx(math.exp(2.0), rel=0.05)
    assert mean.expected(1.0, 3000.0) == pytest.approx(math.exp(2.0 + 0.18), rel=0.05)


def test_of_logarithms_nothing_that_is_not_positive_enters() -> None:
    mean = LogMean.fresh(HALF_LIFE, 0.1, 10.0)
    assert [mean.add(sample, 0.0) for sample in (0, 0.0, -1.0, math.nan, math.inf, "1")] == [False] * 6
    assert mean.typical(3.0, 0.0) == pytest.approx(3.0)
    assert mean.add(1e9, 0.0)  # clamped
    assert mean.typical(10.0, 0.0) == pytest.approx(10.0)
