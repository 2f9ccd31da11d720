"""The models of one server, and the jobs behind them, by REST."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import trio

from fleet.common.ids import ServerId
from fleet.models.jobs import JobKind, JobState
from fleet.simulator import Profile
from tests.kit.clients.admin import ROOT, ask, checked
from tests.kit.clients.lanes import both_lanes
from tests.kit.fleets.served import Served, served

A = ServerId("a")
SLOW = Profile(load_seconds=0.05, slots=4, pull_seconds=60.0)
BRISK = Profile(load_seconds=0.05, slots=4, pull_seconds=1.2)
NEVER = {"interval": 3600}
"""Nobody probes unless asked."""
MODELS = "llama3:8b:4.7GB,tiny:latest:1GB,hf.co/Name/Thing:Q4:1GB"


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():
            await trio.sleep(0.005)


async def names(here: Served, server: str) -> list[str]:
    return [row["name"] for row in (await ask(here, "GET", f"/servers/{server}/models"))["models"]]


async def test_the_models_of_a_server_in_the_references_words_and_what_is_in_memory() -> None:
    async with served("a", models=MODELS, health=NEVER) as here:
        async with here.client() as client:
            body = {"model": "tiny", "options": {"num_ctx": 1024}}
            assert (await client.post("/api/generate", json=body)).status_code == 200
        await here.system.probe(A, 5.0)
        found = await ask(here, "GET", "/servers/a/models")
        rows = {row["name"]: row for row in found["models"]}
        assert found.items() >= {"serverId": "a", "serverUrl": here.sims["a"].url, "healthy": True}.items()
        assert rows["llama3:8b"].items() >= {"size": 4_700_000_000, "loaded": False, "sizeVram": None}.items()
        assert rows["tiny:latest"].items() >= {"loaded": True, "contextLength": 1024}.items()
        assert rows["tiny:latest"]["sizeVram"] > 0
        assert rows["tiny:latest"]["expiresAt"] is not None
        assert len(rows["tiny:latest"]["digest"]) == 64


async def test_a_pull_blocks_until_the_fleet_knows_the_model_and_leaves_its_name_alone() -> None:
    async with served("a", health=NEVER) as here:
        found = await ask(here, "POST", "/servers/a/models/pull", {"model": "New/Model:1B"})
        seed = {"success": True, "serverId": "a", "model": "New/Model:1B", "details": {"status": "success"}}
        assert found.items() >= seed.items()
        assert found["message"] == "Model 'New/Model:1B' pulled successfully"
        assert "New/Model:1B" in await names(here, "a")
        job = (await ask(here, "GET", f"/jobs/{found['jobId']}"))["job"]
        assert job.items() >= {"kind": "pull", "state": "done", "error": None, "by": "anonymous"}.items()
        assert job["progress"].items() >= {"percent": 100.0, "etaMs": None, "bytesPerSecond": None}.items()
        assert job["createdAt"] <= job["startedAt"] <= job["endedAt"]


REFUSED: list[tuple[str, str, object, int, str]] = [
    # method, path, body, status, what the error or its details say
    ("POST", "/servers/a/models/pull", {"model": "missing:1b"}, 500, "pull model manifest: file does not exist"),
    ("POST", "/servers/a/models/pull", {}, 400, "model: "),
    ("POST", "/servers/a/models/pull", {"model": 5}, 400, "model: "),
    ("POST", "/servers/a/models/pull", {"model": "x", "sourceServer": "b"}, 400, "sourceServer: "),
    ("POST", "/servers/a/models/pull", {"model": "no such name!"}, 400, "invalid model name"),
    ("POST", "/servers/zzz/models/pull", {"model": "x"}, 404, "server 'zzz' not found"),
    ("POST", "/servers/zzz/models/copy", {"model": "tiny"}, 404, "target server 'zzz' not found"),
    ("POST", "/servers/b/models/copy", {"model": "tiny", "sourceServerId": "zzz"}, 404, "source server 'zzz'"),
    ("POST", "/servers/b/models/copy", {"model": "abc", "sourceServerId": "a"}, 400, "not found on source server 'a'"),
    ("POST", "/servers/b/models/copy", {"model": "missing", "sourceServerId": None}, 500, "manifest"),
    ("DELETE", "/servers/zzz/models/tiny", None, 404, "server 'zzz' not found"),
    ("DELETE", "/servers/a/models/nope:1b", None, 404, "model 'nope:1b' not found on server 'a'"),
    ("GET", "/servers/zzz/models", None, 404, "server 'zzz' not found"),
    ("GET", "/jobs/nope", None, 404, "job 'nope' not found"),
    ("GET", "/jobs?kind=explode", None, 400, "kind must be one of"),
    ("DELETE", "/jobs/nope", None, 404, "job 'nope' not found"),
]


async def test_what_cannot_be_done_says_so() -> None:
    async with served("a", "b") as here:
        for method, path, body, status, words in REFUSED:
            found = await ask(here, method, path, body, status=status)
            assert words in found["error"] + found.get("details", ""), (path, found)


async def test_a_copy_is_a_pull_of_what_the_source_has() -> None:
    async with served("a", "b", health=NEVER) as here:
        here.sims["b"].host.server.shelf.remove("tiny:latest")
        await here.system.probe(ServerId("b"), 5.0)
        body = {"model": "tiny:latest", "sourceServerId": "a"}
        found = await ask(here, "POST", "/servers/b/models/copy", body)
        assert found["message"] == "Model 'tiny:latest' copied successfully"
        assert "tiny:latest" in await names(here, "b")
        rows = [here.system.servers[ServerId(name)].state.models for name in "ab"]
        digests = [next(row["digest"] for key, row in each.items() if key == "tiny:latest") for each in rows]
        assert found["sameDigest"] is (digests[0] == digests[1])
        await ask(here, "POST", "/servers/b/models/copy", {"model": "llama3:8b"})


@pytest.mark.parametrize("path", ["hf.co/Name/Thing:Q4", "hf.co%2FName%2FThing%3AQ4"])
async def test_a_model_whose_name_has_slashes_is_deleted(path: str) -> None:
    async with served("a", models=MODELS, health=NEVER) as here:
        found = await ask(here, "DELETE", f"/servers/a/models/{path}")
        assert (found["model"], found["serverId"]) == ("hf.co/Name/Thing:Q4", "a")
        assert found["message"] == "Model 'hf.co/Name/Thing:Q4' deleted successfully"
        assert await names(here, "a") == ["llama3:8b", "tiny:latest"]


DEAD = [("POST", "/servers/a/models/pull", {"model": "new"}), ("DELETE", "/servers/a/models/tiny", None)]


@pytest.mark.parametrize(("method", "path", "body"), DEAD)
async def test_a_dead_server_is_said_to_be_dead(method: str, path: str, body: object) -> None:
    async with served("a", "b") as here:
        here.sims["a"].host.faults.set("refuse")
        with trio.fail_after(60):
            found = await ask(here, method, path, body, status=502)
        assert found["error"].startswith("Failed to ")
        assert found["details"]
        job = (await ask(here, "GET", f"/jobs/{found['jobId']}"))["job"]
        assert (job["state"], job["error"]) == ("failed", found["details"])


# ---- jobs


async def test_nobody_has_to_wait() -> None:
    async with served("a", profile=SLOW) as here:
        found = await ask(here, "POST", "/servers/a/models/pull?wait=false", {"model": "new"}, status=202)
        assert found["job"].items() >= {"id": found["jobId"], "kind": "pull", "model": "new"}.items()
        again = await ask(here, "POST", "/servers/a/models/pull?wait=false", {"model": "NEW:latest"}, status=202)
        assert again["jobId"] == found["jobId"]
        ended = await ask(here, "DELETE", f"/jobs/{found['jobId']}")
        assert ended["job"].items() >= {"state": "cancelled", "status": "cancelled by anonymous"}.items()
        await ask(here, "DELETE", f"/jobs/{found['jobId']}")
        await until(lambda: here.system.servers[A].pool.open_count == 0)


async def test_what_has_ended_cannot_be_cancelled() -> None:
    async with served("a") as here:
        found = await ask(here, "DELETE", "/servers/a/models/tiny")
        refusal = await ask(here, "DELETE", f"/jobs/{found['jobId']}", status=409)
        assert "has ended already: done" in refusal["error"]


async def test_who_waits_for_a_job_that_is_cancelled_is_told() -> None:
    async with served("a", profile=SLOW) as here, trio.open_nursery() as nursery:

        async def waits() -> None:
            refusal = await ask(here, "POST", "/servers/a/models/pull", {"model": "new"}, status=409)
            assert "cancelled by ops" in refusal["error"]

        nursery.start_soon(waits)
        await until(lambda: bool(here.system.jobs.of(active=True)))
        here.system.jobs.cancel(here.system.jobs.all()[0].id, by="ops")


async def test_jobs_are_listed_and_filtered() -> None:
    async with served("a", "b", profile=SLOW) as here:
        for server in "ab":
            await ask(here, "DELETE", f"/servers/{server}/models/tiny")
            await ask(here, "POST", f"/servers/{server}/models/pull?wait=false", {"model": "new"}, status=202)
        found: list[tuple[str, list[tuple[str, str]]]] = [
            ("", [("pull", "b"), ("delete", "b"), ("pull", "a"), ("delete", "a")]),
            ("?kind=pull", [("pull", "b"), ("pull", "a")]),
            ("?server=a", [("pull", "a"), ("delete", "a")]),
            ("?state=running&model=New:latest", [("pull", "b"), ("pull", "a")]),
            ("?state=done&server=b", [("delete", "b")]),
            ("?model=nothing", []),
        ]
        for query, expected in found:
            body = await ask(here, "GET", f"/jobs{query}")
            assert [(job["kind"], job["serverId"]) for job in body["jobs"]] == expected, query
            assert body["count"] == body["total"] == len(expected)
        body = await ask(here, "GET", "/jobs?limit=1")
        assert (body["count"], body["total"], body["jobs"][0]["serverId"]) == (1, 4, "b")


async def test_too_many_jobs_are_refused_with_a_hint_when_to_come_again() -> None:
    async with served("a", profile=SLOW, jobs={"per_server": 1, "waiting": 1}) as here, here.client() as client:
        for name in "xy":
            await ask(here, "POST", "/servers/a/models/pull?wait=false", {"model": name}, status=202)
        path = f"{ROOT}/servers/a/models/pull"
        answer = await client.post(path, json={"model": "z"})
        assert (answer.status_code, checked("POST", path, answer)["success"]) == (503, False)
        assert int(answer.headers["retry-after"]) > 0


# ---- following


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@both_lanes
async def test_a_pull_is_followed_line_by_line_to_its_end() -> None:
    async with served("a", profile=BRISK, health=NEVER) as here, here.client() as client:
        began = trio.current_time()
        answer = await client.post(f"{ROOT}/servers/a/models/pull?stream=true", json={"model": "new"})
        took, told = trio.current_time() - began, records(answer.text)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
        assert len({record["id"] for record in told}) == 1
        assert told[-1]["state"] == "done"
        assert told[-1]["progress"]["percent"] == 100.0
        seen = [record["progress"]["percent"] or 0.0 for record in told]
        assert seen == sorted(seen)
        assert any(0.0 < percent < 100.0 for percent in seen)
        assert len(told) <= took / 0.25 + 3
        assert "new:latest" in await names(here, "a")


@both_lanes
async def test_a_failure_is_the_last_line_of_who_follows() -> None:
    async with served("a") as here, here.client() as client:
        answer = await client.post(f"{ROOT}/servers/a/models/pull?stream=true", json={"model": "missing"})
        last = records(answer.text)[-1]
        assert (answer.status_code, last["state"]) == (200, "failed")
        assert last["error"] == "pull model manifest: file does not exist"
        again = await client.get(f"{ROOT}/jobs/{last['id']}?stream=true")
        assert records(again.text) == [last]


async def _leave_in_the_middle(client: httpx.AsyncClient, query: str) -> None:
    with trio.move_on_after(0.3):
        await client.post(f"{ROOT}/servers/a/models/pull{query}", json={"model": "new"})


@both_lanes
@pytest.mark.parametrize("query", ["", "?stream=true"])
async def test_a_client_that_leaves_ends_no_job(query: str) -> None:
    async with served("a", profile=BRISK, health=NEVER) as here, here.client() as client:
        await _leave_in_the_middle(client, query)
        (job,) = here.system.jobs.all()
        assert not job.state.ended
        assert await job.wait(5.0)
        assert job.state is JobState.DONE
        assert "new:latest" in await names(here, "a")


async def test_a_warm_up_by_another_part_of_the_fleet_is_a_job_like_any_other() -> None:
    async with served("a", health=NEVER) as here:
        job = here.system.jobs.start(JobKind.WARM, A, "tiny", by="somebody", options={"runner": {"num_ctx": 2048}})
        assert await job.wait(5.0)
        shown = (await ask(here, "GET", f"/jobs/{job.id}"))["job"]
        assert shown.items() >= {"kind": "warm", "state": "done", "by": "somebody"}.items()
        assert shown["loadTime"] >= 50
        (row,) = [row for row in (await ask(here, "GET", "/servers/a/models"))["models"] if row["loaded"]]
        assert (row["name"], row["contextLength"]) == ("tiny:latest", 2048)
