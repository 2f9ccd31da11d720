"""The door: keys, origins, request ids, and bodies that are too big, too slow or unread."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from fleet.protocol.call import Call, Downstream
from tests.kit.clients.lanes import both_lanes
from tests.web.edge.raw import head, lingering
from tests.web.fake_system import FakeSystem, fleet

pytestmark = both_lanes

SECURE: dict[str, Any] = {"api_keys": ["a-secret-key-0123456789"]}
KEY = "Authorization: Bearer a-secret-key-0123456789"

DOORS = [
    # method, path, fields, status without a valid key
    ("GET", "/", [], 200),
    ("HEAD", "/", [], 200),
    ("GET", "/health", [], 200),
    ("GET", "/health/live", [], 200),
    ("GET", "/api/tags", [], 403),
    ("GET", "/api/tags", ["X-API-Key: wrong"], 403),
    ("GET", "/api/tags", ["Authorization: Basic a-secret-key-0123456789"], 403),
    ("GET", "/api/tags", [KEY], 200),
    ("GET", "/api/tags", ["X-Api-Key: a-secret-key-0123456789"], 200),
    ("GET", "/v1/models", [], 401),
    ("GET", "/v1/models", [KEY], 200),
    ("GET", "/api/orchestrator/servers", [], 401),
    ("GET", "/healthy", [], 401),
    ("GET", "/health/../api/tags", [], 301),  # to where a key is needed
    ("GET", "http://fleet.test/api/tags", [], 403),
]


@pytest.mark.parametrize(("method", "path", "fields", "status"), DOORS)
async def test_door(method: str, path: str, fields: list[str], status: int) -> None:
    async with fleet(FakeSystem(security=SECURE)) as server:
        answer = await (await server.connect()).ask(method, path, b"", *fields)
        assert answer.status == status
        if status == 403:
            assert isinstance(json.loads(answer.body)["error"], str | dict)


async def test_ollamas_cli_gets_a_string_and_no_401() -> None:
    async with fleet(FakeSystem(security=SECURE)) as server:
        answer = await (await server.connect()).ask("POST", "/api/chat", b"{}", "User-Agent: ollama/0.33.0 (x)")
        assert (answer.status, isinstance(json.loads(answer.body)["error"], str)) == (403, True)


@pytest.mark.parametrize(("required", "status"), [(None, 403), (True, 403), (False, 200)])
async def test_keys_that_are_given_are_required_unless_the_operator_says_no(required: bool | None, status: int) -> None:
    async with fleet(FakeSystem(security={**SECURE, "require_api_key": required})) as server:
        assert (await (await server.connect()).ask("GET", "/api/tags")).status == status


async def test_health_says_nothing_about_servers_and_models_to_strangers() -> None:
    system = FakeSystem(security=SECURE)
    async with fleet(system) as server:
        wire = await server.connect()
        stranger = json.loads((await wire.ask("GET", "/health")).body)["orchestrator"]
        known = json.loads((await wire.ask("GET", "/health", b"", KEY)).body)
    assert (stranger["totalServers"], stranger["openCircuitBreakers"]) == (2, 0)
    assert "circuitBreakers" not in stranger
    assert known["orchestrator"]["circuitBreakers"] == {}


LOCAL = "Origin: http://localhost:3000"
ORIGINS = [
    # method, fields, status, allow-origin
    ("GET", [], 200, None),
    ("GET", [LOCAL], 200, "http://localhost:3000"),
    ("GET", ["Origin: app://obsidian.md"], 200, "app://obsidian.md"),
    ("GET", ["Origin: https://evil.example"], 403, None),
    ("GET", ["Origin: null"], 403, None),
    ("GET", ["Origin: https://mine.example"], 200, "https://mine.example"),
    ("POST", ["Origin: https://evil.example"], 403, None),
    ("OPTIONS", ["Origin: https://evil.example"], 403, None),
    ("OPTIONS", [LOCAL, "Access-Control-Request-Method: POST"], 204, "http://localhost:3000"),
    ("GET", ["Origin: http://localhost"], 200, None),
]


@pytest.mark.parametrize(("method", "fields", "status", "allowed"), ORIGINS)
async def test_origin(method: str, fields: list[str], status: int, allowed: str | None) -> None:
    async with fleet(FakeSystem(cors={"origins": ["https://mine.example"]})) as server:
        answer = await (await server.connect()).ask(method, "/api/version", b"", *fields)
        assert answer.status == status
        assert (answer["access-control-allow-origin"] if allowed else None) == allowed
        assert ("access-control-allow-origin" in answer) == (allowed is not None)
        assert answer.body == b"" or status == 200


ADMINS = [
    # origin, status
    ("http://localhost", 200),  # the fleet's own page: that is its Host
    ("http://localhost:3000", 403),
    ("app://obsidian.md", 403),
    ("https://mine.example", 200),
]


@pytest.mark.parametrize(("origin", "status"), ADMINS)
async def test_pages_that_may_use_models_may_not_administer_the_fleet(origin: str, status: int) -> None:
    async with fleet(FakeSystem(cors={"origins": ["https://mine.example"]})) as server:
        wire = await server.connect()
        assert (await wire.ask("GET", "/api/orchestrator/servers", b"", f"Origin: {origin}")).status == status
        preflight = await wire.ask("OPTIONS", "/api/orchestrator/servers/a", b"", f"Origin: {origin}")
        assert (preflight.status == 403) is (status == 403)


async def test_errors_carry_the_cors_fields_too() -> None:
    async with fleet(FakeSystem()) as server:
        answer = await (await server.connect()).ask("GET", "/nope", b"", LOCAL)
        assert (answer.status, answer["vary"]) == (404, "Origin")


@pytest.mark.parametrize(("sent", "kept"), [("abc-1.2:3", True), ("x" * 200, False), ("a b", False), ("", False)])
async def test_a_sane_request_id_is_kept_any_other_replaced(sent: str, kept: bool) -> None:
    async with fleet(FakeSystem()) as server:
        answer = await (await server.connect()).ask("GET", "/", b"", f"X-Request-Id: {sent}")
        assert (answer["x-request-id"] == sent) is kept
        assert answer["x-request-id"]


SMALL = {"body_bytes": 1024}


async def test_a_body_announced_too_long_is_refused_without_reading_it() -> None:
    async with fleet(FakeSystem(limits=SMALL)) as server:
        wire = await server.connect()
        await wire.send(head("POST", "/v1/chat/completions", length=10**9))
        answer = await wire.answer()
        assert (answer.status, answer["connection"]) == (413, "close")
        assert json.loads(answer.body)["error"]["code"]


async def test_a_chunked_body_is_refused_as_soon_as_it_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    lingering(monkeypatch, 0.2)
    async with fleet(FakeSystem(limits=SMALL)) as server:
        wire = await server.connect()
        await wire.send(head("POST", "/api/chat", "Transfer-Encoding: chunked", "User-Agent: ollama/1"))
        await wire.send(b"1000\r\n" + bytes(4096) + b"\r\n")
        answer = await wire.answer()
        assert (answer.status, isinstance(json.loads(answer.body)["error"], str)) == (413, True)
        assert await wire.closed()


async def test_a_slow_body_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    lingering(monkeypatch, 0.1)
    async with fleet(FakeSystem(timeouts={"body_idle": 0.1})) as server:
        wire = await server.connect()
        await wire.send(head("POST", "/api/chat", length=100) + b"{")
        answer = await wire.answer()
        assert (answer.status, answer["x-fleet-error"]) == (408, "REQUEST_BODY_TIMEOUT")
        assert await wire.closed()


async def test_an_early_answer_to_an_unread_body_leaves_the_connection_usable() -> None:
    async with fleet(FakeSystem()) as server:
        wire = await server.connect()
        await wire.send(head("POST", "/nope", length=300_000))
        await wire.send(bytes(100_000))
        assert (await wire.answer()).status == 404
        await wire.send(bytes(200_000))
        assert (await wire.ask("GET", "/")).status == 200


async def test_an_early_answer_ends_a_long_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    lingering(monkeypatch, 0.2)

    async def known_already(call: Call, down: Downstream) -> None:
        await down.start(200, [(b"content-length", b"0")])
        await down.finish()

    system = FakeSystem()
    system.answering = known_already
    async with fleet(system) as server:
        wire = await server.connect()
        await wire.send(head("POST", "/api/blobs/sha256:0", length=10**9) + bytes(100_000))
        answer = await wire.answer()
        assert (answer.status, answer["connection"]) == (200, "close")
        assert await wire.closed()


async def test_an_upload_is_streamed_with_back_pressure_and_no_limit() -> None:
    go, sizes = trio.Event(), []

    async def reading(call: Call, down: Downstream) -> None:
        assert not isinstance(call.body, bytes)
        await go.wait()
        async for piece in call.body:
            sizes.append(len(piece))
        await down.start(201, [(b"content-length", b"0")])
        await down.finish()

    system = FakeSystem(limits=SMALL)
    system.answering = reading
    size = 32 * 2**20
    async with fleet(system) as server:
        wire = await server.connect()
        sent = 0
        with trio.move_on_after(0.3):
            await wire.send(head("POST", "/api/blobs/sha256:0", length=size))
            while sent < size:
                await wire.stream.send_all(bytes(2**16))
                sent += 2**16
        assert sent < size, "nobody has read a byte, so TCP must have stopped us"
        go.set()
        # the cancelled send may have got any part of its piece through: start again with a fresh upload
        wire.stream.socket.close()
        wire, sizes[:] = await server.connect(), []
        await wire.send(head("POST", "/api/blobs/sha256:0", length=size))
        await wire.send(bytes(size))
        assert (await wire.answer()).status == 201
    assert system.relayed[-1][1].content_length == size
    assert sum(sizes) >= size
