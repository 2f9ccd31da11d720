"""By which name and target a request arrives: foreign names, odd ones, absolute targets."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from tests.kit.clients.lanes import both_lanes
from tests.web.edge.raw import Answer, Served, Wire, head
from tests.web.fake_system import FakeSystem, fleet

pytestmark = both_lanes

KEYS = {"api_keys": ["a-secret-key-0123456789"]}
EVIL = "evil.example:11435"
HANDSHAKE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)


async def ask_as(server: Served, host: str, *fields: str, method: str = "GET", path: str = "/api/tags") -> Answer:
    wire: Wire = await server.connect()
    await wire.send(head(method, path, *fields).replace(b"Host: localhost", b"Host: " + host.encode("latin-1")))
    return await wire.answer(method)


async def test_a_rebound_name_reads_nothing_although_its_page_is_of_the_same_origin() -> None:
    async with fleet(FakeSystem()) as server:
        answer = await ask_as(server, EVIL, f"Origin: http://{EVIL}")
        assert (answer.status, answer["x-fleet-error"]) == (403, "HOST_NOT_ALLOWED")
        assert "access-control-allow-origin" not in answer
        assert isinstance(json.loads(answer.body)["error"], str)
        assert b"\n" not in answer.body
        for path in ("/", "/api/orchestrator/servers", "/nope"):
            assert (await ask_as(server, EVIL, path=path)).status == 403


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:1", "nas.local", "x.internal", "192.168.0.3"])
async def test_local_names_are_served(host: str) -> None:
    async with fleet(FakeSystem()) as server:
        assert (await ask_as(server, host)).status == 200
        assert (await ask_as(server, socket.gethostname().upper())).status == 200


ANNOUNCED = [
    "evil.local",
    "EVIL.LOCAL:11435",
    "evil.local.",
    "x.internal",
    "nas",
    "192.168.0.3",
    "0.0.0.0",
    "[fd00::1]",
]
CHANGES = [
    ("GET", "/api/orchestrator/servers"),
    ("POST", "/api/orchestrator/servers/add"),
    ("POST", "/api/orchestrator//servers/add"),
    ("DELETE", "/api/delete"),
    ("POST", "/api/pull"),
    ("POST", "/api/push"),
    ("POST", "/api/create"),
    ("POST", "/api/copy"),
    ("POST", "/api/blobs/sha256:0"),
    ("PATCH", "/nope"),
    ("GET", "/socket.io/?EIO=4&transport=polling"),
    ("GET", "/ws"),
]


@pytest.mark.parametrize("host", ANNOUNCED)
async def test_a_name_that_others_may_announce_uses_models_and_administers_nothing(host: str) -> None:
    async with fleet(FakeSystem()) as server:
        assert (await ask_as(server, host)).status == 200
        chat = await ask_as(server, host, "Content-Length: 0", method="POST", path="/api/embed")
        assert chat.status != 403
        for method, path in CHANGES:
            answer = await ask_as(server, host, "Content-Length: 0", method=method, path=path)
            assert (answer.status, answer["x-fleet-error"]) == (403, "HOST_NOT_ALLOWED"), path
            there = await ask_as(server, "localhost", "Content-Length: 0", method=method, path=path)
            assert there.status != 403 or there["x-fleet-error"] != "HOST_NOT_ALLOWED", path


async def test_what_says_localhost_elsewhere_does_not_help_a_foreign_host() -> None:
    async with fleet(FakeSystem()) as server:
        fields = ("X-Forwarded-Host: localhost", "Forwarded: host=localhost", "X-Host: localhost")
        path = "/api/orchestrator/servers"
        assert (await ask_as(server, "evil.local", *fields, path=path)).status == 403
        assert (await ask_as(server, "localhost", path="http://evil.local" + path)).status == 403
        assert (await ask_as(server, "evil.local", path="http://localhost" + path)).status == 200


@pytest.mark.parametrize("path", ["/ws", "/socket.io/?EIO=4&transport=websocket"])
async def test_a_websocket_under_an_announced_name_is_refused(path: str) -> None:
    async with fleet(FakeSystem()) as server:
        answer = await ask_as(server, "evil.local", *HANDSHAKE, "Origin: http://evil.local", path=path)
        assert (answer.status, answer["x-fleet-error"]) == (403, "HOST_NOT_ALLOWED")


async def test_an_allowed_name_administers_too() -> None:
    async with fleet(FakeSystem(security={"allowed_hosts": ["Nas.Local"]})) as server:
        assert (await ask_as(server, "nas.local:1", path="/api/orchestrator/servers")).status == 200


OPEN_TO_ANY_NAME: list[dict[str, Any]] = [
    {"security": {"allowed_hosts": ["other.example", "Evil.Example"]}},
    {"security": {"allowed_hosts": ["*"]}},
    {"security": {"allow_unauthenticated": True}, "server": {"host": "0.0.0.0"}},
]


@pytest.mark.parametrize("config", OPEN_TO_ANY_NAME)
async def test_a_name_may_be_allowed(config: dict[str, Any]) -> None:
    async with fleet(FakeSystem(**config)) as server:
        assert (await ask_as(server, EVIL)).status == 200


async def test_with_keys_any_name_will_do() -> None:
    async with fleet(FakeSystem(security=KEYS)) as server:
        assert (await ask_as(server, EVIL, "X-Api-Key: a-secret-key-0123456789")).status == 200


async def test_http_1_0_without_a_host_is_served() -> None:
    async with fleet(FakeSystem()) as server:
        wire = await server.connect()
        await wire.send(b"GET /api/tags HTTP/1.0\r\n\r\n")
        assert (await wire.answer()).status == 200


ODD = [".", "..a", "a" * 300, "x..y", "-", "a:b:c", "[", "[::1", "%00", "a/b", "\xfc"]


@pytest.mark.parametrize("host", ODD)
async def test_an_odd_host_is_no_bug_of_ours(host: str) -> None:
    async with fleet(FakeSystem()) as server:
        assert (await ask_as(server, host)).status in (400, 403)
    async with fleet(FakeSystem(security={"allowed_hosts": ["*"]})) as server:
        assert (await ask_as(server, host)).status in (200, 400)


async def test_a_websocket_is_refused_with_words_and_a_request_id() -> None:
    async with fleet(FakeSystem()) as server:
        foreign = await ask_as(server, EVIL, *HANDSHAKE, "X-Request-Id: mine")
        assert (foreign.status, foreign["x-request-id"]) == (403, "mine")
        assert json.loads(foreign.body)["error"]
        other_page = await ask_as(server, "localhost", *HANDSHAKE, "Origin: https://evil.example")
        assert (other_page.status, "x-request-id" in other_page) == (403, True)
        nowhere = await ask_as(server, "localhost", *HANDSHAKE, "X-Request-Id: mine", path="/api/chat")
        assert (nowhere.status, nowhere["x-request-id"]) == (405, "mine")


TARGETS = [
    # target, status, target as a backend sees it
    ("http://localhost/api/blobs/sha256:0", 200, "/api/blobs/sha256:0"),
    ("HTTP://localhost:11435/api/blobs/sha256%3A0?a=b", 200, "/api/blobs/sha256%3A0?a=b"),
    ("http://evil.example/api/blobs/sha256:0", 403, None),
    ("http%3A//localhost/api/blobs/sha256:0", 400, None),
    ("http:///api/blobs/sha256:0", 400, None),
    ("http://u@localhost/api/blobs/sha256:0", 400, None),
    ("ftp://localhost/api/blobs/sha256:0", 400, None),
    ("api/blobs/sha256:0", 400, None),
    ("?x", 400, None),
    ("*", 400, None),
]


@pytest.mark.parametrize(("asked", "status", "forwarded"), TARGETS)
async def test_what_is_routed_is_what_is_forwarded(asked: str, status: int, forwarded: str | None) -> None:
    system = FakeSystem()
    async with fleet(system) as server:
        answer = await ask_as(server, "localhost", "Content-Length: 0", method="POST", path=asked)
        assert answer.status == status
        assert status == 200 or json.loads(answer.body)["error"]
    assert [call.target for _, call in system.relayed] == ([forwarded] if forwarded else [])


async def test_options_may_ask_about_everything() -> None:
    async with fleet(FakeSystem()) as server:
        assert (await ask_as(server, "localhost", method="OPTIONS", path="*")).status == 404
