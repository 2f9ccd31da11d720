"""What predictions were worth, told by term."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.scheduling.estimates.forecast.estimates import Estimates
from fleet.scheduling.estimates.forecast.prediction_errors import PredictionErrors
from tests.fleet.scheduling.estimates.forecast.servers import KnownServer, SimulatedFleet
from tests.fleet.scheduling.estimates.pairs import A


def ratios(*told: tuple[object, object]) -> list[tuple[str, float]]:
    heard: list[tuple[str, float]] = []
    errors = PredictionErrors(lambda term, ratio: heard.append((term, ratio)))
    for predicted, actual in told:
        errors.note("load", predicted, actual, 0.0)
    return heard


@pytest.mark.parametrize(("predicted", "actual", "ratio"), [(2.0, 3.0, 1.5), (4.0, 1.0, 0.25), (0.02, 400.0, 1000.0)])
def test_the_ratio_is_what_came_over_what_was_predicted(predicted: float, actual: float, ratio: float) -> None:
    ((term, told),) = ratios((predicted, actual))
    assert term == "load"
    assert told == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("predicted", "actual"),
    [(0.0, 5.0), (5.0, 0.0), (0.001, 0.009), (1.0, None), ("1", 1.0), (-1.0, 1.0), (1.0, math.nan)],
)
def test_what_is_nothing_or_no_time_is_left_out(predicted: object, actual: object) -> None:
    assert ratios((predicted, actual)) == []


@given(st.lists(st.tuples(st.floats() | st.integers() | st.none(), st.floats() | st.integers() | st.none())))
def test_hostile_times_make_no_absurd_ratio(told: list[tuple[object, object]]) -> None:
    assert all(0.001 <= ratio <= 1000.0 for _, ratio in ratios(*told))


def test_each_answer_tells_of_its_terms_and_they_become_right() -> None:
    heard: dict[str, list[float]] = {}
    fleet = SimulatedFleet()
    fleet.estimates = Estimates(lambda term, ratio: heard.setdefault(term, []).append(ratio))
    for _ in range(40):
        fleet.serve(KnownServer(A), rate=50.0, step=0.3)
    assert set(heard) >= {"prefill", "decode", "done"}
    for term in ("prefill", "decode", "done"):
        assert heard[term][-1] == pytest.approx(1.0, rel=0.3), term
        assert abs(math.log(heard[term][-1])) < abs(math.log(heard[term][0])), term
