"""The contract of the REST API, row by row: one row for every admin route of the orchestrator's reference.

Shapes and types are checked by `tests.kit.admin`; a row says what the values mean: units, letter case, defaults.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx
import jsonschema
import pytest
import trio

from actors.messages import BanPair
from fleet.ids import ModelName, Pair, ServerId
from fleet.recoveries import Failure, Source
from fleet.simulator import Profile
from tests.kit.admin import ROOT, checked
from tests.kit.configured import configured
from tests.kit.served import Served, served
from web.access import is_open
from web.admin.common import iso, milliseconds
from web.admin.table import entries
from web.logring import LogRing

SEED: Final = Path(__file__).parent / "seed_routes.txt"
MODELS: Final = "llama3:8b:4.7GB,me/deep:7b:1GB,nomic-embed-text:latest:274MB"
STEADY: Final = Profile(load_seconds=0.3, slots=4, tokens_per_second=200.0, prefill_per_second=20_000.0)
FILE: Final = "circuit_breaker:\n  adaptive: false\n  open_jitter: 0\n"
DEEP: Final = "me/deep:7b"
SPELLINGS: Final = ("me/deep:7b", "me%2Fdeep:7b", "me%2fdeep%3a7b", "ME/Deep:7B")
ISO: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
STATES: Final = {"closed", "open", "half-open"}


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    """The process keeps its log as `fleet serve` does."""
    ring, root, ours = LogRing(), logging.getLogger(), logging.getLogger("fleet")
    level = ours.level
    root.addHandler(ring)
    ours.setLevel(logging.INFO)
    yield
    root.removeHandler(ring)
    ours.setLevel(level)


class Here:
    """A running product and what a row needs of it. `url`: which of its ports is asked."""

    def __init__(self, fleet: Served, url: str) -> None:
        self.fleet, self.url = fleet, url
        self.began = time.time()
        self.took: list[float] = []

    async def ask(self, method: str, path: str, body: object = None, status: int = 200, **more: Any) -> Any:
        answer = await self.raw(method, ROOT + path, json=body, **more)
        assert answer.status_code == status, (method, path, answer.status_code, answer.text)
        found = checked(method, ROOT + path, answer)
        assert found["success"] is (status < 400) or path.endswith("recovery-test")
        return found

    async def raw(self, method: str, path: str, **more: Any) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=20.0) as client:
            return await client.request(method, path, **more)

    async def talk(self, times: int = 1, model: str = "llama3:8b", tokens: int = 30, stream: bool = False) -> None:
        """Requests of `tokens` / 200 seconds each; `took` says how long the client saw them take, in milliseconds."""
        for _ in range(times):
            began = trio.current_time()
            body = {"model": model, "prompt": "x", "stream": stream, "options": {"num_predict": tokens}}
            answer = await self.raw("POST", "/api/generate", json=body)
            assert answer.status_code == 200
            self.took.append(1000 * (trio.current_time() - began))

    async def fail(self, times: int = 3) -> None:
        """Requests for the deep model that server a refuses."""
        await self.ask("POST", "/bans", {"serverId": "b", "model": DEEP})
        self.fleet.sims["a"].host.faults.set("status:503:down")
        for _ in range(times):
            await self.raw("POST", "/api/generate", json={"model": DEEP, "prompt": "x", "stream": False})
        self.fleet.sims["a"].host.faults.set()

    def tell(self) -> None:
        """Two probes of server a have failed, 60 and 30 seconds ago; another came through since."""
        book, now = self.fleet.system.fleet.recoveries, trio.current_time()
        pair = Pair(ServerId("a"), ModelName(""))
        for ago, failure in ((60.0, Failure("connection_refused", "nobody listens")), (30.0, None)):
            book.attempt(pair, Source.HEALTH_CHECK, now - ago - 1.0, failure=Failure("timeout", "late"))
            book.attempt(pair, Source.HEALTH_CHECK, now - ago, failure=failure)

    def lately(self, shown: object) -> None:
        """`shown` is epoch milliseconds of now, or ISO 8601 in UTC with milliseconds."""
        if isinstance(shown, str):
            assert ISO.fullmatch(shown), shown
            moment = datetime.fromisoformat(shown).timestamp()
        else:
            assert type(shown) is int
            moment = shown / 1000
        assert self.began - 30.0 < moment < time.time() + 1.0, shown


Check = Callable[[Here, Any], Awaitable[None] | None]
Setup = Callable[[Here], Awaitable[None]]


@dataclass(frozen=True)
class Row:
    """One documented route: how it is asked, what must have happened before, and what the answer means."""

    path: str
    check: Check
    body: object = None
    setup: Setup | None = None


ROWS: Final[dict[str, Row]] = {}


def row(route: str, path: str, body: object = None, setup: Setup | None = None) -> Callable[[Check], Check]:
    def declared(check: Check) -> Check:
        assert route not in ROWS
        ROWS[route] = Row(path, check, body, setup)
        return check

    return declared


# ---- what must have happened


async def talked(here: Here) -> None:
    await here.talk(3)


async def streamed(here: Here) -> None:
    await here.talk(2, stream=True)


async def failed(here: Here) -> None:
    await here.fail()


async def half_open(here: Here) -> None:
    await loaded(here)
    for server in "ab":
        await here.ask("POST", f"/circuit-breakers/{server}/{DEEP}/half-open")


async def forced(here: Here) -> None:
    await here.ask("POST", f"/circuit-breakers/a/{DEEP}/open")


async def probed(here: Here) -> None:
    here.tell()


async def banned(here: Here) -> None:
    await here.ask("POST", "/bans", {"serverId": "a", "model": DEEP, "reason": "lies", "durationMs": 60_000})
    await here.ask("POST", "/bans", {"serverId": "b", "model": DEEP})
    await here.ask("POST", "/bans", {"serverId": "a", "model": "llama3:8b"})


async def paused(here: Here) -> None:
    await here.ask("POST", "/queue/pause")


async def drained(here: Here) -> None:
    await here.ask("POST", "/servers/a/drain", {"reason": "new disk"})


async def loaded(here: Here) -> None:
    """The model is in memory of one server, and the fleet has seen that it is."""
    await here.talk(model=DEEP, tokens=1)
    await here.ask("POST", "/health-check")


async def loading(here: Here) -> None:
    for sim in here.fleet.sims.values():
        sim.host.faults.set("hang-before-headers")
    await here.ask("POST", f"/models/{DEEP}/warmup", {"servers": ["a"]})


async def spare(here: Here) -> None:
    """Server b has lost the deep model."""
    await here.ask("DELETE", f"/servers/b/models/{DEEP}")


# ---- servers


@row("POST /api/orchestrator/servers/add", "/servers/add", {"id": "c", "url": "http://127.0.0.1:9", "tags": ["gpu"]})
async def _(here: Here, found: Any) -> None:
    server = found["server"]
    assert (server["id"], server["url"], server["maxConcurrency"]) == ("c", "http://127.0.0.1:9", 4)
    assert (server["priority"], server["tags"]) == (1, ["gpu"])
    assert server["healthy"] is False
    assert server["status"] in ("unhealthy", "unknown")
    assert (found["id"], found["url"], found["maxConcurrency"]) == ("c", "http://127.0.0.1:9", 4)
    assert "c" in [each["id"] for each in (await here.ask("GET", "/servers"))["servers"]]


@row("DELETE /api/orchestrator/servers/:id", "/servers/b")
async def _(here: Here, found: Any) -> None:
    assert found["id"] == "b"
    assert [each["id"] for each in (await here.ask("GET", "/servers"))["servers"]] == ["a"]


@row("PATCH /api/orchestrator/servers/:id", "/servers/a", {"maxConcurrency": 3, "priority": 2, "tags": ["x"]})
async def _(here: Here, found: Any) -> None:
    assert (found["id"], found["maxConcurrency"]) == ("a", 3)
    a = next(each for each in (await here.ask("GET", "/servers"))["servers"] if each["id"] == "a")
    assert (a["maxConcurrency"], a["priority"], a["tags"]) == (3, 2, ["x"])


@row("POST /api/orchestrator/servers/:id/drain", "/servers/a/drain", {"reason": "new disk"})
async def _(here: Here, found: Any) -> None:
    assert (found["serverId"], found["inFlightRequests"], found["state"]["why"]) == ("a", 0, "new disk")
    assert found["state"]["state"] in ("draining", "drained")
    here.lately(found["state"]["since"])
    await here.talk(2)
    shown = await here.ask("GET", "/metrics")
    assert [each["requests"] for each in shown["servers"]] == [0, 2]
    assert shown["servers"][0]["status"] in ("draining", "drained")


@row("POST /api/orchestrator/servers/:id/undrain", "/servers/a/undrain", setup=drained)
async def _(here: Here, found: Any) -> None:
    assert (found["serverId"], found["state"]["state"]) == ("a", "active")


@row(
    "POST /api/orchestrator/servers/:id/maintenance",
    "/servers/a/maintenance",
    {"enabled": True, "reason": "fans", "durationMs": 60_000},
)
async def _(here: Here, found: Any) -> None:
    assert (found["serverId"], found["maintenance"], found["state"]["why"]) == ("a", True, "fans")
    assert found["state"]["until"] == pytest.approx(1000 * (time.time() + 60), abs=2_000)
    ended = await here.ask("POST", "/servers/a/maintenance", {"enabled": False})
    assert (ended["maintenance"], ended["state"]["state"]) == (False, "active")


@row("GET /api/orchestrator/servers", "/servers")
async def _(here: Here, found: Any) -> None:
    assert found["count"] == len(found["servers"]) == 2
    for shown in found["servers"]:
        assert (shown["status"], shown["healthy"], shown["maxConcurrency"]) == ("healthy", True, 4)
        assert shown["models"] == ["llama3:8b", DEEP, "nomic-embed-text:latest"]
        assert (shown["draining"], shown["maintenance"], shown["supportsOllama"]) == (False, False, True)
        assert 0 <= shown["lastResponseTime"] < 5_000
        here.lately(shown["since"])


@row("GET /api/orchestrator/servers/:id/models", "/servers/a/models")
async def _(here: Here, found: Any) -> None:
    assert (found["serverId"], found["serverUrl"]) == ("a", here.fleet.sims["a"].url)
    assert {each["name"]: each["size"] for each in found["models"]}[DEEP] == 1_000_000_000


@row("POST /api/orchestrator/servers/:id/models/pull", "/servers/a/models/pull", {"model": "New/Model:1B"})
async def _(here: Here, found: Any) -> None:
    assert (found["serverId"], found["model"], found["details"]) == ("a", "New/Model:1B", {"status": "success"})
    listed = (await here.ask("GET", "/servers/a/models"))["models"]
    assert "New/Model:1B" in [each["name"] for each in listed]


@row("DELETE /api/orchestrator/servers/:id/models/:model", f"/servers/a/models/{DEEP}")
async def _(here: Here, found: Any) -> None:
    assert (found["serverId"], found["model"]) == ("a", DEEP)
    assert DEEP not in [each["name"] for each in (await here.ask("GET", "/servers/a/models"))["models"]]


@row(
    "POST /api/orchestrator/servers/:id/models/copy",
    "/servers/b/models/copy",
    {"model": DEEP, "sourceServerId": "a"},
    spare,
)
async def _(here: Here, found: Any) -> None:
    assert (found["serverId"], found["model"], found["sourceServerId"]) == ("b", DEEP, "a")
    assert DEEP in [each["name"] for each in (await here.ask("GET", "/servers/b/models"))["models"]]


# ---- metrics and health


@row("GET /api/orchestrator/metrics", "/metrics", setup=talked)
async def _(here: Here, found: Any) -> None:
    whole, took = found["global"], sum(here.took) / len(here.took)
    assert found["timeRange"] == "1h"
    assert (whole["totalRequests"], whole["totalErrors"], whole["errorRate"]) == (3, 0, 0)
    assert 0.5 * took < whole["avgLatency"] <= took + 1, "milliseconds, as the client saw them"
    assert 140 <= whole["p95Latency"] <= 1.05 * max(here.took) + 1
    assert 0 < whole["requestsPerSecond"] <= 3
    assert [each["id"] for each in found["servers"]] == ["a", "b"]
    assert sum(each["requests"] for each in found["servers"]) == 3
    assert all(0 <= each["utilization"] <= 1 and each["status"] == "healthy" for each in found["servers"])
    assert found["serverMetrics"].keys() == {"a", "b"}
    here.lately(found["timestamp"])
    assert found["timestamp"] >= 1000 * here.began


@row("GET /api/orchestrator/metrics/:serverId/:model", "/metrics/a/llama3:8b", setup=streamed)
async def _(here: Here, found: Any) -> None:
    other = await here.ask("GET", "/metrics/b/llama3:8b")
    a, b = (each["metrics"]["historical"]["1m"] for each in (found, other))
    assert (found["serverId"], found["model"]) == ("a", "llama3:8b")
    assert a["count"] + b["count"] == 2
    assert a["tokensGenerated"] + b["tokensGenerated"] == 60
    assert 280 <= a["latencySum"] + b["latencySum"] <= sum(here.took) + 2
    served_by = found if a["count"] else other
    metrics = served_by["metrics"]
    assert metrics["historical"].keys() == {"1m", "5m", "15m", "1h", "24h"}
    assert metrics["derived"]["successRate"] == 1
    assert metrics["derived"]["avgTokensPerRequest"] == 30
    assert 140 <= metrics["percentiles"]["p50"] <= 1.05 * max(here.took) + 1
    assert 0 < metrics["streaming"]["avgTTFT"] < metrics["percentiles"]["p99"] * 1.1
    here.lately(metrics["lastUsed"])
    assert metrics["realtime"] == {"inFlight": 0, "queued": 0}


@row("GET /api/orchestrator/health", "/health", setup=talked)
async def _(here: Here, found: Any) -> None:
    assert (found["status"], found["servers"], found["reasons"]) == ("healthy", 2, [])
    assert 0.3 < found["uptime"] < 60, "seconds"
    assert re.match(r"\d+\.\d+", found["version"])
    assert 0 < found["requestsPerSecond"] <= 3
    for name in "ab":
        await here.ask("POST", f"/servers/{name}/drain")
    down = await here.ask("GET", "/health")
    assert (down["status"], down["reasons"][0]["code"]) == ("unhealthy", "no_server")


@row("GET /api/orchestrator/stats", "/stats", setup=failed)
async def _(here: Here, found: Any) -> None:
    stats = found["stats"]
    assert (stats["totalServers"], stats["healthyServers"], stats["totalModels"]) == (2, 2, 3)
    assert stats["circuitBreakers"] == {f"a:{DEEP}": {"state": "open", "failureCount": 3}}
    assert (stats["inFlightRequests"], stats["totalRequests"], stats["totalErrors"]) == (0, 3, 3)
    assert stats["errorRate"] == 1


# ---- queue and requests


@row("GET /api/orchestrator/queue", "/queue", setup=paused)
async def _(here: Here, found: Any) -> None:
    assert (found["queue"]["currentSize"], found["queue"]["maxSize"], found["queue"]["paused"]) == (0, 1000, True)
    assert found["queue"]["oldestRequest"] is None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.talk)
        with trio.fail_after(5):
            while not here.fleet.system.queue_view(0).waiting:
                await trio.sleep(0.01)
        await trio.sleep(0.2)
        shown = (await here.ask("GET", "/queue"))["queue"]
        assert (shown["currentSize"], shown["processing"], shown["waiting"]) == (1, 0, 1)
        assert (shown["totalQueued"], shown["byModel"], shown["byPriority"]) == (1, {"llama3:8b": 1}, {"0": 1})
        here.lately(shown["oldestRequest"])
        (item,) = shown["items"]
        here.lately(item["enqueueTime"])
        assert 200 <= item["waitTime"] < 5_000, "milliseconds"
        assert item["deadline"] - item["enqueueTime"] == pytest.approx(300_000, abs=1_000)
        await here.ask("POST", "/queue/resume")
    assert 200 <= (await here.ask("GET", "/queue"))["queue"]["avgWaitTime"] < 5_000


@row("POST /api/orchestrator/queue/pause", "/queue/pause")
async def _(here: Here, found: Any) -> None:
    assert found["paused"] is True
    here.lately(found["since"])


@row("POST /api/orchestrator/queue/resume", "/queue/resume", setup=paused)
async def _(here: Here, found: Any) -> None:
    assert found["paused"] is False
    await here.talk()


@row("GET /api/orchestrator/in-flight", "/in-flight")
async def _(here: Here, found: Any) -> None:
    assert (found["total"], found["inFlight"]) == (0, [])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.talk, 1, "llama3:8b", 100, True)
        with trio.fail_after(5):
            shown = await here.ask("GET", "/in-flight")
            while not (shown["total"] and shown["inFlight"][0]["streamingRequests"][0]["chunkCount"]):
                shown = await here.ask("GET", "/in-flight")
        (server,) = shown["inFlight"]
        (request,) = server["streamingRequests"]
        assert (shown["total"], server["total"]) == (1, 1)
        assert server["byModel"] == {"llama3:8b": {"regular": 1, "bypass": 0}}
        assert server["serverUrl"] == here.fleet.sims[server["serverId"]].url
        assert (request["isStalled"], request["hasReceivedFirstChunk"]) == (False, True)
        here.lately(request["startTime"])
        assert request["startTime"] <= request["lastChunkTime"]


# ---- models


@row("POST /api/orchestrator/models/:model/warmup", f"/models/{DEEP}/warmup", {"servers": ["a"], "priority": "high"})
async def _(here: Here, found: Any) -> None:
    (job,) = found["jobs"]
    assert (found["model"], job["serverId"], job["status"], job["loadTime"]) == (DEEP, "a", "loading", 0)
    assert job["estimatedTime"] >= 100, "milliseconds"
    assert found["summary"] == {"totalServers": 1, "loadedOn": 0, "loadingOn": 1, "failedOn": 0}
    assert await here.fleet.system.jobs.get(job["jobId"]).wait(5.0)
    again = await here.ask("POST", f"/models/{DEEP}/warmup", {"servers": ["a"]})
    assert again["jobs"][0]["status"] == "loaded"
    assert 50 <= again["jobs"][0]["loadTime"] < 5_000, "milliseconds"
    everywhere = await here.ask("POST", f"/models/{DEEP}/warmup")
    assert everywhere["summary"]["totalServers"] == 2


@row("GET /api/orchestrator/models/:model/status", f"/models/{DEEP}/status", setup=loaded)
async def _(here: Here, found: Any) -> None:
    assert found["model"] == DEEP
    counts = found["status"]
    assert (counts["totalServers"], counts["loadedOn"], counts["notLoadedOn"]) == (2, 1, 1)
    there = next(each for each in found["servers"] if each["status"] == "loaded")
    here.lately(there["lastUsed"])
    assert next(each for each in found["servers"] if each["status"] != "loaded")["status"] == "not_loaded"


@row("GET /api/orchestrator/models/status", "/models/status", setup=loaded)
async def _(here: Here, found: Any) -> None:
    assert (found["summary"]["totalServers"], found["summary"]["totalModels"]) == (2, 3)
    assert found["summary"]["loadedModels"] == 1
    on = found["models"][DEEP]["servers"]
    there = next(each for each in on.values() if each["loaded"])
    here.lately(there["lastUsed"])
    assert there["gpuMemory"] == pytest.approx(1_000_000_000 / 2**20, abs=1), "megabytes"


@row("GET /api/orchestrator/models/recommendations", "/models/recommendations")
async def _(here: Here, found: Any) -> None:
    assert (found["recommendations"], found["count"]) == ([], 0)
    await here.talk(12, model=DEEP, tokens=1)
    for sim in here.fleet.sims.values():
        for runner in tuple(sim.host.server.runners.values()):
            sim.host.server.crash(runner, trio.current_time())
    await here.ask("POST", "/health-check")
    shown = await here.ask("GET", "/models/recommendations")
    assert shown["count"] == len(shown["recommendations"]) == 1
    (advice,) = shown["recommendations"]
    assert (advice["model"], advice["requests"], advice["residentOn"]) == (DEEP, 12, [])
    assert advice["reason"]


@row("POST /api/orchestrator/models/:model/unload", f"/models/{DEEP}/unload", setup=loaded)
async def _(here: Here, found: Any) -> None:
    (result,) = found["results"]
    assert (found["model"], result["success"], result["status"]) == (DEEP, True, "unloaded")
    assert (found["summary"]["totalServers"], found["summary"]["successfullyUnloaded"]) == (1, 1)
    await here.ask("POST", f"/models/{DEEP}/unload", {"serverId": result["serverId"]}, status=404)


@row("POST /api/orchestrator/models/:model/cancel", f"/models/{DEEP}/cancel", setup=loading)
async def _(here: Here, found: Any) -> None:
    assert (found["model"], found["cancelled"]) == (DEEP, 1)
    assert (await here.ask("POST", f"/models/{DEEP}/cancel"))["cancelled"] == 0


@row("GET /api/orchestrator/models/idle", "/models/idle?threshold=200", setup=loaded)
async def _(here: Here, found: Any) -> None:
    assert found["threshold"] == 200
    with trio.fail_after(5):
        while not found["models"]:
            await trio.sleep(0.05)
            found = await here.ask("GET", "/models/idle?threshold=200")
    (idle,) = found["models"]
    assert (idle["model"], idle["idleTimeMinutes"], found["count"]) == (DEEP, 0, 1)
    assert 200 <= idle["idleTime"] < 5_000, "milliseconds"
    usual = await here.ask("GET", "/models/idle")
    assert (usual["threshold"], usual["count"]) == (1_800_000, 0)


@row("GET /api/orchestrator/models/fleet-stats", "/models/fleet-stats", setup=spare)
def _(here: Here, found: Any) -> None:
    assert (found["totalServers"], found["healthyServers"], found["totalUniqueModels"]) == (2, 2, 3)
    shown = {each["name"]: each for each in found["popularModels"]}
    assert (shown[DEEP]["serverCount"], shown[DEEP]["percentage"]) == (1, 50)
    assert shown[DEEP]["servers"] == [here.fleet.sims["a"].url]
    assert shown["llama3:8b"]["percentage"] == 100


@row("GET /api/orchestrator/model-map", "/model-map", setup=spare)
def _(here: Here, found: Any) -> None:
    assert found["modelToServers"][DEEP] == ["a"]
    assert sorted(found["modelToServers"]["llama3:8b"]) == ["a", "b"]
    assert sorted(found["serverToModels"]["b"]) == ["llama3:8b", "nomic-embed-text:latest"]
    assert (found["totalModels"], found["totalServers"]) == (3, 2)


@row("GET /api/orchestrator/models", "/models")
def _(here: Here, found: Any) -> None:
    assert found["models"] == sorted(("llama3:8b", DEEP, "nomic-embed-text:latest"))
    assert found["count"] == 3


# ---- configuration


@row("GET /api/orchestrator/config", "/config")
def _(here: Here, found: Any) -> None:
    assert found["config"]["port"] == 5100 or found["config"]["port"] == 0
    assert found["config"]["enableQueue"] is True
    wanted = {
        "baseFailureThreshold": 3,
        "openTimeout": 120_000,
        "halfOpenTimeout": 300_000,
        "halfOpenMaxRequests": 3,
        "recoverySuccessThreshold": 5,
        "activeTestTimeout": 300_000,
        "errorRateThreshold": 0.3,
    }
    assert found["config"]["circuitBreaker"].items() >= wanted.items()
    assert found["source"].endswith("config.yml")


@row("POST /api/orchestrator/config", "/config", {"enableCircuitBreaker": False})
async def _(here: Here, found: Any) -> None:
    assert found["config"]["enableCircuitBreaker"] is False
    assert (await here.ask("GET", "/config"))["config"]["enableCircuitBreaker"] is False


@row("PATCH /api/orchestrator/config/:section", "/config/queue", {"maxSize": 7})
async def _(here: Here, found: Any) -> None:
    assert (found["section"], found["config"]["queue"]["maxSize"]) == ("queue", 7)
    assert (await here.ask("GET", "/queue"))["queue"]["maxSize"] == 7, "it takes effect"


async def changed(here: Here) -> None:
    await here.ask("PATCH", "/config/queue", {"maxSize": 7})


@row("POST /api/orchestrator/config/reload", "/config/reload", setup=changed)
async def _(here: Here, found: Any) -> None:
    assert found["config"]["queue"]["maxSize"] == 1000
    await here.ask("POST", "/config/reload", {"configPath": "missing.yaml"}, status=404)


@row("POST /api/orchestrator/config/save", "/config/save", setup=changed)
async def _(here: Here, found: Any) -> None:
    assert found["path"].endswith("config.yml")
    assert (await here.ask("POST", "/config/reload"))["config"]["queue"]["maxSize"] == 7


@row("GET /api/orchestrator/config/schema", "/config/schema")
def _(here: Here, found: Any) -> None:
    shown = found["schema"]["properties"]
    assert found["schema"]["type"] == "object"
    assert [each["maximum"] for each in shown["port"]["anyOf"] if each["type"] == "integer"] == [65535]
    assert {"queue", "loadBalancer", "circuitBreaker", "security"} <= shown.keys()


# ---- breakers


@row("GET /api/orchestrator/circuit-breakers", "/circuit-breakers", setup=failed)
def _(here: Here, found: Any) -> None:
    (shown,) = found["circuitBreakers"]
    assert (shown["serverId"], shown["model"], shown["state"]) == ("a", DEEP, "OPEN")
    assert (shown["failureCount"], shown["errorRate"]) == (3, 1)
    here.lately(shown["lastFailure"])
    assert shown["nextRetryAt"] > 1000 * time.time()
    assert 0 <= shown["lbScore"]["totalScore"] <= 100


@row("GET /api/orchestrator/circuit-breakers/:serverId/:model", f"/circuit-breakers/a/{DEEP}", setup=failed)
async def _(here: Here, found: Any) -> None:
    shown = found["breaker"]
    assert (shown["serverId"], shown["model"], shown["state"], shown["failureCount"]) == ("a", DEEP, "open", 3)
    here.lately(shown["lastFailure"])
    assert (found["key"], found["stats"]["state"]) == (f"a:{DEEP}", "open")
    fresh = (await here.ask("GET", "/circuit-breakers/a/llama3:8b"))["breaker"]
    assert (fresh["state"], fresh["failureCount"], fresh["lastFailure"]) == ("closed", 0, None)


@row("GET /api/orchestrator/circuit-breakers/:serverId", "/circuit-breakers/a", setup=failed)
def _(here: Here, found: Any) -> None:
    states = {each["model"]: each["state"] for each in found["circuitBreakers"]}
    assert states == {DEEP: "open", "llama3:8b": "closed", "nomic-embed-text:latest": "closed"}
    assert (found["serverId"], found["count"], found["stats"]["failureCount"]) == ("a", 3, 3)


@row(
    "POST /api/orchestrator/circuit-breakers/:serverId/:model/reset", f"/circuit-breakers/a/{DEEP}/reset", setup=failed
)
def _(here: Here, found: Any) -> None:
    assert (found["previousState"], found["currentState"], found["testCancelled"]) == ("open", "closed", False)


def _forced_to(state: str) -> Check:
    async def check(here: Here, found: Any) -> None:
        shown = found["circuitBreaker"]
        assert (shown["name"], shown["state"], shown["forcedBy"]) == (f"a:{DEEP}", state, "anonymous")
        here.lately(shown["forcedSince"])
        looked = await here.ask("GET", f"/circuit-breakers/a/{DEEP}")
        assert looked["breaker"]["state"] == state.lower()
        assert looked["breaker"]["state"] in STATES

    return check


for _word, _state in (("open", "OPEN"), ("close", "CLOSED"), ("half-open", "HALF-OPEN")):
    row(
        f"POST /api/orchestrator/circuit-breakers/:serverId/:model/{_word}",
        f"/circuit-breakers/a/{DEEP}/{_word}",
        setup=failed,
    )(_forced_to(_state))


@row("POST /api/orchestrator/circuit-breakers/:serverId/reset", "/circuit-breakers/a/reset", setup=failed)
async def _(here: Here, found: Any) -> None:
    assert found["currentState"] == "closed"
    assert (await here.ask("GET", f"/circuit-breakers/a/{DEEP}"))["breaker"]["failureCount"] == 0


@row(
    "GET /api/orchestrator/servers/:serverId/models/:model/circuit-breaker",
    f"/servers/a/models/{DEEP}/circuit-breaker",
    setup=failed,
)
def _(here: Here, found: Any) -> None:
    shown = found["circuitBreaker"]
    assert (shown["name"], shown["state"]) == (f"a:{DEEP}", "OPEN")
    assert (shown["errorRate"], shown["errorRatePercent"]) == (1, 100)


@row(
    "POST /api/orchestrator/servers/:serverId/models/:model/recovery-test",
    f"/servers/a/models/{DEEP}/recovery-test",
)
async def _(here: Here, found: Any) -> None:
    assert (found["success"], found["breakerState"]) == (False, "closed")
    await half_open(here)
    tested = [await here.ask("POST", f"/servers/{each}/models/{DEEP}/recovery-test") for each in "ab"]
    assert sorted(each["success"] for each in tested) == [False, True], "only one has the model in memory"
    assert {each["breakerState"] for each in tested} == {"half-open"}, "forced, so it stays"


# ---- recovery failures


@row("GET /api/orchestrator/recovery-failures", "/recovery-failures", setup=probed)
async def _(here: Here, found: Any) -> None:
    assert (found["totalServers"], found["serversWithFailures"]) == (2, 1)
    assert (found["totalRecoveryAttempts"], found["totalFailures"], found["overallFailureRate"]) == (4, 3, 0.75)
    assert found["topFailingServers"] == [{"serverId": "a", "failureCount": 3}]
    assert found["timeRange"]["end"] - found["timeRange"]["start"] == pytest.approx(86_400_000, abs=5)
    narrow = await here.ask("GET", "/recovery-failures?windowMs=45000")
    assert narrow["totalRecoveryAttempts"] == 2


@row("GET /api/orchestrator/recovery-failures/stats/all", "/recovery-failures/stats/all", setup=probed)
def _(here: Here, found: Any) -> None:
    assert found["count"] == 2
    assert {each["serverId"]: each["failedRecoveries"] for each in found["servers"]} == {"a": 3, "b": 0}


@row("GET /api/orchestrator/recovery-failures/recent", "/recovery-failures/recent", setup=probed)
async def _(here: Here, found: Any) -> None:
    times = [each["timestamp"] for each in found["records"]]
    assert found["count"] == 3
    assert times == sorted(times, reverse=True)
    assert all(1e12 < each < 1e13 for each in times), "milliseconds"
    assert (await here.ask("GET", "/recovery-failures/recent?limit=1"))["count"] == 1


@row("GET /api/orchestrator/recovery-failures/:serverId", "/recovery-failures/a", setup=probed)
def _(here: Here, found: Any) -> None:
    assert (found["totalRecoveryAttempts"], found["successfulRecoveries"], found["failedRecoveries"]) == (4, 1, 3)
    assert found["failureRate"] == 0.75
    assert found["averageTimeBetweenFailures"] == pytest.approx(15_000, abs=1), "milliseconds"
    assert found["currentConsecutiveFailures"] == 0


@row("GET /api/orchestrator/recovery-failures/:serverId/history", "/recovery-failures/a/history", setup=probed)
async def _(here: Here, found: Any) -> None:
    assert (found["serverId"], found["count"], found["limit"], found["offset"]) == ("a", 3, 50, 0)
    assert found["history"][0]["source"] == "health_check"
    page = await here.ask("GET", "/recovery-failures/a/history?limit=1&offset=1")
    assert page["history"] == found["history"][1:2]


@row("GET /api/orchestrator/recovery-failures/:serverId/analysis", "/recovery-failures/a/analysis", setup=probed)
def _(here: Here, found: Any) -> None:
    assert (found["windowMs"], found["serverId"], found["attempts"], found["failures"]) == (3_600_000, "a", 4, 3)
    assert 0 < found["confidence"] <= 1
    assert found["recommendations"]


@row(
    "GET /api/orchestrator/recovery-failures/:serverId/circuit-breaker-impact",
    "/recovery-failures/a/circuit-breaker-impact",
    setup=failed,
)
def _(here: Here, found: Any) -> None:
    assert (found["serverId"], found["isImpacted"], found["openTransitions"], found["openNow"]) == ("a", True, 1, 1)


@row(
    "GET /api/orchestrator/recovery-failures/:serverId/circuit-breaker-transitions",
    "/recovery-failures/a/circuit-breaker-transitions",
    setup=failed,
)
def _(here: Here, found: Any) -> None:
    (move,) = found["transitions"]
    assert (move["model"], move["previousState"], move["newState"]) == (DEEP, "closed", "open")
    here.lately(move["timestamp"])


@row("POST /api/orchestrator/recovery-failures/:serverId/reset", "/recovery-failures/a/reset", setup=probed)
async def _(here: Here, found: Any) -> None:
    assert (await here.ask("GET", "/recovery-failures/a"))["totalRecoveryAttempts"] == 0


# ---- bans


@row("GET /api/orchestrator/bans", "/bans", setup=banned)
def _(here: Here, found: Any) -> None:
    assert found["count"] == len(found["bans"]) == 3
    first, second, _third = found["bans"]
    about = {"serverId": "a", "model": DEEP, "key": f"a:{DEEP}", "type": "ban", "reason": "lies"}
    assert first.items() >= about.items()
    here.lately(first["bannedAt"])
    assert first["expiresAt"] - first["bannedAt"] == pytest.approx(60_000, abs=2)
    assert second["expiresAt"] is None


@row("DELETE /api/orchestrator/bans", "/bans", setup=banned)
async def _(here: Here, found: Any) -> None:
    assert found["removed"] == 3
    assert (await here.ask("DELETE", "/bans"))["removed"] == 0


@row("DELETE /api/orchestrator/bans/server/:serverId", "/bans/server/a", setup=banned)
async def _(here: Here, found: Any) -> None:
    assert found["removed"] == 2
    assert [each["serverId"] for each in (await here.ask("GET", "/bans"))["bans"]] == ["b"]


@row("DELETE /api/orchestrator/bans/model/:model", f"/bans/model/{DEEP}", setup=banned)
async def _(here: Here, found: Any) -> None:
    assert found["removed"] == 2
    assert [each["model"] for each in (await here.ask("GET", "/bans"))["bans"]] == ["llama3:8b"]


@row("DELETE /api/orchestrator/bans/:serverId/:model", f"/bans/a/{DEEP}", setup=banned)
async def _(here: Here, found: Any) -> None:
    assert found["removed"] == 1
    await here.ask("DELETE", f"/bans/a/{DEEP}", status=404)
    assert (await here.ask("GET", "/bans"))["count"] == 2


# ---- logs


@row("GET /api/orchestrator/logs", "/logs?limit=2", setup=talked)
async def _(here: Here, found: Any) -> None:
    assert found["count"] == len(found["logs"]) == 2
    assert found["total"] >= 2
    for each in found["logs"]:
        here.lately(each["timestamp"])
        assert each["level"] in ("debug", "info", "warning", "error")
        assert each["message"]


@row("POST /api/orchestrator/logs/clear", "/logs/clear", setup=talked)
async def _(here: Here, found: Any) -> None:
    assert found["removed"] >= 1
    assert (await here.ask("GET", "/logs"))["total"] < found["removed"] + 2


# ---- the table itself


def documented() -> set[str]:
    return {line for line in SEED.read_text().splitlines() if line and not line.startswith("#")}


def test_every_documented_route_has_its_row_and_no_row_is_about_anything_else() -> None:
    assert ROWS.keys() == documented()


@pytest.mark.parametrize("route", list(ROWS))
def test_a_row_asks_the_route_it_stands_for(route: str) -> None:
    _, path = route.split()
    pattern = re.sub(r":model\b", ".+", path)
    assert re.fullmatch(re.sub(r":\w+", "[^/]+", pattern), (ROOT + ROWS[route].path).partition("?")[0])


@asynccontextmanager
async def running(directory: Path, url: str = "proxy") -> AsyncIterator[Here]:
    """The product with two servers and a file."""
    (directory / "config.yml").unlink(missing_ok=True)
    async with configured(directory, "a", "b", models=MODELS, profile=STEADY, text=FILE) as fleet:
        yield Here(fleet, fleet.url if url == "proxy" else fleet.orchestrator_url)


@pytest.mark.parametrize("port", ["proxy", "orchestrator"])
@pytest.mark.parametrize("route", list(ROWS))
async def test_the_contract(route: str, port: str, tmp_path: Path) -> None:
    line, method = ROWS[route], route.split()[0]
    async with running(tmp_path, port) as here:
        if line.setup is not None:
            await line.setup(here)
        found = await here.ask(method, line.path, line.body)
        pending = line.check(here, found)
        if pending is not None:
            await pending


# ---- errors


@dataclass(frozen=True)
class Fault:
    """A call that is refused: its status, and a word that its error must have."""

    method: str
    path: str
    body: object
    status: int
    says: str


FAULTS: Final = (
    Fault("POST", "/servers/add", {"id": "c"}, 400, "url"),
    Fault("POST", "/servers/add", {"id": "c", "url": "ftp://x"}, 400, "url"),
    Fault("POST", "/servers/add", {"id": "c", "url": "http://127.0.0.1:9", "maxConcurrency": 0}, 400, "maxConcurrency"),
    Fault("POST", "/servers/add", {"id": "c", "url": "http://127.0.0.1:9", "colour": 1}, 400, "colour"),
    Fault("POST", "/servers/add", {"id": "a", "url": "http://127.0.0.1:9"}, 409, "'a' already exists"),
    Fault("DELETE", "/servers/nope", None, 404, "'nope'"),
    Fault("DELETE", "/servers/a?force=maybe", None, 400, "force must be true or false"),
    Fault("DELETE", "/servers/a?drain=nope", None, 400, "drain must be true or false"),
    Fault("PATCH", "/servers/nope", {"maxConcurrency": 3}, 404, "'nope'"),
    Fault("PATCH", "/servers/a", {"maxConcurrency": -5}, 400, "maxConcurrency"),
    Fault("PATCH", "/servers/a", {}, 400, "nothing to change"),
    Fault("POST", "/servers/nope/drain", None, 404, "'nope'"),
    Fault("POST", "/servers/nope/undrain", None, 404, "'nope'"),
    Fault("POST", "/servers/nope/maintenance", {}, 404, "'nope'"),
    Fault("POST", "/servers/a/maintenance", {"enabled": "perhaps"}, 400, "enabled"),
    Fault("POST", "/servers/a/maintenance", {"until": 1}, 400, "until"),
    Fault("GET", "/servers/nope/models", None, 404, "'nope'"),
    Fault("POST", "/servers/a/models/pull", {}, 400, "model"),
    Fault("POST", "/servers/nope/models/pull", {"model": "x"}, 404, "'nope'"),
    Fault("DELETE", "/servers/nope/models/x", None, 404, "'nope'"),
    Fault("DELETE", "/servers/a/models/absent:1b", None, 404, "absent"),
    Fault("POST", "/servers/a/models/copy", {"model": "absent:1b", "sourceServerId": "b"}, 400, "absent"),
    Fault("POST", "/servers/a/models/copy", {"model": "x", "sourceServerId": "nope"}, 404, "source server 'nope'"),
    Fault("POST", "/servers/nope/models/copy", {"model": "x"}, 404, "target server 'nope'"),
    Fault("GET", "/metrics?timeRange=yesterday", None, 400, "timeRange"),
    Fault("GET", "/metrics/nope/llama3:8b", None, 404, "'nope'"),
    Fault("GET", "/metrics/a/absent", None, 404, "absent"),
    Fault("POST", "/models/absent/warmup", None, 404, "absent"),
    Fault("POST", f"/models/{DEEP}/warmup", {"servers": ["a", "nope"]}, 404, "'nope'"),
    Fault("POST", f"/models/{DEEP}/warmup", {"priority": "urgent"}, 400, "priority"),
    Fault("POST", f"/models/{DEEP}/warmup", {"servers": "a"}, 400, "servers"),
    Fault("GET", "/models/absent/status", None, 404, "absent"),
    Fault("POST", f"/models/{DEEP}/unload", None, 404, "not loaded"),
    Fault("POST", f"/models/{DEEP}/unload", {"serverId": "nope"}, 404, "'nope'"),
    Fault("POST", "/models/absent/cancel", None, 404, "absent"),
    Fault("GET", "/models/idle?threshold=-1", None, 400, "between 0 and 604800000"),
    Fault("GET", "/models/idle?threshold=soon", None, 400, "threshold must be a number"),
    Fault("POST", "/config", {"port": 99_999}, 400, "port"),
    Fault("PATCH", "/config/nonsense", {}, 400, "section"),
    Fault("PATCH", "/config/queue", {"maxSize": "many"}, 400, "queue.max_size"),
    # it was accepted, and then an ERROR with the whole name was logged for a file that cannot be
    Fault("POST", "/config", {"security": {"keysFile": "0" * 256}}, 400, "255 bytes"),
    Fault("POST", "/config", {"security": {"keysFile": "0" * 5000}}, 400, "keys_file"),
    Fault("POST", "/config/reload", {"configPath": "missing.json"}, 404, "missing.json"),
    Fault("POST", "/config/reload", {"configPath": "../../etc/passwd"}, 400, "must end in .yml"),
    Fault("POST", "/config/reload", {"configPath": "../../etc/passwd.yml"}, 400, "directory"),
    Fault("GET", "/circuit-breakers/nope", None, 404, "'nope'"),
    Fault("GET", "/circuit-breakers/nope/x", None, 404, "'nope'"),
    Fault("GET", "/circuit-breakers/a/no%20name", None, 404, "not a valid model name"),
    Fault("POST", "/circuit-breakers/nope/reset", None, 404, "'nope'"),
    Fault("POST", "/circuit-breakers/nope/x/reset", None, 404, "'nope'"),
    Fault("POST", "/circuit-breakers/a/absent/open", None, 404, "absent"),
    Fault("POST", "/circuit-breakers/a/absent/close", None, 404, "absent"),
    Fault("POST", "/circuit-breakers/a/absent/half-open", None, 404, "absent"),
    Fault("GET", "/servers/nope/models/x/circuit-breaker", None, 404, "'nope'"),
    Fault("POST", "/servers/nope/models/x/recovery-test", None, 404, "'nope'"),
    Fault("GET", "/recovery-failures?windowMs=1", None, 400, "between 1000 and 604800000"),
    Fault("GET", "/recovery-failures/recent?limit=1.5", None, 400, "limit must be a whole number"),
    Fault("GET", "/recovery-failures/nope", None, 404, "'nope'"),
    Fault("GET", "/recovery-failures/nope/history", None, 404, "'nope'"),
    Fault("GET", "/recovery-failures/a/history?offset=1000001", None, 400, "between 0 and 1000000"),
    Fault("GET", "/recovery-failures/nope/analysis", None, 404, "'nope'"),
    Fault("GET", "/recovery-failures/nope/circuit-breaker-impact", None, 404, "'nope'"),
    Fault("GET", "/recovery-failures/nope/circuit-breaker-transitions", None, 404, "'nope'"),
    Fault("POST", "/recovery-failures/nope/reset", None, 404, "'nope'"),
    Fault("GET", "/bans?type=both", None, 400, "type must be one of"),
    Fault("DELETE", "/bans/server/nope", None, 404, "'nope'"),
    Fault("DELETE", "/bans/a/llama3:8b", None, 404, "a:llama3:8b"),
    Fault("GET", "/queue?limit=0", None, 400, "limit must lie between"),
    Fault("GET", "/in-flight?limit=x", None, 400, "limit must be a whole number"),
    Fault("GET", "/logs?level=loud", None, 400, "level must be one of"),
    Fault("GET", "/logs?since=yesterday", None, 400, "since"),
)


async def test_what_is_refused_names_the_field_or_the_thing_and_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        before = (await here.ask("GET", "/config"))["config"]
        for each in FAULTS:
            found = await here.ask(each.method, each.path, each.body, status=each.status)
            told = found["error"] + found.get("details", "")
            assert each.says in told, (each, told)
        assert (await here.ask("GET", "/config"))["config"] == before
        servers = (await here.ask("GET", "/servers"))["servers"]
        assert [(each["id"], each["status"]) for each in servers] == [("a", "healthy"), ("b", "healthy")]


async def test_an_equivalent_url_is_refused_with_the_four_fields_of_the_reference(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        url = here.fleet.sims["a"].url
        found = await here.ask("POST", "/servers/add", {"id": "c", "url": url + "/"}, status=409)
        assert (found["existingServerId"], found["existingUrl"]) == ("a", url)
        assert (found["requestedUrl"], found["normalizedUrl"]) == (url + "/", url)


# ---- names, methods, bodies, on both ports


USED_UP: Final = (banned, loaded, loading)
"""What must happen again before each call: the call before has undone it."""


def of_models() -> list[str]:
    return [route for route in ROWS if ":model" in route]


@pytest.mark.parametrize("route", of_models())
async def test_a_model_is_found_by_every_spelling_of_its_name_on_both_ports(route: str, tmp_path: Path) -> None:
    line, method = ROWS[route], route.split()[0]
    where = line.path.replace("llama3:8b", DEEP)
    async with running(tmp_path) as here:
        if line.setup is not None and line.setup not in USED_UP:
            await line.setup(here)
        for url in (here.fleet.url, here.fleet.orchestrator_url):
            here.url = url
            for name in SPELLINGS:
                if line.setup is not None and line.setup in USED_UP:
                    await line.setup(here)
                if method == "DELETE" and where.startswith("/servers"):
                    await here.ask("POST", "/servers/a/models/pull", {"model": DEEP})
                answer = await here.raw(method, ROOT + where.replace(DEEP, name), json=line.body)
                assert answer.status_code == 200, (name, answer.text)
                assert answer.json().get("model", DEEP).lower() == DEEP
                assert answer.json().get("removed", 1) > 0
            twice = await here.raw(method, ROOT + where.replace(DEEP, "me%252Fdeep:7b"), json=line.body)
            assert twice.status_code in (200, 400, 404)
            assert twice.status_code != 200 or twice.json()["removed"] == 0, "what is encoded twice is another name"


async def test_unknown_paths_and_wrong_methods_are_told_in_the_admin_apis_words(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        for url in (here.fleet.url, here.fleet.orchestrator_url):
            here.url = url
            for path in ("", "/", "/nope", "//servers", "/servers/", "/metrics/a", "/health/nope"):
                for method in ("GET", "POST", "OPTIONS"):
                    answer = await here.raw(method, ROOT + path)
                    if method != "GET" and path in ("/servers/", "/health/nope", "/metrics/a"):
                        continue
                    assert answer.status_code in (404, 405), (method, path)
                    assert answer.json()["success"] is False
            for method, path, allowed in (
                ("PUT", "/servers", "GET, HEAD"),
                ("OPTIONS", "/servers", "GET, HEAD"),
                ("GET", "/queue/pause", "DELETE, POST"),
                ("POST", "/health", "GET, HEAD"),
                ("PUT", "/bans", "DELETE, GET, HEAD, POST"),
            ):
                answer = await here.raw(method, ROOT + path)
                assert (answer.status_code, answer.headers["allow"]) == (405, allowed), (method, path)
                assert answer.json() == {"success": False, "error": "method not allowed"}
            head = await here.raw("HEAD", ROOT + "/servers")
            assert (head.status_code, head.content) == (200, b"")
            assert int(head.headers["content-length"]) > 100


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{bad", 400, "not valid JSON"),
        (b'{"model": NaN}', 400, "not valid JSON"),
        (b"[]", 400, "must be a JSON object"),
        (b"null", 400, "must be a JSON object"),
        (b'"x"', 400, "must be a JSON object"),
        (b"\xff\xfe", 400, "not valid JSON"),
        (b"", 400, "serverId: Field required; model: Field required"),
        (b'{"serverId": ["a"], "model": 1}', 400, "serverId: "),
        (b'{"serverId": "nope", "serverId": "a", "model": "x"}', 200, ""),  # the last of two keys counts
        (b'{"serverId": "a", "serverId": "nope", "model": "x"}', 404, "'nope'"),
        (b'{"serverId": "a", "model": "' + b"x" * 3000 + b'"}', 413, "limits.body_bytes"),
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "text/plain", ""])
async def test_a_body_is_json_whatever_it_is_called(body: bytes, status: int, says: str, kind: str) -> None:
    async with served("a", limits={"body_bytes": 2048}) as fleet:
        here = Here(fleet, fleet.orchestrator_url)
        headers = {"content-type": kind} if kind else {}
        answer = await here.raw("POST", ROOT + "/bans", content=body, headers=headers)
        assert answer.status_code == status, answer.text
        found = answer.json()
        assert found["success"] is (status == 200)
        assert says in found.get("error", "")


@pytest.mark.parametrize("port", ["proxy", "orchestrator"])
async def test_probes_of_load_balancers_say_when_nothing_can_serve(port: str, tmp_path: Path) -> None:
    async with running(tmp_path, port) as here:
        ready, live, whole = [(await here.raw("GET", f"/health{path}")).json() for path in ("/ready", "/live", "")]
        assert (ready, live) == ({"status": "ready", "healthyServers": 2}, {"status": "ok"})
        assert (whole["status"], whole["orchestrator"]["totalServers"]) == ("ok", 2)
        here.lately(whole["timestamp"])
        for name in "ab":
            await here.ask("POST", f"/servers/{name}/drain")
        answer = await here.raw("GET", "/health/ready")
        assert answer.status_code == 503
        assert answer.json().items() >= {"status": "not_ready", "totalServers": 2}.items()
        assert answer.json()["reason"]
        assert (await here.raw("GET", "/health/live")).status_code == 200
        assert (await here.raw("GET", "/health")).json()["status"] == "unhealthy"


# ---- what went wrong once


async def test_the_reason_of_a_drain_is_still_told_when_the_server_is_drained(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        await here.ask("POST", "/servers/a/drain", {"reason": "new disk"})
        shown = (await here.ask("GET", "/servers/a"))["server"]["admin"]
        assert (shown["state"], shown["why"], shown["by"]) == ("drained", "new disk", "anonymous")


async def test_the_schemas_bounds_refuse_what_the_configuration_refuses(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        schema = (await here.ask("GET", "/config/schema"))["schema"]
        described = (await here.raw("GET", "/openapi.json")).json()["components"]["schemas"]
        validator = jsonschema.Draft202012Validator(schema)
        assert validator.is_valid({"port": 5100, "circuitBreaker": {"errorRateThreshold": 0.3}})
        assert not validator.is_valid({"port": 99_999})
        assert not validator.is_valid({"circuitBreaker": {"errorRateThreshold": 1.5}})
        assert not jsonschema.Draft202012Validator(described["NewBan"]).is_valid(
            {"serverId": "a", "model": "x", "durationMs": 0}
        )


def test_what_is_described_as_open_is_what_needs_no_key() -> None:
    """The probes were described as needing a key."""
    for entry in entries():
        assert entry.open is is_open(entry.method, entry.path), entry


async def test_a_misspelt_yes_or_no_does_not_cut_requests_off(tmp_path: Path) -> None:
    async with running(tmp_path) as here, trio.open_nursery() as nursery:
        nursery.start_soon(here.talk, 1, "llama3:8b", 100)
        with trio.fail_after(5):
            while not here.fleet.system.in_flight:
                await trio.sleep(0.01)
        for server in "ab":
            await here.ask("DELETE", f"/servers/{server}?force=flase", status=400)


async def test_what_is_no_model_name_lifts_no_ban_of_requests_without_a_model(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        fleet = here.fleet.system.fleet
        fleet.dispatcher.cast(BanPair(Pair(ServerId("a"), ModelName("")), "lies", trio.current_time() + 60.0))
        for path in ("/bans/model/no%20name", "/bans/model/me%252Fdeep"):
            assert (await here.ask("DELETE", path))["removed"] == 0
        await here.ask("DELETE", "/bans/a/no%20name", status=404)
        assert (await here.ask("GET", "/bans"))["count"] == 1


@pytest.mark.parametrize("seconds", [1795322817.4479, 1795322817.4475, 1795322817.9999, 0.0])
def test_one_moment_is_the_same_millisecond_in_iso_and_in_epoch(seconds: float) -> None:
    shown = iso(seconds)
    assert shown is not None
    assert round(datetime.fromisoformat(shown).timestamp() * 1000) == milliseconds(seconds)
