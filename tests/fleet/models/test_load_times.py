"""How long the next load will take."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.common.ids import ModelName, Pair, ServerId
from fleet.models import load_times as module
from fleet.models.load_times import GUESS, LONGEST, SHORTEST, LoadTimes, size_of

GB = 10**9


def pair(server: str, model: str) -> Pair:
    return Pair(ServerId(server), ModelName(model))


AM, BM, AN, BN = pair("a", "m"), pair("b", "m"), pair("a", "n"), pair("b", "n")

ESTIMATES = [
    # loads seen (pair, seconds, size), what is to be loaded, its size, seconds
    ([], AM, None, GUESS),
    ([], AM, 4 * GB, 5.0),  # one second and a gigabyte per second
    ([(AM, 7.0, None)], AM, 4 * GB, 7.0),
    ([(AM, 7.0, None), (BM, 3.0, None)], AM, None, 7.0),  # the pair itself
    ([(BM, 3.0, None)], AM, 4 * GB, 3.0),  # the model elsewhere
    ([(AN, 2.0, 4 * GB)], AM, 8 * GB, 4.0),  # other models on that server
    ([(BN, 2.0, 4 * GB)], AM, 8 * GB, 4.0),  # other models on other servers
    ([(AN, 2.0, 4 * GB), (BN, 1.0, 4 * GB)], AM, 8 * GB, 4.0),  # that server rather than others
    ([(AN, 2.0, 4 * GB)], AM, None, GUESS),
    ([(AM, 2.0, None), (AM, 60.0, None), (AM, 4.0, None)], AM, None, 4.0),  # the median: one that waited is no rule
    ([(AM, 100.0, None)] * 5 + [(AM, 1.0, None)] * 3, AM, None, 1.0),  # of the last five
    ([(AM, 0.09, None)], AM, None, GUESS),  # nothing was loaded
    ([(AM, 0.1, None)], AM, None, 0.1),
    ([(AM, 1e9, None)], AM, None, LONGEST),
    ([(AN, 2.0, 4 * GB)], AM, 2**60 - 1, LONGEST),
    ([(AN, 2.0, 4 * GB)], AM, 1, SHORTEST),
]


@pytest.mark.parametrize(("seen", "wanted", "size", "seconds"), ESTIMATES)
def test_an_estimate_rests_on_the_closest_that_was_seen(
    seen: list[tuple[Pair, float, int | None]], wanted: Pair, size: int | None, seconds: float
) -> None:
    loads = LoadTimes()
    for where, took, of in seen:
        loads.note(where, took, of)
    assert loads.estimate(wanted, size) == pytest.approx(seconds)


_pairs = st.sampled_from([AM, BM, AN, BN])
_sizes = st.one_of(st.none(), st.integers(-1, 2**60))
_seconds = st.floats(min_value=0, allow_nan=False)


@given(st.lists(st.tuples(_pairs, _seconds, _sizes), max_size=30), _pairs, _sizes)
def test_estimates_are_positive_and_bounded(
    seen: list[tuple[Pair, float, int | None]], wanted: Pair, size: int | None
) -> None:
    loads = LoadTimes()
    for where, took, of in seen:
        loads.note(where, took, of)
    estimate = loads.estimate(wanted, size)
    assert math.isfinite(estimate)
    assert SHORTEST <= estimate <= LONGEST


def test_the_last_load_is_remembered() -> None:
    loads = LoadTimes()
    assert loads.last(AM) is None
    loads.note(AM, 3.0, None)
    loads.note(AM, 4.0, None)
    assert (loads.last(AM), loads.last(BM)) == (4.0, None)


def test_the_pair_that_was_loaded_longest_ago_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAIRS", 2)
    loads = LoadTimes()
    for which in (AM, BM, AM, AN):
        loads.note(which, 3.0, None)
    assert [loads.last(which) for which in (AM, BM, AN)] == [3.0, None, 3.0]


@pytest.mark.parametrize(
    ("row", "size"),
    [
        ({"size": 5}, 5),
        ({"size": 0}, None),
        ({"size": -5}, None),
        ({"size": True}, None),
        ({"size": 5.5}, None),
        ({"size": "5"}, None),
        ({"size": 2**60}, None),
        ({}, None),
        (None, None),
    ],
)
def test_a_size_is_believed_only_if_it_makes_sense(row: object, size: int | None) -> None:
    assert size_of(row) == size
