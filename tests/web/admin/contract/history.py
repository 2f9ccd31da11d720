"""Rows about the past: finished requests, and figures of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web.admin.contract.here import DEEP, Here, row
from tests.web.admin.contract.setups import failed, mixed, talked


def as_seen(here: Here) -> float:
    """Mean milliseconds of the requests, as the client saw them."""
    return sum(here.took) / len(here.took)


@row("GET /api/orchestrator/analytics/summary", "/analytics/summary", setup=mixed)
async def _(here: Here, found: Any) -> None:
    shown = found["summary"]
    assert (shown["totalRequests"], shown["totalErrors"], shown["errorRate"]) == (6, 3, 0.5)
    assert (shown["uniqueModels"], shown["timeRange"]) == (2, "24h")
    assert 1 <= shown["uniqueServers"] <= 2
    assert (shown["tokensGenerated"], shown["topModel"]) == (90, "llama3:8b")
    assert shown["mostActiveServer"] == "a"
    assert 0 < shown["avgLatency"] <= as_seen(here)
    assert shown["p95Latency"] is None, "of six requests"
    assert shown["requestsPerSecond"] == pytest.approx(6 / 86_400, rel=0.01)
    here.lately(found["range"]["until"])
    hour = (await here.ask("GET", "/analytics/summary?timeRange=1h"))["summary"]
    assert hour["requestsPerSecond"] > 20 * shown["requestsPerSecond"]
    assert (hour["totalRequests"], hour["timeRange"]) == (6, "1h")


@row("GET /api/orchestrator/analytics/top-models", "/analytics/top-models", setup=mixed)
async def _(here: Here, found: Any) -> None:
    assert [(each["model"], each["requests"]) for each in found["models"]] == [("llama3:8b", 3), (DEEP, 3)]
    llama, deep = found["models"]
    assert (deep["percentage"], deep["errorRate"], llama["errorRate"]) == (50, 1, 0)
    assert 0.5 * as_seen(here) < llama["avgLatency"] <= as_seen(here) + 1
    assert (found["timeRange"], found["count"]) == ("24h", 2)
    assert (await here.ask("GET", "/analytics/top-models?limit=1"))["count"] == 1


@row("GET /api/orchestrator/analytics/server-performance", "/analytics/server-performance", setup=mixed)
async def _(here: Here, found: Any) -> None:
    assert found["timeRange"] == "1h"
    a, b = found["servers"]
    assert (a["id"], b["id"], a["requests"] + b["requests"]) == ("a", "b", 6)
    for each in (a, b):
        assert each["throughput"] == pytest.approx(each["requests"] / 3600, abs=1e-4)
        assert 0 <= each["utilization"] < 0.01
        assert each["score"] is None or 0 <= each["score"] <= 1
    assert a["errorRate"] * a["requests"] == pytest.approx(3, abs=0.01)


@row("GET /api/orchestrator/analytics/errors", "/analytics/errors", setup=mixed)
async def _(here: Here, found: Any) -> None:
    assert (found["timeRange"], found["totalErrors"], found["trend"]) == ("24h", 3, "stable")
    assert (found["byType"], found["byServer"], found["byModel"]) == ({"refused_503": 3}, {"a": 3}, {DEEP: 3})
    assert len(found["recentErrors"]) == 3
    one = found["recentErrors"][0]
    assert (one["serverId"], one["model"], one["errorType"], one["status"]) == ("a", DEEP, "refused_503", 503)
    here.lately(one["timestamp"])
    assert "recentErrors" not in await here.ask("GET", "/analytics/errors?includeRecent=false&timeRange=7d")


@row("GET /api/orchestrator/analytics/servers-with-history", "/analytics/servers-with-history", setup=failed)
async def _(here: Here, found: Any) -> None:
    assert (found["count"], found["serverIds"]) == (1, ["a"])


@row("GET /api/orchestrator/analytics/requests/:serverId", "/analytics/requests/a?limit=2", setup=failed)
async def _(here: Here, found: Any) -> None:
    assert (found["serverId"], found["model"], found["count"]) == ("a", None, 2)
    one = found["requests"][0]
    assert (one["model"], one["endpoint"], one["streaming"], one["success"]) == (DEEP, "/api/generate", False, False)
    assert one["errorType"] == one["outcome"] == "refused_503"
    assert one["errorMessage"] == "refused 503 (status 503)"
    assert (one["tokensGenerated"], one["status"], one["wastedTime"]) == (None, 503, one["slotTime"])
    here.lately(one["timestamp"])
    rest = await here.ask("GET", f"/analytics/requests/a?limit=2&cursor={found['next']}")
    assert (rest["count"], rest["next"]) == (1, None)
    assert rest["requests"][0]["timestamp"] <= one["timestamp"]
    assert (await here.ask("GET", "/analytics/requests/nobody"))["requests"] == []


@row("GET /api/orchestrator/analytics/requests/search", "/analytics/requests/search?model=llama3:8b", setup=mixed)
async def _(here: Here, found: Any) -> None:
    assert (found["serverId"], found["model"], found["count"], found["next"]) == (None, "llama3:8b", 3, None)
    one = found["requests"][0]
    assert (one["success"], one["tokensGenerated"], one["status"], one["outcomeClass"]) == (True, 30, 200, "answered")
    assert 0.5 * as_seen(here) < one["duration"] <= max(here.took) + 1
    assert "errorType" not in one
    assert one["client"].startswith("address:")
    for query, count in {
        "": 6,
        "status=error": 3,
        "status=success": 3,
        "status=503": 3,
        "success=false&serverId=a": 3,
        "serverId=b&status=error": 0,
        "outcome=refused_503": 3,
        "outcome=left": 0,
        "slowerThan=60000": 0,
        "endpoint=generate": 6,
        "endpoint=/api/chat": 0,
        f"client={one['client']}": 6,
        f"q={one['id']}": 1,
        "retried=true": 0,
        "limit=4": 4,
        "until=2020-01-01": 0,
        "since=2024-01-01T00:00:00Z": 6,
        "since=2030-01-01": None,
        "status=weird": None,
        "cursor=x": None,
        "timeRange=1y": None,
    }.items():
        status = 200 if count is not None else 400
        answer = await here.ask("GET", f"/analytics/requests/search?{query}", status=status)
        assert answer.get("count") == count, query
    assert found["retention"] == {"days": 7, "bytes": 2**30}


@row("GET /api/orchestrator/analytics/request-stats/:serverId", "/analytics/request-stats/a", setup=failed)
async def _(here: Here, found: Any) -> None:
    stats = found["stats"]
    assert (found["serverId"], found["hours"]) == ("a", pytest.approx(24, abs=0.3))
    assert (stats["totalRequests"], stats["successfulRequests"], stats["failedRequests"]) == (3, 0, 3)
    assert (stats["errorRate"], stats["p95Latency"], stats["attempts"]) == (1, None, 3)
    assert stats["byModel"][DEEP]["count"] == stats["byEndpoint"]["/api/generate"]["count"] == 3
    assert stats["requestsPerMinute"] == pytest.approx(3 / 1440, abs=1e-4)
    hour = (await here.ask("GET", "/analytics/request-stats/a?hours=1"))["stats"]
    assert hour["requestsPerMinute"] == pytest.approx(3 / 60, rel=0.05)


@row("GET /api/orchestrator/analytics/request-timeline", "/analytics/request-timeline", setup=talked)
async def _(here: Here, found: Any) -> None:
    assert (found["serverId"], found["hours"], found["intervalMinutes"]) == ("all", pytest.approx(24, abs=0.3), 15)
    assert sum(point["count"] for point in found["dataPoints"]) == 3
    assert sum(point["successCount"] for point in found["dataPoints"]) == 3
    assert all(point["timestamp"] % 900_000 == 0 and point["errorCount"] == 0 for point in found["dataPoints"])
    assert 0.5 * as_seen(here) < found["dataPoints"][-1]["avgDuration"] <= max(here.took) + 1
    minutes = await here.ask("GET", "/analytics/request-timeline?hours=1&intervalMinutes=1&serverId=a")
    assert (minutes["serverId"], minutes["intervalMinutes"]) == ("a", 1)
    await here.ask("GET", "/analytics/request-timeline?hours=80&intervalMinutes=1", status=400)


@row("GET /api/orchestrator/analytics/trends/:metric", "/analytics/trends/latency", setup=talked)
async def _(here: Here, found: Any) -> None:
    assert (found["metric"], found["timeRange"]) == ("latency", "24h")
    shown = found["analysis"]
    assert (shown["direction"], shown["slope"], shown["confidence"]) == ("stable", None, None), "of one quarter at most"
    assert (shown["unit"], shown["intervalMinutes"]) == ("milliseconds", 15)
    for metric in ("errors", "throughput", "tokens", "wait", "load"):
        await here.ask("GET", f"/analytics/trends/{metric}?timeRange=1h&serverId=a")
    bogus = await here.ask("GET", "/analytics/trends/bogus", status=400)
    assert bogus["error"].startswith("Invalid metric. Must be one of: latency, errors, throughput")


@row("GET /api/orchestrator/analytics/capacity", "/analytics/capacity", setup=talked)
async def _(here: Here, found: Any) -> None:
    now = found["current"]
    assert (now["totalCapacity"], now["usedCapacity"], now["availableCapacity"], now["queueDepth"]) == (8, 0, 8, 0)
    assert now["saturation"] == now["saturationLevel"] == 0
    assert found["forecast"]["nextHour"]["confidence"] in (0, 0.25), "there is one past hour, or none"
    assert found["forecast"]["bottleneckServer"] in ("a", "b")
    assert sum(found["trends"]["requestsPerHour"]) == 3
    assert all(at % 3_600_000 == 0 for at in found["trends"]["timestamps"])
    assert 0 < sum(found["trends"]["saturationLevels"]) < 0.01
    assert found["recommendations"] == []


PARTS = {
    "cooling",
    "latency",
    "success_rate",
    "load",
    "capacity",
    "circuit_breaker",
    "residency",
    "throughput",
    "priority",
}


@row("GET /api/orchestrator/analytics/decisions", "/analytics/decisions?limit=2", setup=mixed)
async def _(here: Here, found: Any) -> None:
    assert (found["count"], len(found["events"])) == (2, 2)
    newest = found["events"][0]
    assert (newest["model"], newest["selectedServerId"], newest["algorithm"]) == (DEEP, "a", "weighted")
    here.lately(newest["timestamp"])
    found = await here.ask("GET", "/analytics/decisions?model=llama3:8b")
    assert found["count"] == 3
    one = found["events"][0]
    assert one["selectionReason"] == "load_balancer"
    assert {each["serverId"] for each in one["candidates"]} == {"a", "b"}
    assert one["candidates"][0]["serverId"] == one["selectedServerId"]
    for each in one["candidates"]:
        assert each["breakdown"].keys() == PARTS
        assert each["totalScore"] == pytest.approx(sum(each["breakdown"].values()), abs=0.1)
        assert 0 <= each["totalScore"] <= 100
    assert one["margin"] >= 0
    assert (await here.ask("GET", "/analytics/decisions?serverId=nobody"))["events"] == []


@row(
    "GET /api/orchestrator/analytics/decisions/trends/:serverId/:model",
    "/analytics/decisions/trends/a/llama3:8b",
    setup=talked,
)
async def _(here: Here, found: Any) -> None:
    trend = found["trend"]
    assert (found["serverId"], found["model"], found["hours"], found["remembered"]) == ("a", "llama3:8b", 24, 3)
    assert len(trend["timestamps"]) == len(trend["scores"]) == len(trend["latencyScores"]) == len(trend["loadScores"])
    assert trend["timestamps"] == sorted(trend["timestamps"])
    assert 1 <= trend["avgPosition"] <= 2
    other = await here.ask("GET", "/analytics/decisions/trends/b/llama3:8b")
    assert trend["selectionCount"] + other["trend"]["selectionCount"] == 3
    unknown = (await here.ask("GET", "/analytics/decisions/trends/nobody/me/deep"))["trend"]
    assert (unknown["timestamps"], unknown["scores"], unknown["selectionCount"]) == ([], [], 0)


@row("GET /api/orchestrator/analytics/selection-stats", "/analytics/selection-stats", setup=mixed)
async def _(here: Here, found: Any) -> None:
    assert (found["hours"], found["remembered"]) == (24, 6)
    assert sum(each["totalSelections"] for each in found["stats"]) == 6
    a = next(each for each in found["stats"] if each["serverId"] == "a")
    assert a["byModel"][DEEP] == 3
    compared = [each["avgScore"] for each in found["stats"] if each["avgScore"] is not None]
    assert all(0 <= score <= 100 for score in compared)
    assert compared


@row("GET /api/orchestrator/analytics/algorithms", "/analytics/algorithms", setup=talked)
async def _(here: Here, found: Any) -> None:
    assert (found["hours"], found["algorithms"]) == (24, {"weighted": {"count": 3, "percentage": 100}})
    assert (await here.ask("GET", "/analytics/algorithms?model=nobody"))["algorithms"] == {}


@row("GET /api/orchestrator/analytics/score-timeline", "/analytics/score-timeline", setup=talked)
async def _(here: Here, found: Any) -> None:
    assert (found["hours"], found["intervalMinutes"]) == (24, 15)
    assert found["dataPoints"]
    for point in found["dataPoints"]:
        assert point["timestamp"] % 900_000 == 0
        assert 0 <= point["minScore"] <= point["avgScore"] <= point["maxScore"] <= 100
        assert point["serverCount"] == 2


@row("GET /api/orchestrator/analytics/metrics-impact", "/analytics/metrics-impact", setup=talked)
async def _(here: Here, found: Any) -> None:
    assert (found["hours"], found["impact"].keys()) == (24, PARTS)
    for name, each in found["impact"].items():
        assert (each["compared"], each["correlation"]) == (3, None), "of six candidates"
        assert 0 <= each["changed"] <= 3
        assert (each["weight"] is None) == (name == "cooling")
    weights = [each["weight"] for each in found["impact"].values() if each["weight"] is not None]
    assert sum(weights) == pytest.approx(1, abs=0.01)
