"""Background work on models: list, look, follow, cancel."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import orjson
import trio

from actors.jobs.job import Job
from fleet.common.errors import Conflict
from fleet.common.ids import ServerId
from fleet.models.jobs import JobKind, JobState
from fleet.protocol.call import Downstream
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.kit.schemas import BYTES, EPOCH_MS, MS, Maybe, OneOf, Said
from web.asgi.quart_connection import Relay
from web.http.units import epoch_ms, milliseconds

LINE_EVERY: Final = 0.25
"""Seconds between two lines of a followed job, at least."""
QUIET: Final = 10.0
"""Seconds after which a line is repeated, so that nobody in between takes the connection for dead."""
_NDJSON: Final = ((b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store"))
_KINDS: Final = tuple(kind.value for kind in JobKind)
_STATES: Final = tuple(state.value for state in JobState)

topic = RouteGroup("jobs", "Background work on models: pulls, copies, warm-ups, unloads, deletions.")

FOLLOW: Final = Param(
    "stream", bool, False, "Answer with a line of JSON (the job) whenever it moves on; the last one tells how it ended."
)

job_shape: Final = {
    "id": str,
    "kind": OneOf(_KINDS),
    "serverId": str,
    "model": Said(str, "the name as it was given"),
    "state": OneOf(_STATES),
    "createdAt": EPOCH_MS,
    "startedAt": Maybe(EPOCH_MS),
    "endedAt": Maybe(EPOCH_MS),
    "by": Said(str, "the name of the key that asked for it"),
    "priority": Said(int, "higher is sooner"),
    "progress": {
        "completed": Maybe(BYTES),
        "total": Maybe(Said(int, "bytes of the layers seen so far")),
        "percent": Maybe(Said(float, "0 to 100")),
        "bytesPerSecond": Maybe(int),
        "etaMs": Maybe(MS),
    },
    "status": Said(str, "the last thing said about it"),
    "error": Maybe(str),
    "loadTime": Maybe(Said(int, "milliseconds that a warm-up took")),
    "resumed": Said(bool, "whether it was begun before the fleet's last start"),
}


@topic.get(
    "/jobs",
    "Jobs that wait, run, or ended lately, newest first.",
    query=(
        Param("kind", str, None, "only this kind", words=_KINDS),
        Param("state", str, None, "only this state", words=_STATES),
        Param("server", str, None, "only those of this server"),
        Param("model", str, None, "only those of this model, however it is spelled"),
        Param("limit", int, 100, "at most this many", least=1, most=1000),
    ),
    returns={"success": bool, "count": int, "total": Said(int, "that match"), "jobs": [job_shape]},
)
async def jobs(asked: AdminRequest) -> dict[str, Any]:
    query = asked.query
    kind = None if query["kind"] is None else JobKind(query["kind"])
    server = None if query["server"] is None else ServerId(query["server"])
    found = asked.system.jobs.of(kind, server, query["model"])
    found = [job for job in found if query["state"] in (None, job.state.value)]
    shown = [describe(job) for job in found[: query["limit"]]]
    return {"success": True, "count": len(shown), "total": len(found), "jobs": shown}


@topic.get(
    "/jobs/<job>",
    "One job; `stream=true` follows it.",
    query=(FOLLOW,),
    returns={"success": bool, "job": job_shape},
)
async def one(asked: AdminRequest, job: str) -> dict[str, Any] | Relay:
    found = asked.system.jobs.get(job)
    return following(found) if asked.query["stream"] else {"success": True, "job": describe(found)}


@topic.delete(
    "/jobs/<job>",
    "Cancel a job that waits or runs. What a pull has brought stays, and the next one goes on there.",
    action="cancel job",
    returns={"success": bool, "job": job_shape},
    fails=(409,),
)
async def cancel(asked: AdminRequest, job: str) -> dict[str, Any]:
    found = asked.system.jobs.cancel(job, by=asked.by.name)
    asked.note.about(job=found.id, server=found.server, model=found.model)
    if found.state is not JobState.CANCELLED:
        raise Conflict(f"job '{found.id}' has ended already: {found.state.value}")
    return {"success": True, "job": describe(found)}


def describe(job: Job) -> dict[str, Any]:
    """One job as the API shows it."""
    progress = job.progress
    return {
        "id": job.id,
        "kind": job.kind.value,
        "serverId": job.server,
        "model": job.model,
        "state": job.state.value,
        "createdAt": epoch_ms(job.created),
        "startedAt": epoch_ms(job.started),
        "endedAt": epoch_ms(job.ended),
        "by": job.by,
        "priority": job.priority,
        "progress": {
            "completed": progress.completed,
            "total": progress.total,
            "percent": progress.percent,
            "bytesPerSecond": None if progress.rate is None else round(progress.rate),
            "etaMs": milliseconds(progress.eta),
        },
        "status": job.detail,
        "error": job.error,
        "loadTime": milliseconds(job.load_seconds),
        "resumed": job.resumed,
    }


def following(job: Job) -> Relay:
    """A response that tells how a job goes on, line by line, until it ends. The client leaving ends nothing else."""
    return Relay(partial(_follow, job))


async def _follow(job: Job, down: Downstream) -> None:
    await down.start(200, _NDJSON)
    told, at = None, 0.0
    while True:
        last = job.state.ended or job.adrift
        # Only what moves: times of day are worked out anew for every line, and would differ by rounding.
        now, state = trio.current_time(), (job.state, job.detail, job.progress.completed, job.progress.total)
        if state != told or now - at >= QUIET:
            await down.write(orjson.dumps(describe(job)) + b"\n")
            told, at = state, now
        if last:
            break
        await job.wait(LINE_EVERY)
    await down.finish()
