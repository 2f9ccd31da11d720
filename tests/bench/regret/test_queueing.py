"""The simulated server against queueing theory, where theory knows the answer.

Means of waits converge slowly (their variance goes with (1-rho)^-4), so this takes two steps: request by request, the
whole referee waits exactly as long as the recursion of Kiefer and Wolfowitz says on the same arrivals; and that
recursion, over 300,000 requests, meets the formulas within 5 % where they are exact (M/M/k, and M/G/1 with
C^2 = 4), and within 10 % for M/G/2 with C^2 = 4, where Allen and Cunneen's approximation is itself some 5 % high.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator

import pytest

from bench.regret.routers.rivals import RIVALS, Rival
from bench.regret.traffic import Traffic
from bench.regret.world import Server, Setup, World
from fleet.simulator import Profile, model_file
from fleet.simulator.work import LOOKUP

MEAN = 50.0
CHAT = model_file("chat:8b", 10**9)
pytestmark = pytest.mark.slow


def arrivals(traffic: Traffic, slots: int, load: float, scv: float) -> Iterator[tuple[float, float]]:
    """When each comes, and for how long it keeps a slot."""
    now = 0.0
    while True:
        now += traffic.dice.expovariate(load * slots / MEAN)
        yield now, traffic.varied(MEAN, scv)


def waits(comers: Iterator[tuple[float, float]], slots: int) -> Iterator[float]:
    """First come, first served, on so many slots (Kiefer and Wolfowitz 1955)."""
    free = [0.0] * slots
    for at, service in comers:
        wait = max(0.0, free[0] - at)
        heapq.heapreplace(free, at + wait + service)
        yield wait


def erlang_c(slots: int, load: float) -> float:
    """The share of those who wait at all, in M/M/k."""
    offered = load * slots
    full = offered**slots / math.factorial(slots) / (1.0 - load)
    return full / (sum(offered**n / math.factorial(n) for n in range(slots)) + full)


def allen_cunneen(slots: int, load: float, scv: float) -> float:
    """Mean wait in M/G/k: exact for one slot and for exponential service, an approximation else."""
    return erlang_c(slots, load) * MEAN / (slots * (1.0 - load)) * (1.0 + scv) / 2.0


@pytest.mark.parametrize(
    ("slots", "load", "scv", "within"),
    [(1, 0.7, 1.0, 0.05), (4, 0.7, 1.0, 0.05), (1, 0.5, 4.0, 0.05), (2, 0.8, 4.0, 0.1)],
)
def test_the_recursion_meets_erlang_c_and_allen_cunneen(slots: int, load: float, scv: float, within: float) -> None:
    many = 300_000
    comers = arrivals(Traffic(f"{slots} {load} {scv}"), slots, load, scv)
    mean = sum(wait for _, wait in zip(range(many), waits(comers, slots), strict=False)) / many
    assert mean == pytest.approx(allen_cunneen(slots, load, scv), rel=within)


@pytest.mark.parametrize(("slots", "load", "scv"), [(1, 0.7, 1.0), (4, 0.9, 1.0), (3, 0.8, 4.0)])
def test_the_referee_waits_as_the_recursion_says_request_by_request(slots: int, load: float, scv: float) -> None:
    traffic = Traffic(f"{slots} {load} {scv}")
    profile = Profile(slots=slots, tokens_per_second=2.0, prefill_per_second=1e12, jitter=0.0)
    comers, talks = [], []
    for _, (at, seconds) in zip(range(1500), arrivals(traffic, slots, load, scv), strict=False):
        demand = traffic.demand(CHAT.name, 8, seconds * 2.0)
        comers.append((at, demand.tokens / 2.0 + LOOKUP))
        talks.append(traffic.single(at, demand))
    world = World(Setup((Server("s", profile, (CHAT,), warm=(CHAT.name,)),), tuple(talks)))
    outcome = world.run(Rival("random", RIVALS["plain_random"], [each.known for each in world.setup.servers], 0))
    seen = [each.first - each.arrived - LOOKUP for each in outcome.requests if each.first is not None]
    assert seen == pytest.approx(list(waits(iter(comers), slots)), abs=1e-6)


def test_unequal_sizes_are_as_varied_as_they_say() -> None:
    traffic = Traffic("sizes")
    for scv in (1.0, 4.0):
        sizes = [traffic.varied(10.0, scv) for _ in range(200_000)]
        mean = sum(sizes) / len(sizes)
        assert mean == pytest.approx(10.0, rel=0.02)
        assert sum((each - mean) ** 2 for each in sizes) / len(sizes) / mean**2 == pytest.approx(scv, rel=0.05)
