"""The metrics port: every route against its shape and the reference's keys, every figure against what was sent."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest
import trio

from fleet.common.ids import ServerId
from fleet.observability.host_sample import Gpu, HostSample
from fleet.scheduling.server_state import Order
from fleet.simulator import Profile
from tests.kit.clients.admin import checked
from tests.kit.fleets.served import Served, served
from web.http.ports import Face

SLOW = Profile(load_seconds=0.05, slots=1, tokens_per_second=250.0, prefill_per_second=20_000.0)
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
REFERENCE_HEALTH = {
    "": {"status", "timestamp", "version", "services", "system"},
    "services": {"ollama", "proxy", "metrics"},
    "services.ollama": {"status", "url", "response_time_ms"},
    "services.proxy": {"status", "active_requests", "queue_size"},
    "services.metrics": {"status", "total_requests", "avg_response_time"},
    "system": {"cpu_percent", "memory_percent", "disk_usage_percent"},
}
REFERENCE_SUMMARY = {
    "": {"timestamp", "summary", "system", "models"},
    "summary": {
        "total_requests",
        "active_requests",
        "queue_size",
        "avg_latency",
        "tokens_per_second",
        "success_rate",
        "error_rate",
    },
    "system": {
        "cpu_percent",
        "memory_percent",
        "memory_available_gb",
        "memory_used_gb",
        "gpu_utilization_percent",
        "power_cpu_watts",
        "power_gpu_watts",
    },
    "models.llama3:8b": {"requests", "avg_latency", "tokens_per_second", "last_request"},
}
SAMPLE = HostSample(
    at=1.0,
    cpu_percent=23.46,
    memory_percent=67.8,
    memory_available=8 * 2**30,
    memory_used=5_825_781_760,
    disk_percent=45.2,
    power={"cpu": 12.5, "gpu": 8.3},
    gpus=(Gpu("nvidia0", "x", percent=10.0), Gpu("nvidia1", "x", percent=20.4)),
)


class Port:
    """The metrics port of a running fleet."""

    def __init__(self, fleet: Served) -> None:
        self.fleet = fleet

    async def raw(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        # No certificate is asked for here; to read all authorities would take longer than the request.
        transport = httpx.AsyncHTTPTransport(verify=False)
        async with httpx.AsyncClient(base_url=self.fleet.metrics_url, transport=transport, timeout=20.0) as client:
            return await client.request(method, path, headers=headers)

    async def ask(self, path: str, **headers: str) -> Any:
        answer = await self.raw(path, **headers)
        assert answer.status_code == 200, answer.text
        return checked("GET", path, answer, Face.METRICS)

    async def refused(self, path: str, status: int, method: str = "GET", **headers: str) -> Any:
        """The reference's error, which must be there whatever was refused."""
        answer = await self.raw(path, method, **headers)
        assert answer.status_code == status, answer.text
        (error,) = answer.json().values()
        assert error.keys() >= {"code", "message", "details", "timestamp"}
        assert ISO.fullmatch(error["timestamp"])
        return error

    async def talk(self, model: str = "llama3:8b", tokens: int = 20) -> httpx.Response:
        async with self.fleet.client() as client:
            body = {"model": model, "prompt": "x", "stream": False, "options": {"num_predict": tokens}}
            return await client.post("/api/generate", json=body)


@asynccontextmanager
async def ported(*servers: str, **config: Any) -> AsyncIterator[Port]:
    """No sample of this machine: tests say what it is."""
    async with served(*servers, host={"enabled": False}, **config) as fleet:
        with trio.fail_after(60):
            yield Port(fleet)


def found(body: Any, place: str) -> Any:
    for step in filter(None, place.split(".")):
        body = body[step]
    return body


@pytest.mark.parametrize("path", ["/health", "/api/metrics/summary"])
async def test_every_key_of_the_reference_is_in_its_place(path: str) -> None:
    wanted = REFERENCE_HEALTH if path == "/health" else REFERENCE_SUMMARY
    async with ported("a") as port:
        await port.talk()
        body = await port.ask(path)
    for place, keys in wanted.items():
        assert found(body, place).keys() >= keys, place
    assert ISO.fullmatch(body["timestamp"])
    assert abs(datetime.fromisoformat(body["timestamp"]) - datetime.now(UTC)).total_seconds() < 60


async def test_the_summary_has_what_was_really_sent() -> None:
    """Three good requests for one model on two servers, one good for another, one for a model that nobody has."""
    async with ported("a", "b", profile=SLOW, slots=1, models="llama3:8b:4GB,tiny:latest:1GB") as port:
        began, system, tokens = trio.current_time(), port.fleet.system, {"llama3:8b": 0, "tiny:latest": 0}

        async def talk(model: str, wanted: int) -> None:
            answer = await port.talk(model, wanted)
            tokens[model] += answer.json()["eval_count"]

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(talk, "llama3:8b", 20)
        await talk("tiny:latest", 30)
        assert (await port.talk("nobody-has-this")).status_code == 404
        soonest = system.uptime
        seen = await port.ask("/api/metrics/summary")
        latest, took = system.uptime, trio.current_time() - began
    summary, models = seen["summary"], seen["models"]
    assert (summary["total_requests"], summary["requests"]) == (5, 5)
    assert (summary["success_rate"], summary["error_rate"]) == (0.8, 0.2)
    assert (summary["active_requests"], summary["queue_size"]) == (0, 0)
    assert {name: model["requests"] for name, model in models.items()} == {"llama3:8b": 3, "tiny:latest": 1}
    means = 3 * models["llama3:8b"]["avg_latency"] + models["tiny:latest"]["avg_latency"]
    assert 0.08 < models["llama3:8b"]["avg_latency"] < took
    assert 0.12 < models["tiny:latest"]["avg_latency"] < took
    assert means < 5 * summary["avg_latency"] + 0.001 < means + took
    pace = sum(tokens.values()) / max(latest, 1.0), sum(tokens.values()) / max(soonest, 1.0)
    assert 0.99 * pace[0] <= summary["tokens_per_second"] <= 1.01 * pace[1]
    share = models["tiny:latest"]["tokens_per_second"] / summary["tokens_per_second"]
    assert share == pytest.approx(tokens["tiny:latest"] / sum(tokens.values()), rel=0.01)
    last = [datetime.fromisoformat(models[name]["last_request"]) for name in ("llama3:8b", "tiny:latest")]
    assert last[0] <= last[1] <= datetime.fromisoformat(seen["timestamp"])
    assert (last[1] - last[0]).total_seconds() < took


async def test_a_model_waits_as_long_as_its_clients_do() -> None:
    """With one slot three requests take one, two and three times as long: the wait is part of the latency."""
    async with ported("a", profile=SLOW, slots=1) as port:
        await port.talk(tokens=1)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(port.talk, "llama3:8b", 30)
        seen = await port.ask("/api/metrics/summary")
        pairs = port.fleet.system.statistics.totals.book.pairs
        _, sums = port.fleet.system.statistics.totals.window(300.0, next(iter(pairs)))
    assert (len(pairs), sums.count) == (1, 4)
    assert seen["models"]["llama3:8b"]["avg_latency"] == pytest.approx(seen["summary"]["avg_latency"], abs=0.001)
    assert seen["models"]["llama3:8b"]["avg_latency"] > 1.2 * sums.average / 1000


async def test_what_waits_and_what_runs_is_counted_where_it_is() -> None:
    async with ported("a", profile=SLOW, slots=1) as port, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(port.talk, "llama3:8b", 2_000)
        while port.fleet.system.queries.queue_view(0).waiting < 2:
            await trio.sleep(0.01)
        summary = (await port.ask("/api/metrics/summary"))["summary"]
        proxy = (await port.ask("/health"))["services"]["proxy"]
        nursery.cancel_scope.cancel()
    assert (summary["active_requests"], summary["queue_size"]) == (1, 2)
    assert proxy == {"status": "healthy", "active_requests": 1, "queue_size": 2}


async def test_before_anything_was_measured_there_is_null_and_no_zero() -> None:
    async with ported("a") as port:
        seen = await port.ask("/api/metrics/summary")
        health = await port.ask("/health")
    summary = seen["summary"]
    assert [summary[key] for key in ("avg_latency", "success_rate", "error_rate")] == [None] * 3
    assert (summary["total_requests"], summary["tokens_per_second"], seen["models"]) == (0, 0.0, {})
    assert set(seen["system"].values()) == {None}
    assert set(health["system"].values()) == {None}
    assert health["services"]["metrics"] == {"status": "healthy", "total_requests": 0, "avg_response_time": None}


async def test_the_machine_is_shown_in_the_reference_s_units() -> None:
    async with ported("a") as port:
        port.fleet.system.host.latest = SAMPLE
        assert (await port.ask("/health"))["system"] == {
            "cpu_percent": 23.5,
            "memory_percent": 67.8,
            "disk_usage_percent": 45.2,
        }
        assert (await port.ask("/api/metrics/summary"))["system"] == {
            "cpu_percent": 23.5,
            "memory_percent": 67.8,
            "memory_available_gb": 8.0,
            "memory_used_gb": 5.43,
            "gpu_utilization_percent": 15.2,
            "power_cpu_watts": 12.5,
            "power_gpu_watts": 8.3,
        }


async def test_a_running_fleet_samples_the_machine_it_is_on() -> None:
    async with served("a", host={"interval": 0.1}) as fleet:
        with trio.fail_after(60):
            while (await Port(fleet).ask("/health"))["system"]["cpu_percent"] is None:
                await trio.sleep(0.05)
            system = (await Port(fleet).ask("/api/metrics/summary"))["system"]
    assert 0 < system["memory_percent"] <= 100
    assert system["memory_available_gb"] > 0


async def test_health_goes_from_healthy_to_unhealthy_with_the_servers() -> None:
    async with ported("a", "b", health={"interval": 30.0}) as port:
        system, urls = port.fleet.system, [sim.url for sim in port.fleet.sims.values()]
        health = await port.ask("/health")
        ollama = health["services"]["ollama"]
        assert (health["status"], ollama["status"], ollama["url"]) == ("healthy", "healthy", urls[0])
        assert 0 < ollama["response_time_ms"] < 5_000
        await system.ordered(ServerId("a"), Order.MAINTAIN, "repairs", "test")
        health = await port.ask("/health")
        assert (health["status"], health["services"]["ollama"]["url"]) == ("healthy", urls[1])
        await system.ordered(ServerId("b"), Order.MAINTAIN, "repairs", "test")
        answer = await port.raw("/health")
        assert (answer.status_code, answer.json()["status"]) == (503, "unhealthy")
        assert answer.json().keys() >= REFERENCE_HEALTH[""]
        ollama = answer.json()["services"]["ollama"]
        assert (ollama["status"], ollama["url"], ollama["response_time_ms"]) == ("unhealthy", urls[0], None)
        assert (ollama["servers"], ollama["healthy_servers"]) == (2, 2)
        assert (await port.raw("/health/ready")).status_code == 503
        assert (await port.ask("/health/live")) == {"status": "ok"}


async def test_a_dead_server_degrades_and_still_serves() -> None:
    async with ported("a", "b", health={"interval": 0.05}) as port:
        await port.fleet.sims["a"].kill()
        while (await port.ask("/health"))["status"] == "healthy":
            await trio.sleep(0.02)
        health = await port.ask("/health")
        assert health["status"] == "degraded"
        assert health["services"]["ollama"]["status"] == "degraded"
        assert health["services"]["ollama"]["url"] == port.fleet.sims["b"].url
        assert (await port.raw("/health/ready")).status_code == 200


async def test_a_fleet_without_servers_has_no_url_and_is_not_ready() -> None:
    async with ported() as port:
        answer = await port.raw("/health")
        assert answer.status_code == 503
        assert answer.json()["services"]["ollama"] == {
            "status": "unhealthy",
            "url": None,
            "response_time_ms": None,
            "servers": 0,
            "healthy_servers": 0,
        }


async def test_a_fleet_that_shuts_down_says_so() -> None:
    async with ported("a") as port:
        port.fleet.system.drain()
        answer = await port.raw("/health")
        assert (answer.status_code, answer.json()["status"]) == (503, "draining")
        assert answer.json()["services"]["proxy"]["status"] == "draining"
        assert (await port.raw("/health/ready")).status_code == 503
        assert (await port.raw("/health/live")).status_code == 200


async def test_a_paused_queue_and_lost_records_are_told_where_they_belong() -> None:
    async with ported("a") as port:
        system = port.fleet.system
        system.pause(True)
        while not system.queries.queue_view(0).paused:
            await trio.sleep(0.01)
        services = (await port.ask("/health"))["services"]
        assert (services["proxy"]["status"], services["metrics"]["status"]) == ("degraded", "healthy")
        system.statistics.request_log.dropped, system.statistics.request_log.dropped_at = 7, trio.current_time()
        services = (await port.ask("/health"))["services"]
        assert services["metrics"]["status"] == "degraded"


async def test_names_and_urls_are_for_those_who_may_see_them() -> None:
    keys = {"api_keys": ["a-key-of-mine"], "keys": [{"name": "guest", "key": "guest-key-of-mine", "role": "client"}]}
    async with ported("gpu-007", "gpu-042", security=keys, health={"interval": 0.05}) as port:
        await port.fleet.sims["gpu-042"].kill()
        while "gpu-042" not in port.fleet.system.monitor.verdict.headline:
            await trio.sleep(0.02)
            port.fleet.system.monitor.evaluate()
        stranger = await port.ask("/health")
        guest = await port.ask("/health", **{"x-api-key": "guest-key-of-mine"})
        owner = await port.ask("/health", authorization="Bearer a-key-of-mine")
    assert {each["verdict"]["code"] for each in (stranger, guest, owner)} == {"server_down"}
    assert ["gpu-042" in each["verdict"]["headline"] for each in (stranger, guest, owner)] == [False, True, True]
    url = port.fleet.sims["gpu-007"].url
    assert [each["services"]["ollama"]["url"] for each in (stranger, guest, owner)] == [None, None, url]


async def test_where_keys_are_required_figures_need_one_and_probes_do_not() -> None:
    async with ported("a", security={"api_keys": ["a-key-of-mine"]}) as port:
        assert (await port.refused("/api/metrics/summary", 401))["code"] == "UNAUTHORIZED"
        assert (await port.ask("/api/metrics/summary", authorization="Bearer a-key-of-mine"))["models"] == {}
        for path in ("/", "/health", "/health/live", "/health/ready"):
            assert (await port.raw(path)).status_code == 200, path


async def test_the_window_can_be_chosen_and_says_where_it_begins() -> None:
    async with ported("a") as port:
        await port.talk()
        seen = await port.ask("/api/metrics/summary?window=7d")
        assert (seen["window"]["span"], seen["summary"]["requests"]) == ("7d", 1)
        since = datetime.fromisoformat(seen["window"]["since"])
        uptime = port.fleet.system.uptime
        assert (datetime.now(UTC) - since).total_seconds() == pytest.approx(uptime, abs=60)
        for window in ("8d", "0m", "5", "m", "-1m", "5%20m", "999999999999d"):
            error = await port.refused(f"/api/metrics/summary?window={window}", 400)
            assert error["code"] == "INVALID_REQUEST"


NOT_HERE = [
    ("GET", "/nowhere", 404, "NOT_FOUND"),
    ("POST", "/api/chat", 404, "NOT_FOUND"),
    ("GET", "/v1/models", 404, "NOT_FOUND"),
    ("GET", "/api/orchestrator/health", 404, "NOT_FOUND"),
    ("GET", "/health/", 404, "NOT_FOUND"),
    ("GET", "/health//", 404, "NOT_FOUND"),
    ("POST", "/health", 405, "METHOD_NOT_ALLOWED"),
    ("DELETE", "/api/metrics/summary", 405, "METHOD_NOT_ALLOWED"),
]


async def test_what_is_not_there_is_refused_in_the_reference_s_words() -> None:
    async with ported("a") as port:
        for method, path, status, code in NOT_HERE:
            assert (await port.refused(path, status, method))["code"] == code, path
            if status == 405:
                assert (await port.raw(path, method)).headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 200_000 + b"\r\n\r\n", 431),
        (b"", 503),
    ],
)
async def test_what_is_refused_before_it_was_read_is_refused_in_the_same_words(request_: bytes, status: int) -> None:
    async with ported("a", limits={} if request_ else {"connections": 1}) as port:
        address = str(httpx.URL(port.fleet.metrics_url).host), httpx.URL(port.fleet.metrics_url).port or 0
        async with await trio.open_tcp_stream(*address) as first:
            stream = first if request_ else await trio.open_tcp_stream(*address)
            async with stream:
                if request_:
                    await stream.send_all(request_)
                answer = b"".join([piece async for piece in stream])
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    error = orjson.loads(body)["error"]
    assert error["code"] == ("SERVICE_UNAVAILABLE" if status == 503 else "INVALID_REQUEST")
    assert ISO.fullmatch(error["timestamp"])


async def test_ollama_s_own_clients_get_the_same_errors_here() -> None:
    async with ported("a") as port:
        agent = {"user-agent": "ollama/0.12"}
        assert (await port.refused("/nowhere", 404, **agent))["code"] == "NOT_FOUND"
        assert (await port.refused("/health", 403, host="evil.example", **agent))["code"] == "FORBIDDEN"


async def test_the_root_names_the_routes() -> None:
    async with ported("a") as port:
        answer = await port.raw("/")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        for path in ("/metrics", "/health", "/api/metrics/summary"):
            assert path in answer.text
            assert (await port.raw(path)).status_code == 200
        assert (await port.raw("/health", "HEAD")).content == b""
