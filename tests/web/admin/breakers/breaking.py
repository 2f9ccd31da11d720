"""Breakers that have opened, and how they are asked for."""

from __future__ import annotations

from trio.testing import wait_all_tasks_blocked

from fleet.common.ids import ServerId
from tests.kit.fleets.served import Served

MODELS = "llama3:8b:4.7GB,tiny:latest:1GB,ns/deep:7b:1GB"
TO_A = "/api/generate--a"
"""To this server alone; where there is another, the breaker of a stays open, since a is not the last that is left."""
PLAIN = {"adaptive": False, "open_jitter": 0.0}
A = ServerId("a")


def path_of(model: str, word: str = "", server: str = "a") -> str:
    return f"/circuit-breakers/{server}/{model}" + (f"/{word}" if word else "")


async def fail(fleet: Served, times: int = 3, model: str = "tiny", path: str = "/api/generate") -> None:
    """Requests that a server refuses with a 503."""
    for sim in fleet.sims.values():
        sim.host.faults.set("status:503:down")
    async with fleet.client() as client:
        for _ in range(times):
            answer = await client.post(path, json={"model": model, "prompt": "a secret", "stream": False})
            assert answer.status_code == 503
    await wait_all_tasks_blocked()


async def works(fleet: Served, model: str = "tiny", path: str = "/api/generate") -> int:
    body = {"model": model, "prompt": "x", "stream": False, "options": {"num_predict": 1}}
    async with fleet.client() as client:
        return (await client.post(path, json=body)).status_code
