"""`max_concurrency: auto`: a runner gets at once what it was seen to serve, whatever the policy. Virtual time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from fleet.common.ids import ModelName, ServerId
from tests.actors.config.test_reconfigure import change
from tests.kit.fleets.fleet import QUICK, Client, Fleet, chat, open_fleet

M = ModelName("m:latest")
POLICIES = ["weighted", "least_connections", "fastest_response", "round_robin", "expected_completion"]


def policy(name: str) -> dict[str, Any]:
    return {"load_balancer": {"policy": name}, "timeouts": {"queue": 600.0}}


async def crowd(fleet: Fleet, many: int, tokens: int = 200) -> None:
    """So many at once, all answered."""
    clients = [Client() for _ in range(many)]
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(fleet.system.exchange, chat(tokens=tokens), client)
    assert all(client.complete for client in clients)


def learned(fleet: Fleet, server: str = "a") -> dict[ModelName, int]:
    system = fleet.system
    return system.scheduler.expectations.learned_slots(system.cell(ServerId(server)).state)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("slots", [1, 2, 4])
async def test_how_many_a_runner_serves_at_once_is_learned_and_kept_to(
    autojump_clock: MockClock, name: str, slots: int
) -> None:
    backend = replace(QUICK, slots=slots, jitter=0.0, tokens_per_second=50.0)
    async with open_fleet(("a", backend), slots="auto", **policy(name)) as fleet:
        await fleet.system.exchange(chat(tokens=5), Client())
        await fleet.system.probe(ServerId("a"), 10.0)
        for _ in range(3):
            await crowd(fleet, 3 * slots + 2)
        assert learned(fleet) == {M: slots}
        state = fleet.system.cell(ServerId("a")).state
        assert slots <= state.capacity <= slots + 1, "one more as a probe at the most"
        fleet.assert_nothing_left()


async def test_before_anything_is_known_a_runner_gets_two(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", replace(QUICK, slots=8, load_seconds=20.0)), slots="auto") as fleet:
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(fleet.system.exchange, chat(tokens=5), Client())
            await trio.sleep(10.0)
            assert fleet.system.cell(ServerId("a")).state.in_use == 2
        fleet.assert_nothing_left()


async def test_a_number_may_become_auto_and_a_number_again_while_requests_run(autojump_clock: MockClock) -> None:
    async with open_fleet(("a", replace(QUICK, slots=1, jitter=0.0, tokens_per_second=50.0)), slots=8) as fleet:
        state = fleet.system.cell(ServerId("a")).state
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crowd, fleet, 12)
            await trio.sleep(1.0)
            assert state.in_use == 8
            spec = state.spec
            fleet.system.change_server(spec.model_copy(update={"max_concurrency": "auto"}))
        await crowd(fleet, 6)
        assert learned(fleet) == {M: 1}
        fleet.system.change_server(spec.model_copy(update={"max_concurrency": 3}))
        assert state.capacity == 3
        await crowd(fleet, 6)
        fleet.assert_nothing_left()


async def test_another_policy_goes_on_with_what_was_learned(autojump_clock: MockClock) -> None:
    backend = replace(QUICK, slots=4, jitter=0.0, tokens_per_second=50.0)
    async with open_fleet(("a", backend), slots="auto", **policy("weighted")) as fleet:
        await crowd(fleet, 20)
        await crowd(fleet, 20)
        assert learned(fleet) == {M: 4}
        change(fleet, **policy("expected_completion"))
        await crowd(fleet, 20)
        assert learned(fleet) == {M: 4}
        fleet.assert_nothing_left()
