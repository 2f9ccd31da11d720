"""A pull that the process did not live to see the end of goes on in the next one."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.processes import Running, serving, simulator
from tests.e2e.support import ask

pytestmark = pytest.mark.slow

ROOT = "/api/orchestrator"
SLOWLY = ["all:slow-drip:2,paths=/api/pull"]


async def job_of(running: Running, *states: str) -> dict[str, Any]:
    """The only job, once it is in one of these states."""
    with trio.fail_after(60):
        while True:
            (job,) = (await ask(running.url, "GET", f"{ROOT}/jobs")).json()["jobs"]
            if job["state"] in states:
                return dict(job)
            await trio.sleep(0.05)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_a_pull_goes_on_after_the_process_was_ended(end: signal.Signals, tmp_path: Path) -> None:
    with simulator("--id", "a") as sim:
        await ask(sim.url, "POST", "/sim/faults", {"faults": SLOWLY})
        with serving(tmp_path, {"a": sim.url}, drain_timeout=1) as running:
            path = f"{ROOT}/servers/a/models/pull?wait=false"
            answer = await ask(running.url, "POST", path, {"model": "New/Model:1B"})
            assert answer.status == 202
            begun = await job_of(running, "running")
            running.process.send_signal(end)
            await running.exit_code()
        await ask(sim.url, "POST", "/sim/faults", {"faults": []})
        with serving(tmp_path, {"a": sim.url}) as running:
            done = await job_of(running, "done", "failed", "cancelled")
            assert (done["state"], done["id"], done["resumed"]) == ("done", begun["id"], True)
            assert abs(done["createdAt"] - begun["createdAt"]) < 1000
            rows = (await ask(running.url, "GET", f"{ROOT}/servers/a/models")).json()["models"]
            assert "New/Model:1B" in [row["name"] for row in rows]
