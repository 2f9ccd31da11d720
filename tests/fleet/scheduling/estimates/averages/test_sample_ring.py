"""Quantiles of the last few samples."""

from __future__ import annotations

import math
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.scheduling.estimates.averages.sample_ring import SampleRing

HALF_LIFE = 100.0
_samples = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


def filled(samples: list[float], most: int = 50) -> SampleRing:
    ring = SampleRing(most, HALF_LIFE)
    for sample in samples:
        ring.add(sample, 0.0)
    return ring


@given(_samples)
def test_of_samples_of_one_moment_the_middle_one_is_the_median(samples: list[float]) -> None:
    assert filled(samples).quantile(0.5, 0.0) == pytest.approx(median(samples))


@given(_samples, st.integers(1, 10))
def test_only_the_last_few_count(samples: list[float], most: int) -> None:
    ring = filled(samples, most)
    assert len(ring) == min(most, len(samples))
    assert ring.quantile(0.5, 0.0) == pytest.approx(median(samples[-most:]))


@given(_samples, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_larger_share_has_no_smaller_quantile(samples: list[float], one: float, other: float) -> None:
    ring = filled(samples)
    low, high = ring.quantile(min(one, other), 0.0), ring.quantile(max(one, other), 0.0)
    assert low is not None
    assert high is not None
    assert min(samples) <= low <= high <= max(samples)


def test_new_samples_outweigh_old_ones() -> None:
    ring = filled([10.0] * 5)
    ring.add(1.0, 5 * HALF_LIFE)
    assert ring.quantile(0.5, 5 * HALF_LIFE) == 1.0


def test_what_is_very_old_is_forgotten() -> None:
    assert filled([10.0]).quantile(0.5, 1e6) is None
    assert SampleRing(5, HALF_LIFE).quantile(0.5, 0.0) is None


def test_absurd_samples_are_dropped() -> None:
    ring = filled([math.nan, math.inf, -math.inf])
    ring.add(1.0, math.nan)
    assert len(ring) == 0


@given(_samples, st.integers(1, 10))
def test_plain_and_back_is_the_same(samples: list[float], most: int) -> None:
    ring, back = filled(samples, most), SampleRing(most, HALF_LIFE)
    back.load_plain(ring.to_plain(50.0), 1050.0, -1e9, 1e9)
    for share in (0.1, 0.5, 0.9):
        assert back.quantile(share, 1050.0) == ring.quantile(share, 50.0)
    ring.add(7.0, 50.0)
    back.add(7.0, 1050.0)
    assert back.to_plain(1050.0) == ring.to_plain(50.0)  # the same one was the oldest


@pytest.mark.parametrize(
    "data", [None, 3, {"a": 1}, [1.0], [[1.0]], [["1", 2]], [[99.0, 1.0]], [[1.0, -1.0]], [[1, math.inf]]]
)
def test_what_is_no_sample_is_left_out(data: object) -> None:
    ring = SampleRing(5, HALF_LIFE)
    ring.load_plain(data, 0.0, 0.0, 10.0)
    assert len(ring) == 0
