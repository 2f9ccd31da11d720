"""Which numbers may enter an average."""

from __future__ import annotations

import math

import pytest

from fleet.scheduling.estimates.averages.bounds import faded, sane

NUMBERS = [
    # value, what of it enters between 1 and 10
    (5, 5.0),
    (0.0, 1.0),
    (0.5, 1.0),
    (1e300, 10.0),
    (10**400, 10.0),
    (-1e-9, None),
    (-(10**400), None),
    (math.inf, None),
    (math.nan, None),
    (True, None),
    ("5", None),
    (None, None),
]


@pytest.mark.parametrize(("value", "enters"), NUMBERS)
def test_absurd_numbers_are_dropped_or_clamped(value: object, enters: float | None) -> None:
    assert sane(value, 1.0, 10.0) == enters


def test_a_weight_halves_with_each_half_life_and_never_grows() -> None:
    assert faded(0.0, 60.0) == 1.0
    assert faded(60.0, 60.0) == 0.5
    assert faded(120.0, 60.0) == 0.25
    assert faded(1e9, 60.0) == 0.0
    assert faded(-60.0, 60.0) == 1.0
