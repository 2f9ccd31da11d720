"""How many clients the edge serves at one time, and what it tells the others."""

from __future__ import annotations

import json

import trio

from tests.web.edge.raw import Served
from tests.web.fake_system import FakeSystem, fleet


async def until_there_is_room(server: Served) -> None:
    with trio.fail_after(20):
        while (await (await server.connect()).ask("GET", "/")).status == 503:
            await trio.lowlevel.checkpoint()


async def test_clients_over_the_limit_are_refused_with_503_and_room_that_is_made_is_used() -> None:
    async with fleet(FakeSystem(limits={"connections": 2})) as server:
        first, second = await server.connect(), await server.connect()
        for wire in (first, second):
            assert (await wire.ask("GET", "/")).status == 200
        refused = await (await server.connect()).ask("POST", "/api/chat", b"{}")
        assert (refused.status, refused["retry-after"], len(refused["x-request-id"])) == (503, "1", 16)
        assert (refused["x-fleet-error"], refused["connection"]) == ("TOO_MANY_CONNECTIONS", "close")
        assert "date" in refused
        assert isinstance(json.loads(refused.body)["error"], str)
        assert (await first.ask("POST", "/api/chat", b"{}")).status == 200, "those inside are not concerned"
        await second.stream.aclose()
        await until_there_is_room(server)


async def test_a_refused_client_gets_its_answer_although_it_has_not_asked_yet() -> None:
    async with fleet(FakeSystem(limits={"connections": 1})) as server:
        assert (await (await server.connect()).ask("GET", "/")).status == 200
        assert (await (await server.connect()).answer()).status == 503
