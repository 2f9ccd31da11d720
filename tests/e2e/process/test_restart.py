"""What an operator did is still so after the process was killed and started again."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.processes import Running, Simulator, serving, simulator
from tests.e2e.support import ask

pytestmark = pytest.mark.slow

ROOT = "/api/orchestrator"
PAIR = "a/llama3:8b"


async def call(running: Running, method: str, path: str, body: object = None) -> Any:
    answer = await ask(running.url, method, ROOT + path, body)
    assert answer.status in (200, 202), (method, path, answer.status, answer.body)
    return answer.json()


async def until_known(running: Running, *servers: str) -> None:
    with trio.fail_after(60):
        while True:
            found = (await call(running, "GET", "/servers"))["servers"]
            healthy = {each["id"] for each in found if each["healthy"]}
            if healthy >= set(servers):
                return
            await trio.sleep(0.05)


async def change_everything(running: Running, third: Simulator) -> None:
    """One of each thing that shall survive; every answer means that it is kept."""
    await call(
        running, "POST", "/servers/add", {"id": "c", "url": third.url, "maxConcurrency": 7, "apiKey": "sekret-key"}
    )
    await call(running, "PATCH", "/servers/a", {"maxConcurrency": 3, "tags": ["gpu"]})
    await call(running, "POST", "/servers/b/drain", {"reason": "fan"})
    await call(running, "POST", "/servers/c/maintenance", {"reason": "disk", "durationMs": 3_600_000})
    await call(running, "POST", "/bans", {"serverId": "b", "model": "llama3:8b", "reason": "odd answers"})
    await call(running, "POST", f"/circuit-breakers/{PAIR}/open")
    await call(running, "POST", "/queue/pause")
    await call(running, "POST", "/servers/a/models/pull?wait=false", {"model": "long:70b"})


async def observed(running: Running) -> dict[str, Any]:
    """The same things as a reader of the API sees them."""
    servers = {each["id"]: each for each in (await call(running, "GET", "/servers"))["servers"]}
    breaker = (await call(running, "GET", f"/circuit-breakers/{PAIR}"))["breaker"]
    jobs = (await call(running, "GET", "/jobs"))["jobs"]
    queue = (await call(running, "GET", "/queue"))["queue"]
    return {
        "servers": {name: (each["url"], each["maxConcurrency"], each["tags"]) for name, each in servers.items()},
        "admin": {name: (each["admin"]["state"], each["admin"]["by"]) for name, each in servers.items()},
        "keys": {name: "apiKey" in each for name, each in servers.items()},
        "bans": [
            (ban["serverId"], ban["model"], ban["type"], ban["reason"])
            for ban in (await call(running, "GET", "/bans"))["bans"]
        ],
        "breaker": (breaker["state"].upper(), breaker["forcedBy"]),
        "paused": queue["paused"],
        "jobs": [(job["id"], job["kind"], job["serverId"], job["model"]) for job in jobs],
        "audit": [line["action"] for line in (await call(running, "GET", "/audit?limit=50"))["entries"]],
    }


async def test_what_the_operator_did_survives_kill_9(tmp_path: Path) -> None:
    with ExitStack() as stack:
        sims = {name: stack.enter_context(simulator("--id", name, "--load-seconds", "0")) for name in "abc"}
        servers = {name: sims[name].url for name in "ab"}
        with serving(tmp_path, servers) as running:
            await until_known(running, "a", "b")
            answer = await ask(
                running.url, "POST", "/api/generate", {"model": "llama3:8b", "prompt": "x", "stream": False}
            )
            assert answer.status == 200
            await change_everything(running, sims["c"])
            before = await observed(running)
            running.process.send_signal(signal.SIGKILL)
            await running.exit_code()
        with serving(tmp_path, servers) as running:
            await until_known(running, "a", "b", "c")
            after = await observed(running)
    after["admin"]["b"] = before["admin"]["b"]  # it was draining, or drained
    assert after == before
    assert before["admin"]["c"][0] == "maintenance"
    assert before["breaker"][0] == "OPEN"
    assert before["paused"] is True
    assert len(before["jobs"]) == 1
    assert len(before["bans"]) == 1
