"""Rows about models."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.web.admin.contract.here import DEEP, Here, row
from tests.web.admin.contract.setups import loaded, loading, spare


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
    again = await here.ask("POST", f"/models/{DEEP}/unload", {"serverId": result["serverId"]})
    assert (again["results"], again["summary"]["successfullyUnloaded"]) == ([], 0)


@row("POST /api/orchestrator/models/:model/cancel", f"/models/{DEEP}/cancel", setup=loading)
async def _(here: Here, found: Any) -> None:
    assert (found["model"], found["cancelled"]) == (DEEP, 1)
    assert (await here.ask("POST", f"/models/{DEEP}/cancel"))["cancelled"] == 0


@row("GET /api/orchestrator/models/idle", "/models/idle?threshold=200", setup=loaded)
async def _(here: Here, found: Any) -> None:
    assert found["threshold"] == 200
    with trio.fail_after(20):
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
