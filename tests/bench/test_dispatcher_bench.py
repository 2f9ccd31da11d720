"""A routing decision costs the same however many wait. Generous: this is about the shape, not about the machine."""

from __future__ import annotations

import pytest

from bench.dispatcher import Fleet, closed_breaker, fleet, one_request

TRIES = 5


@pytest.mark.parametrize(("servers", "models"), [(200, 50), (10, 20)])
def test_a_decision_costs_the_same_with_5000_waiting_as_with_100(servers: int, models: int) -> None:
    few, many = Fleet(servers, models, 100), Fleet(servers, models, 5_000)
    costs = [(sum(few.round()), sum(many.round())) for _ in range(TRIES)]
    assert min(cost for _, cost in costs) < 2 * min(cost for cost, _ in costs)


def test_an_idle_fleet_is_chosen_from_in_the_same_time_whatever_its_size() -> None:
    small, large = Fleet(60, 10, 0), Fleet(1_000, 10, 0)
    costs = [(small.round()[0], large.round()[0]) for _ in range(TRIES)]
    assert min(cost for _, cost in costs) < 2 * min(cost for cost, _ in costs)


def test_every_figure_of_the_table_is_measured() -> None:
    figure = fleet(10, 5, 20, rounds=1)
    assert (figure.servers, figure.models, figure.waiting) == (10, 5, 20)
    assert figure.decision == figure.submit + figure.release > 0.0
    assert one_request(rounds=1, steps=10) > 0.0
    assert closed_breaker(rounds=1, steps=10) > 0.0
