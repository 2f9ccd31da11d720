"""How long things take, and how long they still will."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.scheduling.estimates.averages.log_histogram import LONGEST, SHORTEST, LogHistogram

HALF_LIFE = 100.0
_seconds = st.floats(SHORTEST, 1e4)


def filled(samples: list[float], now: float = 0.0) -> LogHistogram:
    histogram = LogHistogram(HALF_LIFE)
    for sample in samples:
        histogram.add(sample, now)
    return histogram


def log_normal(count: int) -> list[float]:
    dice = random.Random(1)
    return [dice.lognormvariate(1.0, 0.8) for _ in range(count)]


def test_what_is_left_of_one_that_has_run_for_a_while_is_found() -> None:
    samples = log_normal(3000)
    histogram = filled(samples)
    for elapsed in (0.0, 0.3, 1.0, 2.0, 5.0, 8.0):
        longer = [sample - elapsed for sample in samples if sample > elapsed]
        assert histogram.remaining(elapsed, 1.0, 0.0) == pytest.approx(sum(longer) / len(longer), rel=0.1)


def test_quantiles_are_found_within_a_bin() -> None:
    samples = sorted(log_normal(3000))
    histogram = filled(samples)
    for share in (0.05, 0.25, 0.5, 0.9, 0.99):
        assert histogram.quantile(share, 1.0, 0.0) == pytest.approx(samples[int(share * 3000)], rel=0.1)


def test_one_that_outlives_all_that_were_seen_lasts_as_long_again() -> None:
    histogram = filled([1.0] * 100)
    assert histogram.remaining(50.0, 1.0, 0.0) == pytest.approx(50.0)


def test_nothing_known_is_the_prior() -> None:
    histogram = LogHistogram(HALF_LIFE)
    assert histogram.remaining(0.0, 7.0, 0.0) == 7.0
    assert histogram.mean(7.0, 0.0) == 7.0
    assert histogram.quantile(0.9, 7.0, 0.0) == 7.0


@given(st.lists(_seconds, min_size=1, max_size=30), st.floats(0.0, 1e5), st.floats(0.0, 1e3))
def test_what_is_left_is_never_negative_and_never_absurd(samples: list[float], elapsed: float, now: float) -> None:
    left = filled(samples).remaining(elapsed, 5.0, now)
    assert 0.0 <= left <= LONGEST


@given(st.lists(_seconds, min_size=1, max_size=30), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_larger_share_has_no_smaller_quantile(samples: list[float], one: float, other: float) -> None:
    histogram = filled(samples)
    low, high = histogram.quantile(min(one, other), 1.0, 0.0), histogram.quantile(max(one, other), 1.0, 0.0)
    assert min(samples) / 1.42 <= low <= high * (1 + 1e-9) <= max(samples) * 1.42


@given(st.lists(_seconds, min_size=1, max_size=30))
def test_the_mean_is_exact(samples: list[float]) -> None:
    assert filled(samples).mean(1.0, 0.0, 1e-12) == pytest.approx(sum(samples) / len(samples))


def test_a_change_shows_after_some_half_lives_however_many_samples_were_before() -> None:
    histogram = filled([1.0] * 10_000)
    histogram.add(20.0, 30 * HALF_LIFE)
    assert histogram.mean(20.0, 30 * HALF_LIFE, 0.01) == pytest.approx(20.0, rel=0.01)


def test_without_traffic_it_drifts_back_to_the_prior() -> None:
    histogram = filled([1.0] * 100)
    assert histogram.mean(9.0, 0.0) == pytest.approx(1.0, rel=0.1)
    assert histogram.mean(9.0, 30 * HALF_LIFE) == pytest.approx(9.0, rel=0.01)
    assert histogram.remaining(0.0, 9.0, 30 * HALF_LIFE) == pytest.approx(9.0, rel=0.01)


def test_a_year_of_samples_overflows_nothing() -> None:
    histogram = LogHistogram(HALF_LIFE)
    for day in range(365):
        for minute in range(3):
            histogram.add(2.0, day * 86400.0 + minute)
    assert histogram.weight_at(364 * 86400.0 + 3) == pytest.approx(3.0, rel=0.05)
    assert histogram.mean(1.0, 364 * 86400.0 + 3, 1e-6) == pytest.approx(2.0, rel=1e-3)


def test_absurd_samples_are_dropped_or_clamped() -> None:
    histogram = filled([-1.0, math.nan, math.inf])
    assert histogram.weight_at(0.0) == 0.0
    histogram.add(1e30, 0.0)
    histogram.add(0.0, 0.0)
    assert histogram.mean(0.0, 0.0, 1e-9) == pytest.approx((LONGEST + SHORTEST) / 2)


@given(st.lists(_seconds, max_size=30), st.floats(0.0, 300.0))
def test_plain_and_back_is_the_same(samples: list[float], now: float) -> None:
    histogram, back = filled(samples), LogHistogram(HALF_LIFE)
    back.load_plain(histogram.to_plain(now), 5000.0)
    assert back.weight_at(5000.0) == pytest.approx(histogram.weight_at(now))
    assert back.mean(3.0, 5000.0) == pytest.approx(histogram.mean(3.0, now))
    assert back.remaining(1.0, 3.0, 5000.0) == pytest.approx(histogram.remaining(1.0, 3.0, now), rel=1e-3)


@pytest.mark.parametrize(
    "data", [None, 3, [1.0], [[1.0, 2.0]], [[0, -1.0, 1.0]], [[0, 1.0, math.nan]], [[0, math.inf, 1.0]]]
)
def test_what_is_no_bin_is_left_out(data: object) -> None:
    histogram = LogHistogram(HALF_LIFE)
    histogram.load_plain(data, 0.0)
    assert histogram.weight_at(0.0) == 0.0
