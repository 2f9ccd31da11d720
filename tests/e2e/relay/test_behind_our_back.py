"""What was pulled on a server without us is there for every kind of client, on both lanes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio

from fleet.common.ids import ServerId
from fleet.simulator.files import model_file
from tests.kit.clients.lanes import both_lanes
from tests.kit.fleets.served import QUICK, Served, served

pytestmark = both_lanes

NEW = "brand-new:1b"
TURN = [{"role": "user", "content": "Hi"}]
RARE = {"interval": 1000.0, "jitter": 0.0}
ASKED: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/api/chat", {"messages": TURN, "stream": False}),
    ("POST", "/api/generate", {"prompt": "Hi", "stream": False}),
    ("POST", "/api/show", {}),
    ("POST", "/v1/chat/completions", {"messages": TURN}),
    ("POST", "/v1/completions", {"prompt": "Hi"}),
    ("POST", "/v1/responses", {"input": "Hi"}),
    ("POST", "/v1/messages", {"messages": TURN, "max_tokens": 5}),
    ("GET", f"/v1/models/{NEW}", {}),
    ("POST", "/api/copy", {"source": NEW, "destination": "other"}),
    ("DELETE", "/api/delete", {}),
]


def age(fleet: Served) -> None:
    """As if the last probes were some seconds old."""
    for cell in fleet.system.servers.values():
        cell.looked -= 5.0


@pytest.mark.parametrize(("method", "path", "body"), ASKED, ids=[path for _, path, _ in ASKED])
async def test_a_model_that_came_behind_our_back_is_there_for_every_route(
    method: str, path: str, body: dict[str, Any]
) -> None:
    async with served("a", "b", health=RARE) as fleet, fleet.client() as client:
        fleet.sims["b"].host.server.shelf.put(model_file(NEW, 10**9))
        age(fleet)
        answer = await client.request(method, path, json={"model": NEW, **body})
        assert answer.status_code == 200, answer.text
        await fleet.until_idle()


async def test_what_nobody_has_is_still_unknown_in_the_words_of_its_dialect() -> None:
    async with served("a", "b", health=RARE) as fleet, fleet.client() as client:
        age(fleet)
        answer = await client.post("/api/show", json={"model": "nope"})
        assert answer.status_code == 404
        assert "model 'nope:latest' not found" in answer.text
        answer = await client.post("/v1/chat/completions", json={"model": "nope", "messages": TURN})
        assert answer.json()["error"]["message"] == "model 'nope' not found"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"messages": TURN, "stream": False}),
        ("/api/chat", {"messages": TURN}),
        ("/api/generate", {"prompt": "Hi"}),
        ("/api/embed", {"input": "Hi"}),
    ],
)
async def test_a_model_that_a_request_unloads_is_not_shown_as_loaded_any_more(path: str, body: dict[str, Any]) -> None:
    """The last look at what is loaded is old, and the next one far."""
    async with served("a", health=RARE) as fleet, fleet.client() as client:
        await client.post("/api/chat", json={"model": "llama3:8b", "messages": TURN, "stream": False})
        await fleet.system.probe(ServerId("a"), 5.0)
        assert [row["name"] for row in (await client.get("/api/ps")).json()["models"]] == ["llama3:8b"]
        answer = await client.post(path, json={"model": "llama3:8b", "keep_alive": 0, **body})
        assert answer.status_code == 200
        assert (await client.get("/api/ps")).json() == {"models": []}
        await fleet.until_idle()


async def test_a_model_that_others_use_is_still_shown_as_loaded() -> None:
    slow = replace(QUICK, tokens_per_second=4.0)
    async with served("a", profile=slow, health=RARE) as fleet, fleet.client() as client:
        await client.post("/api/generate", json={"model": "llama3:8b", "prompt": ""})
        await fleet.system.probe(ServerId("a"), 5.0)
        long: dict[str, Any] = {"model": "llama3:8b", "messages": TURN, "options": {"num_predict": 100_000}}
        short = {**long, "options": {"num_predict": 1}, "keep_alive": 0, "stream": False}
        async with client.stream("POST", "/api/chat", json=long) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            assert (await client.post("/api/chat", json=short)).status_code == 200
            assert len((await client.get("/api/ps")).json()["models"]) == 1
        await fleet.until_idle()


async def test_a_model_that_a_request_has_loaded_is_shown_soon() -> None:
    async with served("a", health=RARE) as fleet, fleet.client() as client:
        age(fleet)
        await client.post("/api/chat", json={"model": "llama3:8b", "messages": TURN, "stream": False})
        with trio.fail_after(10.0):
            while not (await client.get("/api/ps")).json()["models"]:
                await trio.sleep(0.01)
        await fleet.until_idle()


async def test_what_no_probe_ever_shows_as_loaded_is_looked_for_once() -> None:
    """A server that unloads at once, or never says what is loaded, is not probed at every request."""
    async with served("a", health=RARE) as fleet, fleet.client() as client:
        rounds = fleet.system.servers[ServerId("a")].rounds
        for _ in range(20):
            asked = {"model": "llama3:8b", "messages": TURN, "stream": False, "keep_alive": 0}
            assert (await client.post("/api/chat", json=asked)).status_code == 200
            assert (await client.post("/api/show", json={"model": "llama3:8b"})).status_code == 200
        await fleet.system.probe(ServerId("a"), 5.0)
        assert fleet.system.servers[ServerId("a")].rounds <= rounds + 2
        await fleet.until_idle()


async def test_the_version_follows_a_restart_that_nobody_has_seen() -> None:
    async with served("a", health=RARE) as fleet, fleet.client() as client:
        before = (await client.get("/api/version")).json()["version"]
        server = fleet.sims["a"].host.server
        server.profile = replace(server.profile, version="9.9.9")
        await fleet.system.probe(ServerId("a"), 5.0)
        assert (await client.get("/api/version")).json()["version"] == "9.9.9" != before
