"""The sketch of latencies against the sorted list that it stands for."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.observability.statistics.quantile_sketch import BINS, ERROR, LONGEST, Sketch, bin_of, value_of

MILLIS = st.one_of(
    st.floats(1.0, LONGEST),
    st.floats(0.0, 60_000.0, exclude_min=True),
    st.integers(0, 10_000).map(float),
)
SHARES = st.sampled_from([0.0, 0.01, 0.5, 0.9, 0.95, 0.99, 1.0])


def sketch_of(values: list[float]) -> Sketch:
    sketch = Sketch()
    if values:
        sketch.add([bin_of(value) for value in values])
    return sketch


def nearest_rank(values: list[float], share: float) -> float:
    return sorted(values)[max(1, math.ceil(share * len(values) - 1e-9)) - 1]


@given(st.lists(MILLIS, min_size=1, max_size=200), SHARES)
def test_a_percentile_is_within_five_percent_of_the_nearest_rank(values: list[float], share: float) -> None:
    truth = nearest_rank(values, share)
    found = sketch_of(values).percentile(share)
    if truth <= 1.0:
        assert abs(found - truth) <= 1.0
    else:
        assert abs(found - truth) <= truth * ERROR * (1 + 1e-9)


@given(st.floats(1.0, LONGEST))
def test_every_value_is_within_five_percent_of_its_bin(value: float) -> None:
    assert abs(value_of(bin_of(value)) - value) <= value * ERROR * (1 + 1e-9)


@given(st.lists(MILLIS, max_size=60), st.lists(MILLIS, max_size=60), SHARES)
def test_merging_is_the_same_as_having_counted_everything(left: list[float], right: list[float], share: float) -> None:
    merged = sketch_of(left)
    merged.merge(sketch_of(right))
    assert merged.percentile(share) == sketch_of(left + right).percentile(share)
    assert len(merged) == len(sketch_of(left + right))


def test_a_copy_goes_its_own_way() -> None:
    first = sketch_of([10.0])
    second = first.copy()
    second.add([bin_of(10_000.0)])
    assert first.percentile(1.0) == pytest.approx(10.0, rel=ERROR)
    assert second.percentile(1.0) == pytest.approx(10_000.0, rel=ERROR)


@pytest.mark.parametrize(
    ("value", "place"),
    [(0.0, 0), (-3.0, 0), (math.nan, 0), (1.0, 0), (1.01, 1), (LONGEST, BINS - 1), (math.inf, BINS - 1)],
)
def test_what_no_clock_should_say_is_counted_all_the_same(value: float, place: int) -> None:
    assert bin_of(value) == place


def test_nothing_has_no_percentiles() -> None:
    assert Sketch().percentile(0.5) == 0.0


def test_a_sketch_never_holds_more_counters_than_there_are_bins() -> None:
    sketch = sketch_of([0.5, LONGEST * 2, 1e3, 0.0])
    assert len(sketch) == BINS <= 200


def test_a_wide_sketch_takes_more_than_a_narrow_one_can_hold() -> None:
    one = sketch_of([5.0])
    total = Sketch(wide=True)
    for _ in range(40):
        doubled = total.copy()
        total.merge(doubled)
        total.merge(one)
    assert total.percentile(0.5) == pytest.approx(5.0, rel=ERROR)
