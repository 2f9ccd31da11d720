"""Rows about recovery failures, bans and logs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web.admin.contract.here import DEEP, Here, row
from tests.web.admin.contract.setups import banned, failed, probed, talked

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
    assert {each["serverId"]: each["failureCount"] for each in found["stats"]} == {"a": 3, "b": 0}


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
    assert first["expiresAt"] - first["bannedAt"] == pytest.approx(60_000, abs=1_000)
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
    assert (await here.ask("DELETE", f"/bans/a/{DEEP}"))["removed"] == 0
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
