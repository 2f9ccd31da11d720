from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.history.trends import FEWEST, MOST, trend_of


def points(values: list[float]) -> list[tuple[float, float]]:
    return [(60.0 * at, value) for at, value in enumerate(values)]


def test_few_points_are_no_trend() -> None:
    assert trend_of(points([1.0] * (FEWEST - 1))) == ("stable", None, None, FEWEST - 1)


@pytest.mark.parametrize(("sign", "direction"), [(1, "increasing"), (-1, "decreasing")])
def test_the_slope_is_per_second_and_one_wild_point_does_not_move_it(sign: int, direction: str) -> None:
    values = [sign * 6.0 * at for at in range(20)]
    values[9] = 1e6
    found = trend_of(points(values))
    assert (found.direction, found.points) == (direction, 20)
    assert found.slope == pytest.approx(sign * 0.1)
    assert found.confidence is not None
    assert found.confidence > 0.95


@pytest.mark.parametrize("values", [[5.0] * 10, [1.0, 2.0] * 10, [0.0] * 9 + [1.0]])
def test_what_goes_nowhere_is_stable(values: list[float]) -> None:
    assert trend_of(points(values)).direction == "stable"


def test_confidence_is_that_of_the_textbook() -> None:
    """Ten rising values: S = 45, variance 125."""
    found = trend_of(points([float(at) for at in range(10)]))
    assert found.confidence == pytest.approx(math.erf(44 / math.sqrt(250)))


def test_only_the_last_points_are_looked_at() -> None:
    assert trend_of(points([float(at) for at in range(MOST + 50)])).points == MOST


@given(st.lists(st.floats(-1e6, 1e6), min_size=FEWEST, max_size=40))
def test_turned_round_in_time_it_is_the_opposite(values: list[float]) -> None:
    one, other = trend_of(points(values)), trend_of(points(values[::-1]))
    assert one.confidence == other.confidence
    assert one.slope == pytest.approx(-(other.slope or 0.0))
