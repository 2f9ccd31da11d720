"""What is answered without any server: pages, redirects, methods, inventories."""

from __future__ import annotations

import json

import pytest

from fleet.scheduling.server_state import Health
from tests.kit.clients.lanes import both_lanes
from tests.web.fake_system import FakeSystem, fleet

pytestmark = both_lanes

PAGES = [
    # method, path, status, body, other fields
    ("GET", "/", 200, "Ollama is running", {"content-type": "text/plain; charset=utf-8"}),
    ("HEAD", "/", 200, "", {"content-length": "17"}),
    ("HEAD", "/api/version", 200, "", {}),
    ("HEAD", "/api/tags", 200, "", {}),
    ("GET", "/api/version", 200, '{"version":"0.33.0"}', {"content-type": "application/json; charset=utf-8"}),
    ("GET", "/api/status", 200, '{"cloud":{"disabled":true,"source":"env"}}', {}),
    ("GET", "/api/ps", 200, '{"models":[]}', {}),
    ("HEAD", "/api/ps", 405, "", {"allow": "GET"}),
    ("HEAD", "/v1/models", 405, "", {"allow": "GET"}),
    ("GET", "/nope", 404, "404 page not found", {"content-type": "text/plain"}),
    ("GET", "/API/tags", 404, "404 page not found", {}),
    ("GET", "//api/tags", 301, "", {"location": "/api/tags"}),
    ("HEAD", "//api/tags", 301, "", {"location": "/api/tags"}),
    ("POST", "//api/chat", 307, "", {"location": "/api/chat"}),
    ("POST", "/api//chat?x=%2F&y", 307, "", {"location": "/api/chat?x=%2F&y"}),
    ("GET", "/./api/tags", 301, "", {"location": "/api/tags"}),
    ("GET", "/api/../api/tags", 301, "", {"location": "/api/tags"}),
    ("DELETE", "/api/./delete", 307, "", {"location": "/api/delete"}),
    ("POST", "//v1/chat/completions", 307, "", {"location": "/v1/chat/completions"}),
    ("GET", "//", 301, "", {"location": "/"}),
    ("GET", "//nope", 301, "", {"location": "/nope"}),
    ("GET", "//evil.example/..", 301, "", {"location": "/"}),
    ("GET", "//\\evil.example", 301, "", {"location": "/%5Cevil.example"}),
    ("GET", "http://localhost//evil.example", 301, "", {"location": "/evil.example"}),
    ("GET", "/api/orchestrator//servers", 404, '{"success":false,"error":"not found"}', {}),
    ("GET", "/api/%2e%2e/tags", 404, "404 page not found", {}),
    ("GET", "/v1/models/a/b", 404, "404 page not found", {}),
    ("GET", "/v1/models/a%2Fb", 404, "404 page not found", {}),
    ("POST", "/v1/messages/count_tokens", 404, "404 page not found", {}),
    ("GET", "/api/chat", 405, "405 method not allowed", {"allow": "POST", "content-type": "text/plain"}),
    ("PUT", "/api/blobs/sha256:0", 405, "405 method not allowed", {"allow": "HEAD, POST"}),
    ("DELETE", "/", 405, "405 method not allowed", {"allow": "HEAD, GET"}),
    ("PUT", "/api/delete", 405, "405 method not allowed", {"allow": "DELETE"}),
    ("OPTIONS", "/api/tags", 405, "405 method not allowed", {"allow": "HEAD, GET"}),
    ("GET", "/api/tags/", 301, "", {"location": "/api/tags", "content-type": "text/html; charset=utf-8"}),
    ("GET", "/api/tags/?a=b", 301, "", {"location": "/api/tags?a=b"}),
    ("POST", "/api/chat/", 307, "", {"location": "/api/chat"}),
    ("POST", "/api/me", 403, None, {"x-fleet-error": "NOT_OFFERED"}),
    ("DELETE", "/api/user/keys/k", 403, None, {}),
    ("POST", "/api/experimental/web_search", 403, None, {}),
    ("GET", "/api/orchestrator/nope", 404, '{"success":false,"error":"not found"}', {}),
    (
        "DELETE",
        "/api/orchestrator/servers",
        405,
        '{"success":false,"error":"method not allowed"}',
        {"allow": "GET, HEAD"},
    ),
]


@pytest.mark.parametrize(("method", "path", "status", "body", "fields"), PAGES)
async def test_page(method: str, path: str, status: int, body: str | None, fields: dict[str, str]) -> None:
    async with fleet(FakeSystem()) as server:
        answer = await (await server.connect()).ask(method, path)
        assert (answer.status, "x-request-id" in answer) == (status, True)
        assert body is None or answer.body.decode() == body
        assert {name: answer[name] for name in fields} == fields


async def test_refused_account_routes_speak_in_strings() -> None:
    async with fleet(FakeSystem()) as server:
        answer = await (await server.connect()).ask("POST", "/api/signout")
        assert isinstance(json.loads(answer.body)["error"], str)


async def test_models_are_listed_once_for_the_whole_fleet() -> None:
    async with fleet(FakeSystem()) as server:
        wire = await server.connect()
        models = json.loads((await wire.ask("GET", "/api/tags")).body)["models"]
        assert [(row["name"], row["servers"]) for row in models] == [("m:latest", ["a", "b"])]
        listed = json.loads((await wire.ask("GET", "/v1/models")).body)
        assert [row["id"] for row in listed["data"]] == ["m:latest"]
        assert json.loads((await wire.ask("GET", "/v1/models/M")).body)["id"] == "M"


async def test_an_unknown_model_is_openai_shaped() -> None:
    async with fleet(FakeSystem()) as server:
        answer = await (await server.connect()).ask("GET", "/v1/models/nope")
        assert answer.status == 404
        assert json.loads(answer.body)["error"]["message"] == "model 'nope:latest' not found"


async def test_no_models_is_an_empty_list_natively_and_null_for_openai() -> None:
    async with fleet(FakeSystem(models=())) as server:
        wire = await server.connect()
        assert (await wire.ask("GET", "/api/tags")).body == b'{"models":[]}'
        assert json.loads((await wire.ask("GET", "/v1/models")).body)["data"] is None


async def test_the_root_page_works_without_any_server() -> None:
    async with fleet(FakeSystem(servers=())) as server:
        assert (await (await server.connect()).ask("GET", "/")).status == 200


async def test_the_last_known_models_are_served_when_everything_is_down() -> None:
    system = FakeSystem()
    for cell in system.servers.values():
        cell.state.health = Health.UNHEALTHY
    async with fleet(system) as server:
        answer = await (await server.connect()).ask("GET", "/api/tags")
        assert len(json.loads(answer.body)["models"]) == 1


async def test_a_websocket_to_nowhere_is_refused_and_harms_nobody() -> None:
    fields = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {'A' * 22}==",
    )
    async with fleet(FakeSystem()) as server:
        wire = await server.connect()
        assert (await wire.ask("GET", "/nope", b"", *fields)).status in (403, 404)
        assert (await (await server.connect()).ask("GET", "/")).status == 200
