"""A server that was down is back: how long until it is used again, and what probes of a dead one cost."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fleet.breakers.gate import GateState
from fleet.common.errors import BackendError
from fleet.common.ids import ModelName
from fleet.scheduling.server_state import Health
from tests.kit.fleets.fleet import Client, Fleet, chat, error_of, open_fleet

M = ModelName("m:latest")


async def until(fleet: Fleet, server: str, health: Health) -> None:
    while fleet.cell(server).state.health is not health:
        await trio.sleep(0.01)


async def down_for(fleet: Fleet, seconds: float, server: str = "a") -> None:
    fleet[server].kill()
    await until(fleet, server, Health.UNHEALTHY)
    await trio.sleep(seconds)


async def test_a_server_back_after_23_s_was_used_again_31_s_later(autojump_clock: MockClock) -> None:
    """Its clients are refused at once and come back every other second."""
    async with open_fleet("a") as fleet, trio.open_nursery() as nursery:
        served: list[float] = []

        async def keep_asking() -> None:
            while not served:
                if await error_of(fleet, chat(), client := Client()) == "" and client.complete:
                    served.append(trio.current_time())
                await trio.sleep(2.0)

        await down_for(fleet, 60.0)
        nursery.start_soon(keep_asking)
        await trio.sleep(23.0)
        fleet["a"].restart()
        back = trio.current_time()
        while not served:
            await trio.sleep(0.1)
        assert served[0] - back < 7.0, "a probe within two seconds, the next request of the client, a load of two"


async def test_clients_that_wait_in_line_have_a_dead_server_looked_at_though_another_serves(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet("a", "b", slots=1) as fleet, trio.open_nursery() as nursery:
        await down_for(fleet, 130.0)
        for _ in range(3):
            nursery.start_soon(fleet.system.exchange, chat(tokens=3000), Client())
        await trio.sleep(5.0)
        fleet["a"].restart()
        back = trio.current_time()
        await until(fleet, "a", Health.HEALTHY)
        assert trio.current_time() - back < 2.0
        nursery.cancel_scope.cancel()


async def test_a_dead_server_that_nobody_misses_is_asked_once_a_minute(autojump_clock: MockClock) -> None:
    async with open_fleet("a", "b") as fleet:
        await down_for(fleet, 130.0)
        rounds = fleet.cell("a").rounds
        for _ in range(60):
            await fleet.system.exchange(chat(), Client())
            await trio.sleep(10.0)
        assert fleet.cell("a").rounds - rounds <= 14


async def test_a_dead_server_that_is_missed_is_asked_about_every_other_second_and_no_more(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet("a") as fleet:
        await down_for(fleet, 130.0)
        rounds = fleet.cell("a").rounds
        for _ in range(60):
            assert await error_of(fleet, chat()) == "NoServer"
            await trio.sleep(1.0)
        assert 30 <= fleet.cell("a").rounds - rounds <= 55
        await trio.sleep(30.0)
        rounds = fleet.cell("a").rounds
        await trio.sleep(120.0)
        assert fleet.cell("a").rounds - rounds <= 4, "the client has given up"


@pytest.mark.parametrize("policy", ["weighted", "least_connections", "round_robin", "random"])
async def test_a_server_that_was_killed_and_is_warm_again_got_0_of_109_requests(
    autojump_clock: MockClock, policy: str
) -> None:
    """Three clients ask one after the other all the time; the dead server fails them until probes tell that it is.

    Not for `fastest_response`, by which the faster of two gets all that it has slots for.
    """
    async with open_fleet("a", "b", load_balancer={"policy": policy}) as fleet, trio.open_nursery() as nursery:
        served: list[str] = []

        async def keep_asking() -> None:
            while True:
                await fleet.system.exchange(chat(), client := Client())
                served.append(client.headers["x-fleet-server"])
                await trio.sleep(0.05)

        for server in "ab":
            await fleet.system.exchange(chat(pinned=server), Client())
        for _ in range(3):
            nursery.start_soon(keep_asking)
        await trio.sleep(5.0)
        dead = max("ab", key=served.count)
        fleet[dead].kill()
        await trio.sleep(3.0)
        fleet[dead].restart()
        await fleet.cell(dead).client.load("m", embedding=False, options={}, keep_alive=-1, timeout=60.0)
        await until(fleet, dead, Health.HEALTHY)
        await trio.sleep(20.0)
        served.clear()
        await trio.sleep(20.0)
        assert served.count(dead) >= len(served) / 5
        nursery.cancel_scope.cancel()


async def test_a_server_that_is_back_stayed_shut_for_what_it_failed_at_as_it_went_down(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet("a", "b", circuit_breaker={"adaptive": False}) as fleet:
        fleet["a"].kill()
        for _ in range(3):
            assert await error_of(fleet, chat(pinned="a")) == "BackendUnreachable"
        await until(fleet, "a", Health.UNHEALTHY)
        assert fleet.cell("a").state.gate_state(M) is GateState.SHUT
        fleet["a"].restart()
        await until(fleet, "a", Health.HEALTHY)
        await wait_all_tasks_blocked()
        assert fleet.cell("a").state.gate_state(M) is GateState.LIMITED


async def control_call(fleet: Fleet) -> None:
    await fleet.cell("a").client.unload("m")


async def management_call(fleet: Fleet) -> None:
    await fleet.system.relay_to(fleet.cell("a").state.id, chat(), Client())


@pytest.mark.parametrize("call", [control_call, management_call])
async def test_a_connection_that_is_made_for_whatever_purpose_has_the_server_looked_at_at_once(
    autojump_clock: MockClock, call: Callable[[Fleet], Awaitable[None]]
) -> None:
    async with open_fleet("a", "b") as fleet:
        await down_for(fleet, 130.0)
        fleet["a"].restart()
        back = trio.current_time()
        await call(fleet)
        await until(fleet, "a", Health.HEALTHY)
        assert trio.current_time() - back < 3.0, "the call itself loads the model"


async def test_a_server_that_takes_connections_and_answers_no_probe_is_not_asked_without_end(
    autojump_clock: MockClock,
) -> None:
    async with open_fleet("a", "b") as fleet:
        fleet["a"].host.faults.set("status:500:broken,paths=/api/tags")
        await until(fleet, "a", Health.UNHEALTHY)
        await trio.sleep(130.0)
        rounds = fleet.cell("a").rounds
        for _ in range(10):
            fleet["a"].host.reset_connections()
            with contextlib.suppress(BackendError):
                await control_call(fleet)
            await trio.sleep(1.0)
        assert fleet.cell("a").rounds - rounds <= 11
