"""Models by REST: which there are, where, and how they stand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

import pytest
import trio

from fleet.common.ids import ServerId
from fleet.common.model_names import canonical
from fleet.models.jobs import JobKind
from fleet.scheduling.server_state import Order
from fleet.simulator import Profile
from tests.kit.clients.admin import ask
from tests.kit.clients.lanes import both_lanes
from tests.kit.fleets.served import Served, served

MODELS = "llama3:8b:4.7GB,hf.co/Ns/Big-GGUF:Q4_K_M:9GB,nomic-embed-text:latest:274MB"
SLOW = Profile(load_seconds=0.3, slots=4, tokens_per_second=20.0, prefill_per_second=50_000.0)
STUCK = Profile(load_seconds=60.0, slots=4)
BIG = "hf.co/Ns/Big-GGUF:Q4_K_M"
NAMES = sorted([BIG, "llama3:8b", "nomic-embed-text:latest"])


async def generate(fleet: Served, model: str = "llama3:8b", **more: Any) -> None:
    """One request, and what it changed in the server's memory is known."""
    body = {"model": model, "prompt": "hi", "stream": False, **more}
    async with fleet.client() as client:
        answer = await client.post("/api/generate", json=body)
    assert answer.status_code == 200, answer.text
    await known(fleet)


async def known(fleet: Served) -> None:
    """The fleet has seen what its servers hold and have in memory."""
    for server in list(fleet.system.servers):
        await fleet.system.probe(server, 5.0)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():
            await trio.sleep(0.005)


async def without(fleet: Served, server: str, *models: str) -> None:
    """Take models off a server's disk behind the fleet's back, and let it notice."""
    for model in models:
        assert fleet.sims[server].host.server.shelf.remove(model)
    await known(fleet)


# ---- which there are


@both_lanes
async def test_the_map_shows_every_model_with_its_servers_and_the_other_way_round() -> None:
    async with served("a", "b", models=MODELS) as fleet:
        await without(fleet, "b", BIG)
        found = await ask(fleet, "GET", "/model-map")
        assert found["modelToServers"] == {BIG: ["a"], "llama3:8b": ["a", "b"], "nomic-embed-text:latest": ["a", "b"]}
        assert found["serverToModels"] == {"a": NAMES, "b": ["llama3:8b", "nomic-embed-text:latest"]}
        assert (found["totalModels"], found["totalServers"]) == (3, 2)


async def test_the_list_has_every_name_once_as_the_servers_spell_it() -> None:
    async with served("a", "b", models=MODELS) as fleet:
        assert await ask(fleet, "GET", "/models") == {"success": True, "count": 3, "models": NAMES}


async def test_an_empty_fleet_has_no_models() -> None:
    async with served() as fleet:
        assert (await ask(fleet, "GET", "/models"))["models"] == []
        assert (await ask(fleet, "GET", "/model-map"))["totalServers"] == 0
        assert (await ask(fleet, "GET", "/models/fleet-stats"))["popularModels"] == []
        assert (await ask(fleet, "GET", "/models/status"))["summary"]["totalModels"] == 0
        assert (await ask(fleet, "GET", "/models/recommendations"))["count"] == 0
        assert (await ask(fleet, "GET", "/models/idle"))["count"] == 0


async def test_fleet_stats_say_how_common_each_model_is() -> None:
    async with served("a", "b", "c", models=MODELS) as fleet:
        await without(fleet, "b", BIG)
        await without(fleet, "c", BIG)
        await generate(fleet)
        await fleet.sims["c"].kill()
        await known(fleet)
        await known(fleet)
        found = await ask(fleet, "GET", "/models/fleet-stats")
        assert (found["totalServers"], found["healthyServers"], found["totalUniqueModels"]) == (3, 2, 3)
        first, second, last = found["popularModels"]
        urls = [fleet.sims[name].url for name in "abc"]
        assert first.items() >= {"name": "llama3:8b", "serverCount": 3, "percentage": 100, "servers": urls}.items()
        assert (first["serverIds"], first["requests"]) == (["a", "b", "c"], 1)
        assert (second["name"], second["requests"]) == ("nomic-embed-text:latest", 0)
        assert last.items() >= {"name": BIG, "percentage": 33, "serverIds": ["a"], "loadedOn": []}.items()


# ---- how one stands


@both_lanes
@pytest.mark.parametrize("spelt", [BIG, BIG.upper(), BIG.replace("/", "%2F"), BIG.replace(":", "%3A")])
async def test_names_with_slashes_and_colons_work_encoded_or_not(spelt: str) -> None:
    async with served("a", models=MODELS) as fleet:
        assert (await ask(fleet, "GET", f"/models/{spelt}/status"))["model"] == BIG
        warm = await ask(fleet, "POST", f"/models/{spelt}/warmup")
        assert (warm["model"], warm["summary"]["loadingOn"]) == (BIG, 1)
        assert await fleet.system.jobs.get(warm["jobs"][0]["jobId"]).wait(5.0)
        assert (await ask(fleet, "POST", f"/models/{spelt}/cancel"))["model"] == BIG
        assert (await ask(fleet, "POST", f"/models/{spelt}/unload"))["summary"]["successfullyUnloaded"] == 1


async def test_a_name_without_a_tag_is_the_latest() -> None:
    async with served("a", models=MODELS) as fleet:
        assert (await ask(fleet, "GET", "/models/Nomic-Embed-Text/status"))["model"] == "nomic-embed-text:latest"


@pytest.mark.parametrize("name", ["nobody:1b", "bad name", "a" * 2000, "llama3:8b/status/x"])
@pytest.mark.parametrize(("method", "route"), [("GET", "status"), ("POST", "warmup"), ("POST", "cancel")])
async def test_a_model_nobody_knows_is_not_found(name: str, method: str, route: str) -> None:
    async with served("a", models=MODELS) as fleet:
        found = await ask(fleet, method, f"/models/{name}/{route}", status=404)
        assert "not found on any server" in found["error"]


@pytest.mark.parametrize("name", ["nobody:1b", "llama3:8b/status/x"])
async def test_unloading_a_model_nobody_knows_unloads_nothing(name: str) -> None:
    async with served("a", models=MODELS) as fleet:
        found = await ask(fleet, "POST", f"/models/{name}/unload")
        assert (found["success"], found["results"], found["summary"]["totalServers"]) == (True, [], 0)
        assert found["message"] == f"model '{name}' is not loaded on any server"


@pytest.mark.parametrize("name", ["bad name", "a" * 2000])
async def test_unloading_what_is_no_model_name_is_not_found(name: str) -> None:
    async with served("a", models=MODELS) as fleet:
        found = await ask(fleet, "POST", f"/models/{name}/unload", status=404)
        assert found["error"] == f"'{name[:100]}' is not a valid model name"


async def test_the_status_says_of_every_server_how_the_model_stands_there() -> None:
    async with served("a", "b", "c", models=MODELS, profile=SLOW) as fleet:
        await without(fleet, "b", "llama3:8b")
        warm = await ask(fleet, "POST", "/models/llama3:8b/warmup", {"servers": ["a"]})
        assert await fleet.system.jobs.get(warm["jobs"][0]["jobId"]).wait(5.0)
        found = await ask(fleet, "GET", "/models/llama3:8b/status")
        counted = {"totalServers": 3, "loadedOn": 1, "loadingOn": 0, "notLoadedOn": 1, "failedOn": 0, "missingOn": 1}
        assert found["status"] == counted | {"unreachableOn": 0}
        a, b, c = found["servers"]
        assert [each["status"] for each in (a, b, c)] == ["loaded", "missing", "not_loaded"]
        assert 250 <= a["loadTime"] <= 3000
        assert (a["estimatedTime"], c["loadTime"], a["lastUsed"], a["jobId"]) == (0, 0, None, None)
        assert c["estimatedTime"] == a["loadTime"]  # the model took so long elsewhere
        assert a["usedVram"] == 4_700_000_000
        assert a["expiresAt"].startswith("20")
        assert "error" not in a


async def test_last_used_is_when_the_last_request_ended() -> None:
    async with served("a", models=MODELS) as fleet:
        before = fleet.system.clock.wall()
        await generate(fleet)
        (server,) = (await ask(fleet, "GET", "/models/llama3:8b/status"))["servers"]
        used = datetime.fromisoformat(server["lastUsed"].replace("Z", "+00:00")).timestamp()
        assert before - 0.001 <= used <= fleet.system.clock.wall()
        on_map = (await ask(fleet, "GET", "/models/status"))["models"]["llama3:8b"]["servers"]["a"]
        assert on_map["lastUsed"] == pytest.approx(used * 1000, abs=1)


async def test_a_model_is_loading_while_a_warm_up_or_a_request_waits_for_it() -> None:
    async with served("a", "b", models=MODELS, profile=STUCK) as fleet, trio.open_nursery() as nursery:
        warm = await ask(fleet, "POST", "/models/llama3:8b/warmup", {"servers": ["a"]})
        async with fleet.client() as client:
            nursery.start_soon(partial(client.post, "/api/generate--b", json={"model": "llama3:8b", "prompt": "x"}))
            await until(lambda: bool(fleet.system.servers[ServerId("b")].leases))
            found = await ask(fleet, "GET", "/models/llama3:8b/status")
            assert [each["status"] for each in found["servers"]] == ["loading", "loading"]
            assert [each["jobId"] for each in found["servers"]] == [warm["jobs"][0]["jobId"], None]
            everything = await ask(fleet, "GET", "/models/status")
            assert everything["summary"]["loadingModels"] == 1
            nursery.cancel_scope.cancel()


async def test_a_model_that_answers_is_loaded_though_no_probe_has_seen_it() -> None:
    quiet = {"interval": 3600}
    async with (
        served("a", models=MODELS, profile=SLOW, health=quiet) as fleet,
        fleet.client() as client,
        trio.open_nursery() as nursery,
    ):
        body = {"model": "llama3:8b", "prompt": "x", "options": {"num_predict": 500}}
        nursery.start_soon(partial(client.post, "/api/generate", json=body))
        cell = fleet.system.servers[ServerId("a")]
        await until(lambda: any(lease.first_byte is not None for lease in cell.leases.values()))
        assert cell.state.resident == {}
        found = await ask(fleet, "GET", "/models/llama3:8b/status")
        assert found["servers"][0]["status"] == "loaded"
        nursery.cancel_scope.cancel()


async def test_a_failed_warm_up_shows_until_the_next_request() -> None:
    async with served("a", models=MODELS) as fleet:
        fleet.sims["a"].host.faults.set("status:500:no room for it")
        job = fleet.system.jobs.start(JobKind.WARM, ServerId("a"), "llama3:8b")
        assert await job.wait(5.0)
        found = await ask(fleet, "GET", "/models/llama3:8b/status")
        assert (found["status"]["failedOn"], found["servers"][0]["status"]) == (1, "failed")
        assert found["servers"][0]["error"] == "no room for it"
        on_map = (await ask(fleet, "GET", "/models/status"))["models"]["llama3:8b"]
        assert (on_map["failedOn"], on_map["servers"]["a"]["error"]) == (1, "no room for it")
        fleet.sims["a"].host.faults.set()
        await generate(fleet, keep_alive=0)
        found = await ask(fleet, "GET", "/models/llama3:8b/status")
        assert found["servers"][0]["status"] == "not_loaded"
        assert "error" not in found["servers"][0]


async def test_of_a_server_that_is_down_nobody_knows() -> None:
    async with served("a", "b", models=MODELS) as fleet:
        await generate(fleet)
        for sim in fleet.sims.values():
            await sim.kill()
        await known(fleet)
        await known(fleet)
        found = await ask(fleet, "GET", "/models/llama3:8b/status")
        assert found["status"]["unreachableOn"] == 2
        assert {each["status"] for each in found["servers"]} == {"unreachable"}


async def test_the_map_of_all_models_counts_all_servers_and_lists_holders() -> None:
    async with served("a", "b", models=MODELS, profile=SLOW) as fleet:
        await without(fleet, "b", BIG)
        warm = await ask(fleet, "POST", f"/models/{BIG}/warmup")
        assert await fleet.system.jobs.get(warm["jobs"][0]["jobId"]).wait(5.0)
        found = await ask(fleet, "GET", "/models/status")
        assert list(found["models"]) == sorted(NAMES, key=str.lower)
        big = found["models"][BIG]
        assert {"totalServers": 2, "loadedOn": 1, "missingOn": 1}.items() <= big.items()
        assert list(big["servers"]) == ["a"]
        a = big["servers"]["a"]
        assert {"loaded": True, "loading": False, "status": "loaded", "lastUsed": 0}.items() <= a.items()
        assert a["gpuMemory"] == round(9_000_000_000 / 2**20)
        assert a["loadTime"] >= 250
        summary = found["summary"]
        assert {"totalServers": 2, "totalModels": 3, "loadedModels": 1, "loadingModels": 0}.items() <= summary.items()
        assert summary["averageLoadTime"] == a["loadTime"]


# ---- in memory without need


async def running_for(fleet: Served, seconds: float) -> None:
    """Let the fleet look as if it had started so long ago."""
    fleet.system.started -= seconds
    for cell in fleet.system.servers.values():
        cell.state.added -= seconds


async def test_idle_models_are_those_in_memory_that_nobody_used_for_a_while() -> None:
    async with served("a", "b", models=MODELS) as fleet:
        found = await ask(fleet, "GET", "/models/idle")
        assert (found["threshold"], found["models"], found["count"]) == (1_800_000, [], 0)
        await running_for(fleet, 7200.0)
        await generate(fleet)
        assert (await ask(fleet, "GET", "/models/idle"))["count"] == 0
        for line in fleet.system.statistics.totals.book.pairs.values():
            line.total.last_used = (line.total.last_used or 0.0) - 1801.0
        (server,) = (name for name, cell in fleet.system.servers.items() if cell.state.resident)
        (shown,) = (await ask(fleet, "GET", "/models/idle"))["models"]
        assert (shown["serverId"], shown["model"], shown["idleTimeMinutes"]) == (server, "llama3:8b", 30)
        assert 1_801_000 <= shown["idleTime"] < 1_830_000
        assert shown["lastUsed"] is not None
        assert shown["usedVram"] == 4_700_000_000
        assert (await ask(fleet, "GET", "/models/idle?threshold=1900000"))["models"] == []
        found = await ask(fleet, "GET", "/models/idle?threshold=1000.5")
        assert (found["threshold"], found["count"]) == (1000, 1)


async def test_a_model_that_nobody_ever_used_is_idle_since_the_fleet_knows_it() -> None:
    async with served("a", models=MODELS) as fleet:
        async with fleet.client() as client:  # behind the fleet's back
            answer = await client.post(f"{fleet.sims['a'].url}/api/generate", json={"model": "llama3:8b"})
        assert answer.status_code == 200
        await known(fleet)
        assert (await ask(fleet, "GET", "/models/idle"))["count"] == 0
        await running_for(fleet, 2400.0)
        (shown,) = (await ask(fleet, "GET", "/models/idle"))["models"]
        assert (shown["lastUsed"], shown["idleTimeMinutes"]) == (None, 40)


async def test_a_model_in_use_is_not_idle_and_one_just_warmed_up_begins_anew() -> None:
    async with served("a", models=MODELS, profile=SLOW) as fleet:
        await running_for(fleet, 7200.0)
        warm = await ask(fleet, "POST", "/models/llama3:8b/warmup")
        assert await fleet.system.jobs.get(warm["jobs"][0]["jobId"]).wait(5.0)
        (shown,) = (await ask(fleet, "GET", "/models/idle?threshold=0"))["models"]
        assert (shown["lastUsed"], shown["idleTimeMinutes"]) == (None, 0)
        assert shown["idleTime"] < 2000
        async with fleet.client() as client, trio.open_nursery() as nursery:
            body = {"model": "llama3:8b", "prompt": "x", "options": {"num_predict": 500}}
            nursery.start_soon(partial(client.post, "/api/generate", json=body))
            await until(lambda: fleet.system.in_flight == 1)
            assert (await ask(fleet, "GET", "/models/idle?threshold=0"))["models"] == []
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("threshold", ["-1", "soon", "nan", "1e300"])
async def test_a_threshold_that_makes_no_sense_is_refused(threshold: str) -> None:
    async with served("a", models=MODELS) as fleet:
        found = await ask(fleet, "GET", f"/models/idle?threshold={threshold}", status=400)
        assert "threshold" in found["error"]


# ---- which should be


async def test_what_is_asked_for_often_and_in_no_memory_is_recommended() -> None:
    async with served("a", "b", models=MODELS) as fleet:
        for _ in range(4):
            await generate(fleet, keep_alive=0)
        assert (await ask(fleet, "GET", "/models/recommendations")) == {
            "success": True,
            "recommendations": [],
            "count": 0,
        }
        await generate(fleet, keep_alive=0)
        found = await ask(fleet, "GET", "/models/recommendations")
        assert found["count"] == 1
        (shown,) = found["recommendations"]
        assert (shown["model"], shown["requests"], shown["residentOn"]) == ("llama3:8b", 5, [])
        assert shown["reason"] == "asked for 5 times in the last hour, and in no usable server's memory"
        assert len(shown["suggestedServers"]) == 1
        warm = await ask(fleet, "POST", "/models/llama3:8b/warmup", {"servers": shown["suggestedServers"]})
        assert await fleet.system.jobs.get(warm["jobs"][0]["jobId"]).wait(5.0)
        assert (await ask(fleet, "GET", "/models/recommendations"))["count"] == 0


async def test_a_model_in_too_little_memory_for_its_load_is_recommended_for_more_servers() -> None:
    async with served("a", "b", "c", models=MODELS, slots=1) as fleet:
        fleet.system.order(ServerId("c"), Order.DRAIN, "test")
        await until(lambda: not fleet.system.servers[ServerId("c")].state.usable)
        for _ in range(5):
            await generate(fleet, keep_alive=-1)
        resident = [name for name, cell in fleet.system.servers.items() if cell.state.resident]
        before = (await ask(fleet, "GET", "/models/recommendations"))["recommendations"]
        for _ in range(50):
            fleet.system.statistics.demand.note_seconds(canonical("llama3:8b"), 500.0)
        (shown,) = (await ask(fleet, "GET", "/models/recommendations"))["recommendations"]
        assert before == []
        assert shown["residentOn"] == resident
        assert shown["suggestedServers"] == [name for name in ("a", "b") if name not in resident]
        assert shown["load"] > 0.7 * len(resident)
        assert "requests run at once" in shown["reason"]
