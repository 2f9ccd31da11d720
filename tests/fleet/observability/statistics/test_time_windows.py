"""Windows over buckets that grow coarser with age, against the list of everything that happened."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.observability.statistics.aggregates import Count
from fleet.observability.statistics.time_windows import LEVELS, LONGEST, MOST_BUCKETS, Series, span_of

SPANS = (60.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0)
GAPS = st.one_of(
    st.floats(0.0, 3.0),
    st.floats(0.0, 90.0),
    st.floats(0.0, 4_000.0),
    st.floats(0.0, 200_000.0),
    st.sampled_from([5.0, 20.0, 60.0, 300.0, 3_600.0, 86_400.0, 604_800.0]),
)


def width_at(span: float) -> float:
    """How far a window may reach beyond what was asked for."""
    return next(width for width, age in LEVELS if span <= age)


def count(series: Series[Count], now: float, span: float) -> tuple[float, int]:
    into = Count()
    return series.window(now, span, into), into.number


@settings(max_examples=300)
@given(st.lists(st.tuples(GAPS, st.integers(1, 3), st.booleans()), max_size=80), GAPS, st.integers(1, 10_080))
def test_a_window_counts_exactly_what_happened_since_it_says_it_begins(
    steps: list[tuple[float, int, bool]], last: float, minutes: int
) -> None:
    series, seen, now = Series(Count), list[float](), 1_000.0
    for gap, number, look in steps:
        now += gap
        for _ in range(number):
            series.bucket(now).number += 1
            seen.append(now)
        if look:
            count(series, now, 60.0)  # looking changes nothing
    now += last
    for span in (*SPANS, minutes * 60.0):
        start, number = count(series, now, span)
        assert number == sum(each >= start for each in seen)
        assert now - span - width_at(span) < start <= now - span
    assert len(series) <= MOST_BUCKETS


@settings(max_examples=100)
@given(st.lists(GAPS, min_size=1, max_size=60))
def test_several_windows_at_once_are_the_same_as_one_by_one(gaps: list[float]) -> None:
    series, now = Series(Count), 0.0
    for gap in gaps:
        now += gap
        series.bucket(now).number += 1
    together = [(start, bucket.number) for start, bucket in series.windows(now, SPANS, Count())]
    assert together == [count(series, now, span) for span in SPANS]


def test_buckets_are_made_only_for_what_there_is_to_count() -> None:
    series = Series(Count)
    assert len(series) == 0
    for moment in (0.0, 1.0, 4.9):
        series.bucket(moment).number += 1
    assert len(series) == 1
    count(series, 10.0, 60.0)
    assert len(series) == 1


def test_a_week_of_steady_traffic_stays_within_the_bound_and_uses_it() -> None:
    series, most = Series(Count), 0
    for step in range(int(1.2 * LONGEST / 5)):
        series.bucket(step * 5.0).number += 1
        most = max(most, len(series)) if step % 97 == 0 else most
    assert 100 <= most <= MOST_BUCKETS <= 120


def test_after_a_week_nothing_is_left() -> None:
    series = Series(Count)
    series.bucket(3.0).number += 1
    assert count(series, 3.0 + LONGEST, LONGEST)[1] == 1
    assert count(series, 5.0 + LONGEST, LONGEST)[1] == 0
    assert len(series) == 0


def test_each_width_divides_the_next_and_ages_rise() -> None:
    for (width, age), (wider, older) in pairwise(LEVELS):
        assert wider % width == 0
        assert older > age
        assert age % wider == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1m", 60.0),
        ("5m", 300.0),
        ("30m", 1_800.0),
        ("1h", 3_600.0),
        ("6h", 21_600.0),
        ("24h", 86_400.0),
        ("7d", 604_800.0),
        ("168h", 604_800.0),
        ("10080m", 604_800.0),
        ("8d", None),
        ("169h", None),
        ("10081m", None),
        ("0m", None),
        ("01m", None),
        ("-1h", None),
        ("1", None),
        ("h", None),
        ("", None),
        ("1s", None),
        ("1w", None),
        ("1h ", None),
        ("1h\n", None),
        ("1H", None),
        ("\u0661h", None),
        ("1.5h", None),
        ("999999999999h", None),
    ],
)
def test_time_ranges_are_read_strictly(text: str, seconds: float | None) -> None:
    assert span_of(text) == seconds
