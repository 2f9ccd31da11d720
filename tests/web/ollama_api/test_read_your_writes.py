"""Who changed a model is told so only when the fleet knows it: the next request sees the change."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing

from fleet.common.ids import ModelName, ServerId
from fleet.protocol.call import Call, Downstream
from tests.kit.clients.lanes import both_lanes
from tests.kit.fleets.fleet import Client, chat
from tests.kit.fleets.served import Served, served
from tests.web.edge.raw import Wire
from tests.web.fake_system import FakeSystem, fleet
from web.ollama_api.read_your_writes import LastHeld, held

pytestmark = both_lanes

SUCCESS = b'{"status":"success"}\n'
NEVER = {"interval": 3600}
"""Nobody probes unless asked."""


async def names(wire: Wire) -> list[str]:
    answer = await wire.ask("GET", "/api/tags")
    return sorted(row["name"] for row in json.loads(answer.body)["models"])


async def create(call: Call, down: Downstream) -> None:
    """A stream as a server writes it."""
    await down.start(200, [(b"content-type", b"application/x-ndjson")])
    for line in (b'{"status":"pulling manifest"}\n', b'{"status":"writing manifest"}\n', SUCCESS):
        await down.write(line)
    await down.finish()


CHANGES = [
    ("POST", "/api/pull", b'{"model":"new"}'),
    ("POST", "/api/pull", b'{"model":"m"}'),
    ("POST", "/api/pull", b'{"model":"m","stream":false}'),
    ("POST", "/api/create", b'{"model":"new","from":"m"}'),
    ("POST", "/api/copy", b'{"source":"m","destination":"new"}'),
    ("DELETE", "/api/delete", b'{"model":"m"}'),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
async def test_a_change_was_confirmed_before_the_fleet_had_seen_it(method: str, path: str, body: bytes) -> None:
    """Here the servers' inventories change in the moment of their next probe."""
    system = FakeSystem()
    system.answering = create
    for client in system.clients.values():
        client.records = [{"status": "success"}]

    def change(server: ServerId) -> None:
        system.servers[server].state.models = {ModelName("seen:latest"): {"name": "seen:latest"}}

    system.on_probe = change
    async with fleet(system) as server:
        wire = await server.connect()
        assert (await wire.ask(method, path, body)).status == 200
        assert "seen:latest" in await names(wire)


async def in_turn(here: Served) -> None:
    """Every change, and right after it what the next request must find."""
    asked = {"model": "new", "from": "tiny"}
    async with here.client() as client:

        async def tags() -> set[str]:
            return {row["name"].partition(":")[0] for row in (await client.get("/api/tags")).json()["models"]}

        async def change(method: str, path: str, body: dict[str, Any]) -> set[str]:
            answer = await client.request(method, path, json=body)
            assert answer.status_code == 200, answer.text
            return await tags()

        assert "pulled" in await change("POST", "/api/pull", {"model": "pulled"})
        assert (await client.post("/api/show", json={"model": "pulled"})).status_code == 200
        assert "new" in await change("POST", "/api/create", asked)
        assert "copied" in await change("POST", "/api/copy", {"source": "tiny", "destination": "copied"})
        assert "new" not in await change("DELETE", "/api/delete", {"model": "new"})
        assert (await client.post("/api/show", json={"model": "new"})).status_code == 404


async def test_the_next_request_still_saw_the_old_inventory() -> None:
    async with served("a", "b", health=NEVER) as here:
        with trio.fail_after(60):
            await in_turn(here)


async def test_progress_goes_out_at_once_and_success_waits() -> None:
    client, probed = Client(), trio.Event()
    down = LastHeld(client, probed.wait)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(create, chat(), down)
        await trio.testing.wait_all_tasks_blocked()
        assert client.body.splitlines() == [b'{"status":"pulling manifest"}', b'{"status":"writing manifest"}']
        assert not client.finished
        probed.set()
    assert client.body.endswith(SUCCESS)
    assert client.finished


PIECES = [
    # what the server sends, what has left before the end
    ([b'{"status":"a"}\n{"sta', b'tus":"succ', b'ess"}\n'], b'{"status":"a"}\n'),
    ([b'{"status":"success"}\n{"more":1}\n'], b""),
    ([b'{"status":"success"}'], b""),
    ([b'{"error":"no"}\n'], b'{"error":"no"}\n'),
    ([b"x" * 70_000], b"x" * 70_000),
]


@pytest.mark.parametrize(("pieces", "early"), PIECES)
async def test_however_the_last_line_is_cut_it_waits(pieces: list[bytes], early: bytes) -> None:
    client = Client()

    async def ready() -> None:
        assert client.body == early

    down = LastHeld(client, ready)
    for piece in pieces:
        await down.write(piece)
    await down.finish()
    assert client.body == b"".join(pieces)


async def test_a_cut_answer_is_cut_and_fresh_inventories_are_asked_for() -> None:
    client, system = Client(), FakeSystem()
    with held(system.handle, [ServerId("a")], client) as down:
        await down.write(b'{"status":"pul')
        down.cut()
    assert (client.aborted, client.finished) == (True, False)
    assert (system.probed, system.refreshed) == ([], ["a"])


async def test_a_server_that_was_removed_meanwhile_is_not_probed() -> None:
    system = FakeSystem()
    with held(system.handle, [ServerId("gone"), ServerId("b")], Client()) as down:
        await down.finish()
    assert system.probed == ["b"]
