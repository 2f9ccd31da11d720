"""Each policy prefers what it says it prefers; the weighted one explains itself by its parts."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from fleet.breakers.gate import Gate, GateState
from fleet.common.model_names import canonical
from fleet.config import Config
from fleet.scheduling.choice.balancing import LeastConnections, RoundRobin, Weighted, make_policy
from fleet.scheduling.server_state import ServerState
from tests.fleet.builders import make_board, make_server, make_ticket

M = canonical("m")


def busy(server: ServerState) -> None:
    server.ledger.open(1, canonical("other"))
    server.ledger.open(2, canonical("other"))


def slow(server: ServerState) -> None:
    server.stats_of(M).first_byte.add(20.0)


def failing(server: ServerState) -> None:
    for _ in range(5):
        server.stats_of(M).success.add(0.0)


def cold(server: ServerState) -> None:
    server.resident.clear()


def half_open(server: ServerState) -> None:
    server.gates[M] = Gate(state=GateState.LIMITED, permits=1, limit=1)


def sluggish(server: ServerState) -> None:
    server.stats_of(M).speed.add(1.0)


@pytest.mark.parametrize(
    ("worsen", "part"),
    [
        (busy, "load"),
        (slow, "latency"),
        (failing, "success_rate"),
        (cold, "residency"),
        (half_open, "circuit_breaker"),
        (sluggish, "throughput"),
    ],
)
def test_weighted_part_falls_when_its_fact_worsens(worsen: Callable[[ServerState], None], part: str) -> None:
    policy = Weighted(Config().load_balancer.weights)
    server = make_server("a", "m")
    server.resident = {M: {}}
    before = dict(zip(policy.parts, policy.score(server, M, 0.0), strict=True))
    worsen(server)
    after = dict(zip(policy.parts, policy.score(server, M, 0.0), strict=True))
    assert after[part] < before[part]
    assert sum(after.values()) < sum(before.values())


def test_weighted_prefers_higher_server_priority() -> None:
    policy = Weighted(Config().load_balancer.weights)
    low, high = make_server("a", "m", priority=1), make_server("b", "m", priority=50)
    assert sum(policy.score(high, M, 0.0)) > sum(policy.score(low, M, 0.0))


@pytest.mark.parametrize("name", ["weighted", "least_connections", "fastest_response", "round_robin", "random"])
def test_every_policy_can_be_chosen_by_config_and_scores_finitely(name: str) -> None:
    config = Config.model_validate({"load_balancer": {"policy": name}})
    policy = make_policy(config, random.Random(0))
    parts = policy.score(make_server("a", "m"), M, 0.0)
    assert policy.name == name
    assert len(parts) == len(policy.parts)
    assert all(abs(part) < 1e9 for part in parts)
    assert "-0.0" not in [str(part) for part in parts]


def test_round_robin_takes_turns() -> None:
    servers = [make_server(name, "m", slots=100) for name in "abc"]
    board = make_board(*servers, policy=RoundRobin())
    chosen = []
    for _ in range(9):
        grant = board.submit(make_ticket("m"), 0.0)
        assert grant is not None
        chosen.append(grant.server.id)
    assert sorted(chosen[:3]) == ["a", "b", "c"]
    assert chosen[:3] == chosen[3:6] == chosen[6:]


def test_ties_are_broken_at_random() -> None:
    first = set()
    for seed in range(20):
        board = make_board(*[make_server(name, "m") for name in "abcd"], policy=LeastConnections(), seed=seed)
        grant = board.submit(make_ticket("m"), 0.0)
        assert grant is not None
        first.add(grant.server.id)
    assert len(first) > 1


@pytest.mark.parametrize("name", ["weighted", "least_connections", "fastest_response", "round_robin", "random"])
def test_what_is_held_against_a_server_comes_first_and_is_a_plain_zero_if_nothing_is(name: str) -> None:
    policy = make_policy(Config.model_validate({"load_balancer": {"policy": name}}), random.Random(1))
    server = make_server("a", "m")
    assert policy.parts[0] == "cooling"
    stats = server.stats_of(M)
    assert str(policy.score(server, M, 0.0)[0]) == "0.0"
    stats.cooling.failed(0.0, 0.0)
    assert policy.score(server, M, 0.0)[0] < 0.0
    assert stats.cooling.succeeded(1.0)
    assert str(policy.score(server, M, 0.0)[0]) == "0.0"
