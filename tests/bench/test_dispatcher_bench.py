"""A routing decision costs the same however many wait. Generous: this is about the shape, not about the machine."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from bench.parts.dispatcher import Fleet, closed_breaker, fleet, one_request

pytestmark = pytest.mark.alone

TRIES = 20
"""A busy machine makes a round slow now and then; a wrong shape makes it slow every time."""


def settle(cheap: Callable[[], float], dear: Callable[[], float]) -> tuple[float, float]:
    """The least that each has cost, as soon as one is less than twice the other; after so many tries whatever it is."""
    least = (math.inf, math.inf)
    for _ in range(TRIES):
        least = min(least[0], cheap()), min(least[1], dear())
        if least[1] < 2 * least[0]:
            break
    return least


@pytest.mark.parametrize(("servers", "models"), [(200, 50), (10, 20)])
def test_a_decision_costs_the_same_with_5000_waiting_as_with_100(servers: int, models: int) -> None:
    few, many = Fleet(servers, models, 100), Fleet(servers, models, 5_000)
    cheap, dear = settle(lambda: sum(few.round()), lambda: sum(many.round()))
    assert dear < 2 * cheap


def test_an_idle_fleet_is_chosen_from_in_the_same_time_whatever_its_size() -> None:
    small, large = Fleet(60, 10, 0), Fleet(1_000, 10, 0)
    cheap, dear = settle(lambda: small.round()[0], lambda: large.round()[0])
    assert dear < 2 * cheap


def test_every_figure_of_the_table_is_measured() -> None:
    figure = fleet(10, 5, 20, rounds=1)
    assert (figure.servers, figure.models, figure.waiting) == (10, 5, 20)
    assert figure.decision == figure.submit + figure.release > 0.0
    assert one_request(rounds=1, steps=10) > 0.0
    assert closed_breaker(rounds=1, steps=10) > 0.0
