"""Warm-ups as a test asks for them, and what came of them."""

from __future__ import annotations

from typing import Any

from actors.jobs.job import Job
from fleet.simulator.runner import Runner
from tests.kit.clients.admin import ask
from tests.kit.fleets.served import Served

LLAMA = "llama3:8b"


async def warm(fleet: Served, body: object = None, model: str = LLAMA) -> Any:
    """A warm-up, and wait until its jobs have ended."""
    found = await ask(fleet, "POST", f"/models/{model}/warmup", body)
    for job in found["jobs"]:
        assert job["jobId"] is None or await job_of(fleet, job["jobId"]).wait(10.0)
    return found


def job_of(fleet: Served, job_id: str) -> Job:
    return fleet.system.jobs.get(job_id)


def runner(fleet: Served, server: str, model: str = LLAMA) -> Runner | None:
    """What the server really has in memory."""
    runners = fleet.sims[server].host.server.runners.values()
    return next((each for each in runners if each.file.name == model), None)
