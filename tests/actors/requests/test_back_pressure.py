"""A server that has enough to do gets its requests later, and nobody is blamed."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fleet.simulator import Profile
from tests.kit.fleets.fleet import Client, Fleet, chat, error_of, open_fleet
from tests.kit.suite.records import recent

NARROW = Profile(load_seconds=2.0, slots=4, tokens_per_second=50.0, max_queue=2)
POLICIES = ["weighted", "round_robin", "least_connections", "expected_completion"]
FULL = "status:503:maximum pending requests exceeded"


def policy(name: str) -> dict[str, Any]:
    return {"load_balancer": {"policy": name}}


def asked(fleet: Fleet, server: str = "a") -> int:
    return len(fleet[server].host.seen("/api/chat"))


def assert_nobody_blamed(fleet: Fleet) -> None:
    assert fleet.system.breakers.describe() == []
    assert len(fleet.system.scheduler.bans) == 0
    for cell in fleet.system.servers.values():
        assert not any(stats.cooling.strikes for stats in cell.state.stats.values())
    fleet.assert_nothing_left()


@pytest.mark.parametrize("name", POLICIES)
async def test_backend_has_enough_to_do(autojump_clock: MockClock, name: str) -> None:
    """Sixteen at once on a cold server whose own line takes two: all are answered, in the order in which they came."""
    async with open_fleet(("a", NARROW), slots=8, **policy(name)) as fleet:
        clients = [Client() for _ in range(16)]
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(fleet.system.exchange, chat(), client)
                await trio.sleep(0.001)
        assert [client.complete for client in clients] == [True] * 16
        records = recent(fleet.system.statistics.request_log)
        refused = any(len(record.tries) > 1 for record in records)
        assert refused or name == "expected_completion", "who learns how many it takes sends no more than those"
        assert all(record.attempts == 1 for record in records)
        assert all(client.headers["x-fleet-attempts"] == "1" for client in clients)
        assert_nobody_blamed(fleet)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("fault", [FULL, "status:429:slow down"])
async def test_a_server_that_is_full_for_long_is_asked_ever_more_rarely_and_the_queues_time_out_holds(
    autojump_clock: MockClock, name: str, fault: str
) -> None:
    async with open_fleet("a", timeouts={"queue": 60.0}, **policy(name)) as fleet:
        fleet["a"].host.faults.set(fault)
        began = trio.current_time()
        assert await error_of(fleet, chat()) == "QueueTimeout"
        assert 59.9 <= trio.current_time() - began <= 61.0
        assert 10 <= asked(fleet) <= 25
        fleet["a"].host.faults.clear()
        await fleet.system.exchange(chat(), client := Client())
        assert client.complete
        assert_nobody_blamed(fleet)


async def test_who_comes_back_keeps_the_place_that_he_had(autojump_clock: MockClock) -> None:
    async with open_fleet("a", slots=1) as fleet:
        fleet["a"].host.faults.set(FULL)
        order: list[int] = []

        async def one(number: int) -> None:
            await fleet.system.exchange(chat(), client := Client())
            assert client.complete
            order.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(one, number)
                await trio.sleep(0.1)
            await trio.sleep(5.0)
            fleet["a"].host.faults.clear()
        assert order == [0, 1, 2, 3]
        assert_nobody_blamed(fleet)


async def test_a_full_server_is_left_for_another_and_that_costs_no_retry(autojump_clock: MockClock) -> None:
    retry = {"budget_ratio": 0.0, "budget_floor": 0.0, "max_attempts": 1}
    async with open_fleet("a", "b", retry=retry, **policy("round_robin")) as fleet:
        fleet["a"].host.faults.set(FULL)
        for _ in range(20):
            await fleet.system.exchange(chat(), client := Client())
            assert (client.status, client.headers["x-fleet-server"]) == (200, "b")
        assert 1 <= asked(fleet) <= 20
        assert_nobody_blamed(fleet)


async def test_who_insists_on_a_full_server_waits_for_it(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        fleet["a"].host.faults.set(FULL)
        client = Client()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fleet.system.exchange, chat(pinned="a"), client)
            await trio.sleep(10.0)
            assert asked(fleet) <= 8
            fleet["a"].host.faults.clear()
        assert (client.complete, client.headers["x-fleet-server"]) == (True, "a")
        assert_nobody_blamed(fleet)


async def test_a_client_that_leaves_while_its_server_is_full_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        fleet["a"].host.faults.set(FULL)
        with trio.move_on_after(3.0):
            await fleet.system.exchange(chat(), Client())
        await wait_all_tasks_blocked()
        assert recent(fleet.system.statistics.request_log)[-1].outcome == "client_left"
        assert_nobody_blamed(fleet)
