"""Rows about metrics, health, the queue and requests."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio

from tests.web.admin.contract.here import DEEP, Here, row
from tests.web.admin.contract.setups import failed, paused, streamed, talked

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
        with trio.fail_after(20):
            while not here.fleet.system.queries.queue_view(0).waiting:
                await trio.sleep(0.01)
        await trio.sleep(0.2)
        shown = (await here.ask("GET", "/queue"))["queue"]
        assert (shown["currentSize"], shown["processing"], shown["waiting"]) == (1, 0, 1)
        assert (shown["totalQueued"], shown["byModel"], shown["byPriority"]) == (1, {"llama3:8b": 1}, {"0": 1})
        here.lately(shown["oldestRequest"])
        (item,) = shown["items"]
        here.lately(item["enqueueTime"])
        assert 200 <= item["waitTime"] < 60_000, "milliseconds"
        assert item["deadline"] - item["enqueueTime"] == pytest.approx(300_000, abs=1_000)
        await here.ask("POST", "/queue/resume")
    assert 200 <= (await here.ask("GET", "/queue"))["queue"]["avgWaitTime"] < 60_000


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
        with trio.fail_after(20):
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
