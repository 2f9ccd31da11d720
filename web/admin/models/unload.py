"""Taking models out of memory: jobs, so they outlive who asked for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

import trio
from msgspec import UNSET, UnsetType

from fleet.common.errors import FleetError, ModelNotFound
from fleet.common.ids import ANY_MODEL, ModelName, ServerId
from fleet.common.model_names import canonical
from fleet.common.times import milliseconds
from fleet.models.jobs import JobKind, JobState
from web.admin.kit.answers import MS, Answer, JsonObject
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.models.state import Presence, Where, server_of, spelling, spelt, surveyed
from web.ollama_api.read_your_writes import reread

if TYPE_CHECKING:
    from actors.state.servers import ServerCell
    from actors.system import System

topic = RouteGroup("model-unloading", "Taking models out of memory.")

WITHIN: Final = 10.0
"""Seconds that an unload waits for its jobs; they go on without it."""


class UnloadJson(JsonObject, kw_only=True):
    """How it went on one server."""

    server_id: str
    success: Annotated[bool, "it is out of memory"]
    status: Literal["unloaded", "unloading", "failed"]
    job_id: str | None
    error: str | UnsetType = UNSET


class UnloadSummaryJson(JsonObject, kw_only=True):
    """How many servers it is."""

    total_servers: int
    successfully_unloaded: int
    unloading: int
    failed: int


class UnloadAnswer(Answer, kw_only=True):
    """How it went."""

    model: str
    results: list[UnloadJson]
    summary: UnloadSummaryJson
    waited: MS
    message: str


@topic.post(
    "/models/<path:model>/unload",
    "Take a model out of memory on one server, or on all; one that is in use goes when its requests have ended, and "
    "one that is not loaded is out already.",
    action="unload model",
    body=Where,
    seed=True,
)
async def unload(asked: AdminRequest, model: str) -> UnloadAnswer:
    system, server, began = asked.system, server_of(asked), trio.current_time()
    asked.note.about(model=model, server=server or "")
    name, cells = await _loaded(system, model, server)
    results = await _unload_all(system, name, cells, asked.by.name)
    found: list[str] = [result.status for result in results]
    message = f"{found.count('unloaded')} of {len(found)} servers have unloaded it"
    if not found:
        where = "any server" if server is None else f"server '{server}'"
        message = f"model '{model[:100]}' is not loaded on {where}"
    return UnloadAnswer(
        success="failed" not in found,
        model=spelling(system, name),
        results=results,
        summary=UnloadSummaryJson(
            total_servers=len(results),
            successfully_unloaded=found.count("unloaded"),
            unloading=found.count("unloading"),
            failed=found.count("failed"),
        ),
        waited=milliseconds(trio.current_time() - began),
        message=message,
    )


async def _loaded(system: System, asked: str, server: ServerId | None) -> tuple[ModelName, list[ServerCell]]:
    """Where it is in memory, by fresh probes; nowhere is fine. Raises ModelNotFound for what cannot be a name."""
    name = canonical(asked)
    if name == ANY_MODEL:
        raise ModelNotFound(f"'{asked[:100]}' is not a valid model name")
    cells = [system.cell(server)] if server is not None else list(system.servers.values())
    await reread(system, [c.state.id for c in cells if name in c.state.models or name in c.state.resident])
    survey = await surveyed(system)
    return name, [cell for cell in cells if survey.sight(cell, name).presence is Presence.LOADED]


async def _unload_all(system: System, name: ModelName, cells: list[ServerCell], by: str) -> list[UnloadJson]:
    """Unload everywhere at once; the results in the order of `cells`, after `WITHIN` seconds at most."""
    results: dict[ServerId, UnloadJson] = {}

    async def one(cell: ServerCell) -> None:
        results[cell.state.id] = await _unload(system, name, cell, by)

    async with trio.open_nursery() as nursery:
        for cell in cells:
            nursery.start_soon(one, cell)
    return [results[cell.state.id] for cell in cells]


async def _unload(system: System, name: ModelName, cell: ServerCell, by: str) -> UnloadJson:
    server, row = cell.state.id, cell.state.resident.get(name) or cell.state.models.get(name) or {}
    try:
        job = system.jobs.start(JobKind.UNLOAD, server, spelt(row, name), by=by)
    except FleetError as error:
        return UnloadJson(server_id=server, success=False, status="failed", job_id=None, error=error.message)
    if await job.wait(WITHIN) and job.state is not JobState.DONE:
        why = job.error or f"the job was {job.state.value}"
        return UnloadJson(server_id=server, success=False, status="failed", job_id=job.id, error=why)
    gone = job.state is JobState.DONE and name not in cell.state.resident
    return UnloadJson(server_id=server, success=gone, status="unloaded" if gone else "unloading", job_id=job.id)
