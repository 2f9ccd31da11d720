"""Long answers of the admin API are made a piece at a time: requests go first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.kit.reply import heard
from fleet.breakers.state_machine import BreakerState
from fleet.common.ids import ModelName, Pair
from fleet.security.roles import Identity, Role
from tests.kit.fleets.fleet import Client, Fleet, chat, open_fleet
from web.admin.breakers import breakers
from web.admin.kit.context import AppContext
from web.admin.kit.routes import AdminRequest
from web.admin.requests import in_flight, queue
from web.admin.route_table import TOPICS
from web.admin.servers import bans, servers

SERVERS = [f"s{number}" for number in range(80)]
M = ModelName("m:latest")
Filling = Callable[[Fleet, trio.Nursery], Awaitable[None]]


async def fill_nothing(fleet: Fleet, nursery: trio.Nursery) -> None:
    """The servers are enough."""


async def fill_bans(fleet: Fleet, nursery: trio.Nursery) -> None:
    for server in fleet.system.servers:
        fleet.system.scheduler.bans.add(Pair(server, M), "test", 0.0)


async def fill_breakers(fleet: Fleet, nursery: trio.Nursery) -> None:
    for server in fleet.system.servers:
        fleet.system.breakers.force(Pair(server, M), BreakerState.OPEN, "test")


async def fill_queue(fleet: Fleet, nursery: trio.Nursery) -> None:
    await heard(fleet.system.orders.pause(True))
    await fill_servers(fleet, nursery)


async def fill_servers(fleet: Fleet, nursery: trio.Nursery) -> None:
    for _ in SERVERS:
        nursery.start_soon(fleet.system.exchange, chat(tokens=1000), Client())


@pytest.mark.parametrize(
    ("view", "fill", "query", "entries"),
    [
        (servers.all_servers, fill_nothing, {}, lambda answer: answer.servers),
        (bans.bans, fill_bans, {"type": "all", "limit": 1000}, lambda answer: answer.bans),
        (breakers.all_breakers, fill_breakers, {}, lambda answer: answer.circuit_breakers),
        (queue.queue, fill_queue, {"limit": 1000}, lambda answer: answer.queue.items),
        (in_flight.in_flight, fill_servers, {"limit": 1000}, lambda answer: answer.in_flight),
    ],
    ids=["servers", "bans", "circuit-breakers", "queue", "in-flight"],
)
async def test_requests_go_first_while_a_long_list_is_made(
    view: Callable[[AdminRequest], Awaitable[Any]],
    fill: Filling,
    query: dict[str, Any],
    entries: Callable[[Any], list[Any]],
    autojump_clock: MockClock,
) -> None:
    async with open_fleet(*SERVERS, slots=1) as fleet, trio.open_nursery() as nursery:
        await fill(fleet, nursery)
        await wait_all_tasks_blocked()
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        nursery.start_soon(others)
        await trio.lowlevel.checkpoint()
        before = turns
        answer = await view(AdminRequest(AppContext.of(fleet.system, TOPICS), Identity("me", Role.ADMIN), query))
        assert turns - before >= 2
        assert len(entries(answer)) >= len(SERVERS) * 0.9
        nursery.cancel_scope.cancel()
