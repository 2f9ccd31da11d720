"""Rows about servers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.web.admin.contract.here import DEEP, Here, row
from tests.web.admin.contract.setups import drained, spare


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
    assert found["state"]["until"] == pytest.approx(1000 * (time.time() + 60), abs=30_000)
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
