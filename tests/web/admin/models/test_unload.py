"""Models out of the memory of servers, by the admin API."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from fleet.common.ids import ServerId
from fleet.models.jobs import JobState
from tests.kit.clients.admin import ask
from tests.kit.clients.lanes import both_lanes
from tests.kit.fleets.served import served
from tests.web.admin.models.test_models import MODELS, SLOW, known, until
from tests.web.admin.models.warming import LLAMA, job_of, runner, warm
from web.admin.models import unload

# ---- unloading


@both_lanes
async def test_a_model_leaves_the_memory_of_all_servers_that_have_it() -> None:
    async with served("a", "b", "c", models=MODELS) as fleet:
        await warm(fleet, {"servers": ["a", "b"]})
        found = await ask(fleet, "POST", f"/models/{LLAMA}/unload", {})
        assert found["summary"] == {"totalServers": 2, "successfullyUnloaded": 2, "unloading": 0, "failed": 0}
        assert [(each["serverId"], each["success"], each["status"]) for each in found["results"]] == [
            ("a", True, "unloaded"),
            ("b", True, "unloaded"),
        ]
        assert found["success"] is True
        assert found["waited"] >= 0
        assert [runner(fleet, server) for server in "ab"] == [None, None]
        status = await ask(fleet, "GET", f"/models/{LLAMA}/status")
        assert status["status"]["loadedOn"] == 0


async def test_a_model_leaves_the_memory_of_one_server_only() -> None:
    async with served("a", "b", models=MODELS) as fleet:
        await warm(fleet)
        found = await ask(fleet, "POST", f"/models/{LLAMA}/unload", {"serverId": "b"})
        assert [each["serverId"] for each in found["results"]] == ["b"]
        assert (runner(fleet, "a") is not None, runner(fleet, "b")) == (True, None)


async def test_what_a_request_has_just_loaded_is_unloaded_though_no_probe_has_seen_it() -> None:
    async with served("a", models=MODELS, health={"interval": 3600}) as fleet:
        async with fleet.client() as client:
            body = {"model": LLAMA, "prompt": "x", "stream": False}
            assert (await client.post("/api/generate", json=body)).status_code == 200
        assert fleet.system.servers[ServerId("a")].state.resident == {}
        assert (await ask(fleet, "POST", f"/models/{LLAMA}/unload"))["summary"]["successfullyUnloaded"] == 1
        assert runner(fleet, "a") is None


async def test_a_model_that_was_deleted_but_is_still_in_memory_can_be_unloaded() -> None:
    async with served("a", models=MODELS) as fleet:
        await warm(fleet)
        fleet.sims["a"].host.server.shelf.remove(LLAMA)
        await known(fleet)
        async with fleet.client() as client:
            assert LLAMA in (await client.get("/api/ps")).text
        found = await ask(fleet, "POST", f"/models/{LLAMA}/unload", {})
        assert found["summary"]["totalServers"] == 1


async def test_what_is_not_loaded_is_not_unloaded_and_its_neighbour_stays() -> None:
    async with served("a", "b", models=MODELS) as fleet:
        found = await ask(fleet, "POST", f"/models/{LLAMA}/unload", {})
        assert found["message"] == f"model '{LLAMA}' is not loaded on any server"
        await warm(fleet, {"servers": ["a"]})
        found = await ask(fleet, "POST", f"/models/{LLAMA}/unload", {"serverId": "b"})
        assert found["message"] == f"model '{LLAMA}' is not loaded on server 'b'"
        found = await ask(fleet, "POST", f"/models/{LLAMA}/unload", {"serverId": "ghost"}, status=404)
        assert "ghost" in found["error"]
        assert runner(fleet, "a") is not None


@pytest.mark.parametrize("body", [{"serverId": 1}, {"serverId": "x" * 65}, {"server": "a"}, []])
async def test_an_unload_that_makes_no_sense_is_refused(body: object) -> None:
    async with served("a", models=MODELS) as fleet:
        await warm(fleet)
        await ask(fleet, "POST", f"/models/{LLAMA}/unload", body, status=400)
        assert runner(fleet, "a") is not None


async def test_a_model_in_use_goes_when_its_requests_have_ended() -> None:
    async with served("a", models=MODELS, profile=SLOW) as fleet:
        await warm(fleet)
        async with fleet.client() as client, trio.open_nursery() as nursery:
            body = {"model": LLAMA, "prompt": "x", "options": {"num_predict": 500}}
            nursery.start_soon(partial(client.post, "/api/generate", json=body))
            cell = fleet.system.servers[ServerId("a")]
            await until(lambda: any(lease.first_byte is not None for lease in cell.leases.values()))
            found = await ask(fleet, "POST", f"/models/{LLAMA}/unload", {})
            assert found["summary"] == {"totalServers": 1, "successfullyUnloaded": 0, "unloading": 1, "failed": 0}
            assert (found["success"], found["results"][0]["status"]) == (True, "unloading")
            nursery.cancel_scope.cancel()
        await until(lambda: runner(fleet, "a") is None)


async def test_a_server_that_refuses_to_unload_says_why() -> None:
    async with served("a", "b", models=MODELS) as fleet:
        await warm(fleet)
        fleet.sims["b"].host.faults.set("status:500:not today")
        found = await ask(fleet, "POST", f"/models/{LLAMA}/unload", {})
        a, b = sorted(found["results"], key=lambda each: str(each["serverId"]))
        assert (a["status"], b["status"], b["error"]) == ("unloaded", "failed", "not today")
        assert found["summary"] == {"totalServers": 2, "successfullyUnloaded": 1, "unloading": 0, "failed": 1}
        assert found["success"] is False


async def test_an_unload_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unload, "WITHIN", 0.2)
    async with served("a", models=MODELS) as fleet:
        await warm(fleet)
        fleet.sims["a"].host.faults.set("hang-before-headers")
        found = await ask(fleet, "POST", f"/models/{LLAMA}/unload", {})
        assert (found["results"][0]["status"], found["results"][0]["success"]) == ("unloading", False)
        assert 200 <= found["waited"] < 5000
        assert job_of(fleet, found["results"][0]["jobId"]).state is JobState.RUNNING
