"""The admin API's shapes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from fleet.breakers.values import BreakerState, BreakerView
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.scheduling.server_state import Admin, Health
from fleet.simulator import Profile
from tests.kit.clients.lanes import both_lanes
from tests.kit.fleets.served import served
from tests.web.edge.raw import Served
from tests.web.fake_system import FakeSystem, fleet

pytestmark = both_lanes

ROOT = "/api/orchestrator"
SLOW = Profile(load_seconds=0.0, slots=4, tokens_per_second=20.0)


async def ask(server: Served, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await (await server.connect()).ask(method, path, data)
    return answer.status, json.loads(answer.body)


async def test_servers_are_listed_with_the_reference_fields_and_ours() -> None:
    system = FakeSystem()
    system.servers[ServerId("b")].state.admin = Admin.MAINTENANCE
    async with fleet(system) as server:
        status, body = await ask(server, "GET", f"{ROOT}/servers")
    assert (status, body["success"], body["count"]) == (200, True, 2)
    first, second = body["servers"]
    expected = {"id": "a", "url": "http://a.internal:11434", "maxConcurrency": 4, "status": "healthy", "healthy": True}
    assert first.items() >= (expected | {"lastResponseTime": 8, "version": "0.33.0"}).items()
    assert (first["models"], second["status"], second["maintenance"]) == (["m:latest"], "maintenance", True)


async def test_add_answers_in_both_shapes_and_never_shows_the_key() -> None:
    system = FakeSystem()
    given = {"id": "c", "url": "http://c.internal:1/", "maxConcurrency": 2, "priority": 5, "tags": ["gpu"]}
    async with fleet(system) as server:
        status, body = await ask(server, "POST", f"{ROOT}/servers/add", {**given, "apiKey": "sekret-key"})
    assert status == 200
    flat = {"success": True, "id": "c", "url": "http://c.internal:1", "maxConcurrency": 2}
    assert body.items() >= flat.items()
    assert body["server"].items() >= {"id": "c", "status": "healthy", "priority": 5, "tags": ["gpu"]}.items()
    assert body["server"]["apiKey"] == "***REDACTED***"
    assert "sekret" not in json.dumps(body)


BAD = [
    ({"id": "s9"}, 400, {"error": "id and url are required"}),
    (b"{nope", 400, {"success": False}),
    (b"[]", 400, {"error": "the body must be a JSON object"}),
    ({"id": "x", "url": "nonsense"}, 400, {"success": False}),
    ({"id": "x", "url": "http://x", "maxConcurrency": -5}, 400, {}),
    ({"id": "a", "url": "http://x"}, 409, {"error": "server 'a' already exists"}),
    (
        {"id": "x", "url": "http://A.internal:11434/"},
        409,
        {
            "existingServerId": "a",
            "existingUrl": "http://a.internal:11434",
            "requestedUrl": "http://A.internal:11434/",
            "normalizedUrl": "http://a.internal:11434",
        },
    ),
]


@pytest.mark.parametrize(("given", "status", "fields"), BAD)
async def test_add_refuses(given: object, status: int, fields: Mapping[str, object]) -> None:
    async with fleet(FakeSystem()) as server:
        got, body = await ask(server, "POST", f"{ROOT}/servers/add", given)
    assert (got, body["success"]) == (status, False)
    assert body.items() >= fields.items()


async def test_remove_is_200_once_and_404_then() -> None:
    system = FakeSystem()
    async with fleet(system) as server:
        assert await ask(server, "DELETE", f"{ROOT}/servers/a") == (200, {"success": True, "id": "a"})
        status, body = await ask(server, "DELETE", f"{ROOT}/servers/a")
    assert (status, body) == (404, {"success": False, "error": "server 'a' not found"})


PROBLEMS = [
    # what was sent, what the error says
    ({"maxConcurrncy": 2}, ["maxConcurrncy: unknown key; did you mean max_concurrency?"]),
    ({"typ": "ollama"}, ["typ: unknown key"]),
    ({"max_concurrency": 0}, ["maxConcurrency: must be a whole number from 1 to 1024, or auto, not 0"]),
    ({"maxConcurrency": 1, "max_concurrency": 2}, ["maxConcurrency: is given twice"]),
    ({"priority": "x", "tags": "gpu"}, ["priority: must be", "tags: must be"]),
    ({"url": "ftp://x"}, ["url: "]),
    ({"apiKey": "env:HOME"}, ["apiKey: env:NAME is possible only in the configuration at start"]),
]


@pytest.mark.parametrize(("given", "sentences"), PROBLEMS)
async def test_add_ignored_typing_errors_and_spoke_like_a_library(
    given: dict[str, object], sentences: list[str]
) -> None:
    system = FakeSystem()
    async with fleet(system) as server:
        status, body = await ask(server, "POST", f"{ROOT}/servers/add", {"id": "x", "url": "http://x", **given})
    assert (status, list(system.servers)) == (400, ["a", "b"])
    for sentence in sentences:
        assert sentence in body["error"]
        assert sentence in body["details"]


async def test_a_typing_error_in_a_required_key_is_named_too() -> None:
    async with fleet(FakeSystem()) as server:
        _, body = await ask(server, "POST", f"{ROOT}/servers/add", {"id": "x", "uri": "http://x"})
    assert body["error"] == "id and url are required"
    assert "uri: unknown key; did you mean url?" in body["details"]


async def test_add_takes_snake_case_too() -> None:
    system = FakeSystem()
    async with fleet(system) as server:
        given = {"id": "c", "url": "http://c.internal:1", "max_concurrency": 2, "api_key": "sekret-key"}
        status, body = await ask(server, "POST", f"{ROOT}/servers/add", given)
    assert (status, body["maxConcurrency"], body["server"]["apiKey"]) == (200, 2, "***REDACTED***")


DRAINS = [("", True), ("?drain=false", False), ("?force=true", False), ("?force=false", True), ("?force", False)]


@pytest.mark.parametrize(("query", "drain"), DRAINS)
async def test_remove_can_skip_the_drain(query: str, drain: bool) -> None:
    system = FakeSystem()
    async with fleet(system) as server:
        assert (await ask(server, "DELETE", f"{ROOT}/servers/a{query}"))[0] == 200
    assert system.removed == [("a", drain)]


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():
            await trio.sleep(0.005)


async def test_a_removal_stopped_half_way_when_its_client_left() -> None:
    async with served("a", profile=SLOW) as here:
        cell = here.system.servers[ServerId("a")]
        async with here.client() as client, trio.open_nursery() as nursery:
            body = {"model": "tiny", "prompt": "x", "options": {"num_predict": 10_000}}
            nursery.start_soon(partial(client.post, "/api/generate", json=body))
            await until(lambda: bool(cell.leases))
            leaving = trio.CancelScope()

            async def remove() -> None:
                with leaving:
                    await client.delete(f"{ROOT}/servers/a")

            nursery.start_soon(remove)
            await until(lambda: cell.state.admin is Admin.DRAINING)
            leaving.cancel()
            assert ServerId("a") in here.system.servers
            nursery.cancel_scope.cancel()
        await until(lambda: ServerId("a") not in here.system.servers)


async def test_a_forced_removal_does_not_wait_for_running_requests() -> None:
    async with served("a", profile=SLOW) as here, here.client() as client, trio.open_nursery() as nursery:
        body = {"model": "tiny", "prompt": "x", "options": {"num_predict": 10_000}}
        nursery.start_soon(partial(client.post, "/api/generate", json=body))
        await until(lambda: here.system.in_flight == 1)
        with trio.fail_after(20):
            answer = await client.delete(f"{ROOT}/servers/a?force=true")
        assert (answer.status_code, list(here.system.servers)) == (200, [])
        nursery.cancel_scope.cancel()


HEALTH = [
    # healthy servers of two, draining, word, readiness
    (2, False, "healthy", 200),
    (1, False, "degraded", 200),
    (0, False, "unhealthy", 503),
    (2, True, "draining", 503),
]


@pytest.mark.parametrize(("healthy", "draining", "word", "ready"), HEALTH)
async def test_health_is_honest(healthy: int, draining: bool, word: str, ready: int) -> None:
    system = FakeSystem()
    system.draining = draining
    for cell in list(system.servers.values())[healthy:]:
        cell.state.health = Health.UNHEALTHY
    async with fleet(system) as server:
        _, body = await ask(server, "GET", f"{ROOT}/health")
        assert body.items() >= {"success": True, "status": word, "uptime": 12.5, "servers": 2}.items()
        assert isinstance(body["version"], str)
        status, body = await ask(server, "GET", "/health/ready")
        assert (status, body["status"]) == (ready, "ready" if ready == 200 else "not_ready")
        assert await ask(server, "GET", "/health/live") == (200, {"status": "ok"})
        _, body = await ask(server, "GET", "/health")
        assert body["orchestrator"].items() >= {"totalServers": 2, "healthyServers": healthy, "totalModels": 1}.items()


async def test_breakers_are_listed_in_the_reference_shape() -> None:
    system = FakeSystem()
    view = BreakerView(
        pair=Pair(ServerId("a"), ModelName("m:latest")),
        state=BreakerState.HALF_OPEN,
        since=trio.current_time(),
        why="open period over",
        next_step="closes after 2 more successes",
        failure_count=3,
        success_count=1,
        total_request_count=4,
        blocked_request_count=0,
        last_failure=trio.current_time(),
        last_failure_kind="refused_503",
        last_success=None,
        next_retry_at=None,
        error_rate=0.75,
        error_counts={},
        consecutive_successes=1,
        half_open_started_at=trio.current_time(),
        half_open_attempts=1,
        consecutive_failed_recoveries=0,
        forced_by=None,
        active_tests=0,
        history=(),
    )
    states = [(view.pair, view.state, view.failure_count)]
    system.breakers = SimpleNamespace(pairs=lambda: [view.pair], get=lambda pair: view, states=lambda: states)
    async with fleet(system) as server:
        _, body = await ask(server, "GET", f"{ROOT}/circuit-breakers")
        _, health = await ask(server, "GET", "/health")
    (shown,) = body["circuitBreakers"]
    expected = {"serverId": "a", "model": "m:latest", "state": "HALF-OPEN", "failureCount": 3, "lastSuccess": 0}
    assert shown.items() >= (expected | {"errorRate": 0.75, "nextRetryAt": 0}).items()
    assert shown["lastFailure"] > 1_600_000_000_000
    assert health["orchestrator"]["circuitBreakers"] == {"a:m:latest": {"state": "half-open", "failureCount": 3}}
