"""Averages that count samples while they come, and forget with time when none do."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.common.model_names import canonical
from fleet.config import Config
from fleet.scheduling.choice.balancing import FastestResponse, Weighted, make_policy
from fleet.scheduling.moving_average import FRESH, PACE_HALF_LIFE, SUCCESS_HALF_LIFE, Ewma, PairStats
from fleet.scheduling.server_state import ServerState
from tests.fleet.builders import make_board, make_server, make_ticket

M = canonical("m")
SAMPLES = st.lists(st.floats(0.01, 100.0), min_size=1, max_size=20)


def old_ewma(samples: list[float], alpha: float) -> float:
    value = samples[0]
    for sample in samples[1:]:
        value += alpha * (sample - value)
    return value


@given(SAMPLES, st.floats(0.0, FRESH))
def test_while_samples_come_it_is_the_average_that_counts_them(samples: list[float], gap: float) -> None:
    for average in (PairStats.fresh().first_byte, PairStats.fresh().speed):
        for n, sample in enumerate(samples):
            average.add(sample, n * gap)
        assert average.value == pytest.approx(old_ewma(samples, 0.2))
        assert average.towards(0.0, (len(samples) - 1) * gap + 0.99 * FRESH) == average.value


def test_without_a_half_life_time_means_nothing() -> None:
    average = Ewma()
    average.add(3.0)
    average.add(8.0)
    assert average.value == 4.0
    assert average.towards(0.0, 1e9) == 4.0


@pytest.mark.parametrize(("after", "left"), [(0.0, 1.0), (SUCCESS_HALF_LIFE, 0.5), (10 * SUCCESS_HALF_LIFE, 2**-10)])
def test_failures_are_forgotten_by_halves(after: float, left: float) -> None:
    success = PairStats.fresh().success
    success.add(0.0, 5.0)
    assert success.towards(1.0, 5.0 + after) == pytest.approx(1.0 - left)


def test_one_failure_after_a_long_rest_is_one_failure() -> None:
    success = PairStats.fresh().success
    for n in range(50):
        success.add(0.0, float(n))
    success.add(0.0, 1000.0)
    assert success.value == pytest.approx(0.9)


def test_what_comes_after_a_long_rest_is_believed_as_the_first_sample_is() -> None:
    pace = PairStats.fresh().first_byte
    pace.add(20.0, 0.0)
    pace.add(1.0, 20 * PACE_HALF_LIFE)
    assert pace.value == pytest.approx(1.0, abs=1e-4)


@given(SAMPLES, st.floats(0.0, 1e6))
def test_what_is_read_lies_between_what_was_seen_and_what_is_typical(samples: list[float], later: float) -> None:
    average = PairStats.fresh().speed
    for sample in samples:
        average.add(sample, 0.0)
    assert average.value is not None
    low, high = sorted((average.value, 50.0))
    assert low - 1e-9 <= average.towards(50.0, later) <= high + 1e-9


def failed(server: ServerState, times: int) -> None:
    for _ in range(times):
        server.stats_of(M).success.add(0.0, 0.0)
        server.stats_of(M).cooling.failed(0.0, 0.0)
    server.stats_of(M).cooling.rested()


def first_choice(now: float, policy: str) -> str:
    """Two equal servers; one has failed at time 0 and got nothing since, the other works, and is half in use."""
    bad, good = make_server("bad", "m"), make_server("good", "m")
    for each in (bad, good):
        each.stats_of(M).success.add(1.0, 0.0)
        each.resident = {M: {}}
    failed(bad, 5)
    good.stats_of(M).success.add(1.0, now)
    for number in range(int(good.ledger.capacity) // 2):
        good.ledger.open(999 + number, M)
    config = Config.model_validate({"load_balancer": {"policy": policy}})
    grant = make_board(bad, good, policy=make_policy(config, random.Random(1))).submit(make_ticket("m"), now)
    assert grant is not None
    return grant.server.id


@pytest.mark.parametrize("policy", ["weighted", "least_connections"])
def test_after_one_kill_a_server_got_0_of_109_requests(policy: str) -> None:
    assert first_choice(0.0, policy) == "good" or policy == "least_connections"
    assert first_choice(2 * SUCCESS_HALF_LIFE, policy) == "bad"


def test_a_server_that_was_slow_an_hour_ago_is_as_good_as_new() -> None:
    weighted, quickest = Weighted(Config().load_balancer.weights), FastestResponse()
    server = make_server("a", "m")
    unknown = weighted.score(server, M, 0.0), quickest.score(server, M, 0.0)
    stats = server.stats_of(M)
    stats.first_byte.add(30.0, 0.0)
    stats.speed.add(2.0, 0.0)
    stats.success.add(1.0, 0.0)
    assert sum(weighted.score(server, M, 0.0)) < sum(unknown[0]) - 0.1
    hour = weighted.score(server, M, 3600.0), quickest.score(server, M, 3600.0)
    assert hour[0] == pytest.approx(unknown[0], abs=0.01)
    assert hour[1] == pytest.approx(unknown[1], abs=0.01)
