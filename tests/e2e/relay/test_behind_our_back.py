"""What was pulled on a server without us is there for every kind of client, on both lanes."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.simulator.files import model_file
from tests.kit.clients.lanes import both_lanes
from tests.kit.fleets.served import Served, served

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
