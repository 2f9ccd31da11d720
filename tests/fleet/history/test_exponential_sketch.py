from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.history.exponential_sketch import (
    ERROR,
    LONGEST,
    MOST_BINS,
    MOST_BYTES,
    SHORTEST,
    Damaged,
    ExponentialSketch,
    bin_of,
    middle_of,
)

durations = st.floats(min_value=SHORTEST * 1.001, max_value=LONGEST, allow_nan=False)


def sketch_of(values: list[float]) -> ExponentialSketch:
    sketch = ExponentialSketch()
    for value in values:
        sketch.add(value)
    return sketch


@pytest.mark.parametrize("power", range(-19, 20))
def test_a_power_of_two_is_the_upper_edge_of_its_bin(power: int) -> None:
    assert bin_of(2.0**power) == power * 8
    assert bin_of(math.nextafter(2.0**power, math.inf)) == power * 8 + 1


@given(durations)
def test_a_bin_holds_what_lies_between_its_edges(value: float) -> None:
    place = bin_of(value)
    slack = 1e-15 * value
    assert 2.0 ** ((place - 1) / 8) <= value + slack
    assert value <= 2.0 ** (place / 8) + slack


@given(durations)
def test_the_middle_of_a_bin_is_within_the_stated_error(value: float) -> None:
    assert abs(middle_of(bin_of(value)) / value - 1.0) <= ERROR + 1e-12


@given(st.lists(durations, min_size=1, max_size=60), st.floats(min_value=0.0, max_value=1.0))
def test_a_percentile_is_within_the_error_of_the_nearest_rank(values: list[float], share: float) -> None:
    told = sketch_of(values).percentile(share)
    true = sorted(values)[max(1, math.ceil(share * len(values) - 1e-9)) - 1]
    assert told is not None
    assert abs(told / true - 1.0) <= ERROR + 1e-12


def test_of_nothing_there_is_no_percentile() -> None:
    assert ExponentialSketch().percentile(0.5) is None


@pytest.mark.parametrize(
    ("value", "told"), [(0.0, 0.0), (-1.0, 0.0), (float("nan"), 0.0), (1e-9, 0.0), (float("inf"), middle_of(160))]
)
def test_what_is_beyond_the_bins_counts_as_nothing_or_as_the_longest(value: float, told: float) -> None:
    sketch = sketch_of([value])
    assert (sketch.count, sketch.percentile(0.5)) == (1, told)


@given(st.lists(st.lists(durations | st.just(0.0), max_size=30), max_size=6))
def test_merging_is_as_good_as_having_seen_all(parts: list[list[float]]) -> None:
    merged = ExponentialSketch.merged(sketch_of(part) for part in parts)
    assert merged == sketch_of([value for part in parts for value in part])


@given(st.lists(durations | st.just(0.0), max_size=60))
def test_what_is_encoded_comes_back(values: list[float]) -> None:
    sketch = sketch_of(values)
    assert ExponentialSketch.decode(sketch.encode()) == sketch


def test_no_sketch_is_longer_than_stated() -> None:
    sketch = ExponentialSketch()
    value = SHORTEST * 1.01
    while value < LONGEST:
        for _ in range(3):
            sketch.add(value)
        value *= 2.0 ** (1 / 8)
    full = sketch.encode()
    assert sketch.count > 3 * (MOST_BINS - 3)
    assert len(full) <= MOST_BYTES


@given(st.binary(max_size=200))
def test_any_bytes_are_a_sketch_or_damaged(data: bytes) -> None:
    try:
        sketch = ExponentialSketch.decode(data)
    except Damaged:
        return
    assert sketch.count >= 0
    assert ExponentialSketch.decode(sketch.encode()) == sketch


@pytest.mark.parametrize(
    "data", [b"\x00\x01", b"\x80", b"\x00\x00\x01", b"\x00\x01\x00", b"\xff" * 12, b"\x00\xff\x7f\x01", b"\x01" * 9999]
)
def test_damaged_bytes_are_told(data: bytes) -> None:
    with pytest.raises(Damaged):
        ExponentialSketch.decode(data)
