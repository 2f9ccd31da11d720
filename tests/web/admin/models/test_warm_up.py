"""Loading models into memory and taking them out, by REST."""

from __future__ import annotations

import math
from functools import partial

import pytest
import trio

from fleet.common.ids import ServerId
from fleet.models.jobs import JobKind, JobState
from fleet.scheduling.server_state import Order
from fleet.simulator import Profile
from tests.kit.clients.admin import ask
from tests.kit.clients.lanes import both_lanes
from tests.kit.fleets.served import Served, served
from tests.web.admin.models.test_models import BIG, MODELS, SLOW, STUCK, generate, known, until, without
from tests.web.admin.models.warming import LLAMA, job_of, runner, warm

FAST = Profile(load_seconds=0.0, slots=4, tokens_per_second=400.0, prefill_per_second=20_000.0)
EMBED = "nomic-embed-text:latest"


def loads(fleet: Served, server: str) -> int:
    return fleet.sims[server].host.server.loads_begun


# ---- warm-ups


@both_lanes
async def test_a_warm_up_loads_the_model_on_every_usable_server_that_holds_it() -> None:
    async with served("a", "b", "c", "d", models=MODELS, profile=SLOW) as fleet:
        await without(fleet, "c", LLAMA)
        fleet.system.order(ServerId("d"), Order.DRAIN, "test")
        await until(lambda: not fleet.system.servers[ServerId("d")].state.usable)
        found = await ask(fleet, "POST", f"/models/{LLAMA}/warmup")
        assert (found["success"], found["model"], found["options"]) == (True, LLAMA, {})
        assert found["summary"] == {"totalServers": 2, "loadedOn": 0, "loadingOn": 2, "failedOn": 0}
        assert sorted(job["serverId"] for job in found["jobs"]) == ["a", "b"]
        for job in found["jobs"]:
            assert (job["status"], job["loadTime"], job["estimatedTime"]) == ("loading", 0, 5700)
            shown = job_of(fleet, job["jobId"])
            assert (shown.kind, shown.priority, shown.by) == (JobKind.WARM, 0, "anonymous")
            assert await shown.wait(10.0)
        assert [runner(fleet, server) is not None for server in "abcd"] == [True, True, False, False]


async def test_what_is_loaded_already_says_so_with_the_time_it_took() -> None:
    async with served("a", "b", models=MODELS, profile=SLOW) as fleet:
        await warm(fleet, {"servers": ["a"]})
        found = await warm(fleet)
        a, b = sorted(found["jobs"], key=lambda job: str(job["serverId"]))
        assert (a["status"], a["estimatedTime"], a["jobId"]) == ("loaded", 0, None)
        assert 250 <= a["loadTime"] <= 3000
        assert (b["status"], b["loadTime"]) == ("loading", 0)
        assert b["estimatedTime"] == a["loadTime"]
        assert found["summary"] == {"totalServers": 2, "loadedOn": 1, "loadingOn": 1, "failedOn": 0}
        assert (loads(fleet, "a"), loads(fleet, "b")) == (1, 1)


async def test_what_has_been_unloaded_since_the_last_probe_is_loaded_again() -> None:
    async with served("a", models=MODELS, health={"interval": 3600}) as fleet:
        await warm(fleet)
        server = fleet.sims["a"].host.server
        file = server.shelf.find(LLAMA)
        assert file is not None
        server.unload(file, trio.current_time())
        found = await warm(fleet)
        assert found["summary"]["loadingOn"] == 1
        assert runner(fleet, "a") is not None


async def test_the_same_warm_up_asked_for_twice_is_one_job() -> None:
    async with served("a", models=MODELS, profile=STUCK) as fleet:
        first = await ask(fleet, "POST", f"/models/{LLAMA}/warmup", {"priority": "low"})
        second = await ask(fleet, "POST", f"/models/{LLAMA}/warmup", {"priority": "high"})
        assert first["jobs"][0]["jobId"] == second["jobs"][0]["jobId"]
        assert second["jobs"][0]["status"] == "loading"
        assert job_of(fleet, first["jobs"][0]["jobId"]).priority == 5


@pytest.mark.parametrize(("word", "priority"), [("low", -5), ("normal", 0), ("high", 5)])
async def test_the_priority_is_the_jobs(word: str, priority: int) -> None:
    async with served("a", models=MODELS) as fleet:
        found = await warm(fleet, {"priority": word})
        assert job_of(fleet, found["jobs"][0]["jobId"]).priority == priority


async def test_where_jobs_wait_for_each_other_the_urgent_one_is_first() -> None:
    async with served("a", models=MODELS, profile=SLOW, jobs={"per_server": 1}) as fleet:
        ids = []
        for model, word in ((LLAMA, "normal"), (EMBED, "low"), (BIG, "high")):
            found = await ask(fleet, "POST", f"/models/{model}/warmup", {"priority": word})
            ids.append(found["jobs"][0]["jobId"])
        for each in ids:
            assert await job_of(fleet, each).wait(10.0)
        started = {each: job_of(fleet, each).started or 0.0 for each in ids}
        assert sorted(ids, key=lambda each: started[each]) == [ids[0], ids[2], ids[1]]


async def test_unknown_servers_are_not_found_and_all_of_them_named() -> None:
    async with served("a", models=MODELS) as fleet:
        body = {"servers": ["a", "ghost", "phantom", "ghost"]}
        found = await ask(fleet, "POST", f"/models/{LLAMA}/warmup", body, status=404)
        assert found["error"] == "servers 'ghost', 'phantom' not found"
        one = await ask(fleet, "POST", f"/models/{LLAMA}/warmup", {"servers": ["ghost"]}, status=404)
        assert one["error"] == "server 'ghost' not found"
        assert fleet.system.jobs.all() == []


async def test_a_server_named_twice_is_warmed_once() -> None:
    async with served("a", models=MODELS) as fleet:
        assert len((await warm(fleet, {"servers": ["a", "a"]}))["jobs"]) == 1


async def test_servers_that_cannot_load_it_say_why() -> None:
    async with served("a", "b", "c", "d", models=MODELS) as fleet:
        await without(fleet, "b", LLAMA)
        fleet.system.order(ServerId("c"), Order.MAINTAIN, "test")
        await fleet.sims["d"].kill()
        await known(fleet)
        await known(fleet)
        found = await warm(fleet, {"servers": ["a", "b", "c", "d"]})
        assert [job["status"] for job in found["jobs"]] == ["loading", "failed", "failed", "failed"]
        assert [job.get("error") for job in found["jobs"]] == [
            None,
            "the server does not hold the model",
            "the server is maintenance",
            "the server is unhealthy",
        ]
        assert found["success"] is True
        assert found["summary"] == {"totalServers": 4, "loadedOn": 0, "loadingOn": 1, "failedOn": 3}
        nowhere = await warm(fleet, {"servers": ["b", "c"]})
        assert (nowhere["success"], nowhere["summary"]["failedOn"]) == (False, 2)


async def test_with_no_usable_server_a_warm_up_is_refused_for_now() -> None:
    async with served("a", models=MODELS) as fleet:
        fleet.system.order(ServerId("a"), Order.MAINTAIN, "test")
        await until(lambda: not fleet.system.servers[ServerId("a")].state.usable)
        found = await ask(fleet, "POST", f"/models/{LLAMA}/warmup", status=503)
        assert "can be used now" in found["error"]


async def test_with_no_room_for_another_job_a_warm_up_is_refused_for_now() -> None:
    async with served("a", models=MODELS, profile=STUCK, jobs={"per_server": 1, "waiting": 1}) as fleet:
        for model in (LLAMA, EMBED):
            await ask(fleet, "POST", f"/models/{model}/warmup")
        found = await ask(fleet, "POST", f"/models/{BIG}/warmup", status=503)
        assert "jobs wait" in found["error"]


BAD: list[tuple[object, str]] = [
    ({"servers": []}, "servers"),
    ({"servers": "a"}, "servers"),
    ({"servers": [1]}, "servers"),
    ({"servers": ["x" * 65]}, "servers"),
    ({"priority": "urgent"}, "priority"),
    ({"priority": 1}, "priority"),
    ({"keepAlive": 0}, "unload"),
    ({"keepAlive": "0s"}, "unload"),
    ({"keepAlive": "5"}, "duration"),
    ({"keepAlive": "soon"}, "duration"),
    ({"keepAlive": True}, "keepAlive: must be a number of seconds or a duration like 5m"),
    ({"keepAlive": 1e12}, "year"),
    ({"keepAlive": []}, "duration"),
    ({"options": {"num_ctx": 0}}, "numCtx"),
    ({"options": {"num_ctx": "big"}}, "numCtx"),
    ({"options": {"num_ctx": True}}, "numCtx"),
    ({"options": {"temperature": 1}}, "temperature"),
    ({"options": []}, "options"),
    ({"server": "a"}, "server"),
    ([], "object"),
]


@pytest.mark.parametrize(("body", "said"), BAD)
async def test_a_warm_up_that_makes_no_sense_is_refused(body: object, said: str) -> None:
    async with served("a", models=MODELS) as fleet:
        found = await ask(fleet, "POST", f"/models/{LLAMA}/warmup", body, status=400)
        assert said in found["error"]
        assert fleet.system.jobs.all() == []


# ---- with which runner


async def test_a_warm_up_loads_the_runner_that_the_next_request_will_fit() -> None:
    async with served("a", "b", models=MODELS, profile=FAST) as fleet:
        wide = {"options": {"num_ctx": 8192, "num_predict": 2}}
        async with fleet.client() as client:
            body = {"model": LLAMA, "prompt": "x", **wide}
            for _ in range(3):
                assert (await client.post("/api/generate--a", json=body)).status_code == 200
            await client.post("/api/generate--a", json={"model": LLAMA, "prompt": "x", "options": {"num_predict": 2}})
            found = await warm(fleet, {"servers": ["b"]})
            assert found["options"] == {"num_ctx": 8192}
            loaded = runner(fleet, "b")
            assert loaded is not None
            assert loaded.options.num_ctx == 8192
            assert (await client.post("/api/generate--b", json=body)).status_code == 200
        assert loads(fleet, "b") == 1


async def test_given_options_are_used_and_no_others() -> None:
    async with served("a", models=MODELS, profile=FAST) as fleet:
        await generate(fleet, options={"num_ctx": 8192, "num_thread": 3}, keep_alive=0)
        found = await warm(fleet, {"options": {"numCtx": 2048, "shift": False}})
        assert found["options"] == {"num_ctx": 2048, "shift": False}
        loaded = runner(fleet, "a")
        assert loaded is not None
        assert (loaded.options.num_ctx, loaded.options.num_thread, loaded.options.shift) == (2048, 0, False)


async def test_a_loaded_model_is_loaded_again_only_for_other_options() -> None:
    async with served("a", models=MODELS, profile=FAST) as fleet:
        await warm(fleet, {"options": {"num_ctx": 2048}})
        same = await warm(fleet, {"options": {"num_ctx": 2048}})
        assert (same["jobs"][0]["status"], loads(fleet, "a")) == ("loaded", 1)
        other = await warm(fleet, {"options": {"num_ctx": 1024}})
        assert (other["jobs"][0]["status"], loads(fleet, "a")) == ("loading", 2)


async def test_an_idle_runner_that_clients_have_outgrown_is_loaded_again() -> None:
    async with served("a", models=MODELS, profile=FAST) as fleet:
        await generate(fleet, options={"num_ctx": 8192})
        await warm(fleet, {"options": {"num_ctx": 1024}})
        found = await warm(fleet)
        loaded = runner(fleet, "a")
        assert loaded is not None
        assert (found["jobs"][0]["status"], loaded.options.num_ctx) == ("loading", 8192)


async def test_a_busy_runner_is_left_alone_whatever_clients_prefer() -> None:
    async with served("a", models=MODELS, profile=SLOW) as fleet:
        await generate(fleet, options={"num_ctx": 8192, "num_predict": 1})
        await warm(fleet, {"options": {"num_ctx": 1024}})
        begun = loads(fleet, "a")
        async with fleet.client() as client, trio.open_nursery() as nursery:
            body = {"model": LLAMA, "prompt": "x", "options": {"num_ctx": 1024, "num_predict": 500}}
            nursery.start_soon(partial(client.post, "/api/generate", json=body))
            await until(lambda: fleet.system.in_flight == 1)
            assert (await warm(fleet))["jobs"][0]["status"] == "loaded"
            longer = await warm(fleet, {"keepAlive": -1})  # with the context that it has, or it would have to wait
            assert longer["jobs"][0]["status"] == "loading"
            assert loads(fleet, "a") == begun
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("keep_alive", "seconds"), [(-1, math.inf), (90, 90.0), ("10m", 600.0), (0.5, 0.5)])
async def test_keep_alive_is_the_models(keep_alive: object, seconds: float) -> None:
    async with served("a", models=MODELS, profile=FAST) as fleet:
        await warm(fleet)
        await warm(fleet, {"keepAlive": keep_alive})  # also of one that is loaded already
        loaded = runner(fleet, "a")
        assert loaded is not None
        assert (loaded.keep_alive, loads(fleet, "a")) == (seconds, 1)


async def test_what_clients_only_embed_with_is_loaded_by_embedding() -> None:
    async with served("a", "b", models="secret-vectors:latest:1GB", profile=FAST) as fleet:
        async with fleet.client() as client:
            body = {"model": "secret-vectors", "input": "x"}
            assert (await client.post("/api/embed", json=body)).status_code == 200
        await warm(fleet, {"servers": ["b"]}, "secret-vectors")
        paths = [seen.path for seen in fleet.sims["b"].host.requests]
        assert (paths.count("/api/generate"), paths.count("/api/embed")) == (0, 1)


async def test_an_embedding_model_is_known_by_its_family() -> None:
    async with served("a", models=MODELS) as fleet:
        found = await warm(fleet, model=EMBED)
        assert job_of(fleet, found["jobs"][0]["jobId"]).state is JobState.DONE
        assert runner(fleet, "a", EMBED) is not None


# ---- cancelling


@both_lanes
async def test_cancelling_ends_the_warm_ups_under_way_and_the_loads_with_them() -> None:
    async with served("a", "b", models=MODELS, profile=STUCK) as fleet:
        await ask(fleet, "POST", f"/models/{EMBED}/warmup", {"servers": ["a"]})
        found = await ask(fleet, "POST", f"/models/{LLAMA}/warmup", {"servers": ["b"]})
        server = fleet.sims["b"].host.server
        await until(lambda: server.loading is not None)
        cancelled = await ask(fleet, "POST", f"/models/{LLAMA}/cancel", {})
        assert (cancelled["cancelled"], cancelled["message"]) == (1, f"1 warm-up of {LLAMA} cancelled")
        assert cancelled["jobs"] == [found["jobs"][0]["jobId"]]
        assert job_of(fleet, cancelled["jobs"][0]).state is JobState.CANCELLED
        await until(lambda: server.loading is None)
        assert len(fleet.system.jobs.of(active=True)) == 1  # the other model's
        again = await ask(fleet, "POST", f"/models/{LLAMA}/cancel")
        assert (again["cancelled"], again["message"]) == (0, f"{LLAMA} is not warmed up")


async def test_cancelling_on_one_server_leaves_the_others() -> None:
    async with served("a", "b", models=MODELS, profile=STUCK) as fleet:
        await ask(fleet, "POST", f"/models/{LLAMA}/warmup")
        assert (await ask(fleet, "POST", f"/models/{LLAMA}/cancel", {"serverId": "a"}))["cancelled"] == 1
        (left,) = fleet.system.jobs.of(kind=JobKind.WARM, active=True)
        assert left.server == "b"
        await ask(fleet, "POST", f"/models/{LLAMA}/cancel", {"serverId": "ghost"}, status=404)
        assert (await ask(fleet, "POST", f"/models/{LLAMA}/cancel"))["message"] == f"1 warm-up of {LLAMA} cancelled"


async def test_a_warm_up_under_way_was_hidden_by_a_later_one_that_was_cancelled() -> None:
    async with served("a", models=MODELS, profile=SLOW) as fleet:
        jobs, server = fleet.system.jobs, ServerId("a")
        first = jobs.start(JobKind.WARM, server, LLAMA, options={"runner": {"num_ctx": 2048}})
        later = jobs.start(JobKind.WARM, server, LLAMA, options={"runner": {"num_ctx": 8192}})
        jobs.cancel(later.id)
        found = await ask(fleet, "GET", f"/models/{LLAMA}/status")
        assert (found["servers"][0]["status"], found["servers"][0]["jobId"]) == ("loading", first.id)
