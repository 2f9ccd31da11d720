"""Background work on models: list, look, follow, cancel."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final

import trio

from actors.jobs.job import Job
from fleet.common.errors import Conflict
from fleet.common.ids import ServerId
from fleet.common.times import ClockReading, milliseconds
from fleet.models.jobs import JobKind, JobState
from fleet.protocol.call import Downstream
from web.admin.kit.answers import BYTES, EPOCH_MS, MS, Answer, JsonObject
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.asgi.quart_connection import Relay
from web.http import responses

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


class ProgressJson(JsonObject, kw_only=True):
    """How far it has come; what nobody knows is null."""

    completed: BYTES | None
    total: Annotated[int, "bytes of the layers seen so far"] | None
    percent: Annotated[float, "0 to 100"] | None
    bytes_per_second: int | None
    eta_ms: MS | None


class JobJson(JsonObject, kw_only=True):
    """One job."""

    id: str
    kind: JobKind
    server_id: str
    model: Annotated[str, "the name as it was given"]
    state: JobState
    created_at: EPOCH_MS
    started_at: EPOCH_MS | None
    ended_at: EPOCH_MS | None
    by: Annotated[str, "the name of the key that asked for it"]
    priority: Annotated[int, "higher is sooner"]
    progress: ProgressJson
    status: Annotated[str, "the last thing said about it"]
    error: str | None
    load_time: Annotated[int, "milliseconds that a warm-up took"] | None
    resumed: Annotated[bool, "whether it was begun before the fleet's last start"]


class JobsAnswer(Answer, kw_only=True):
    """Some of the jobs that match."""

    count: int
    total: Annotated[int, "that match"]
    jobs: list[JobJson]


class JobAnswer(Answer, kw_only=True):
    """One job."""

    job: JobJson


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
)
async def jobs(asked: AdminRequest) -> JobsAnswer:
    query = asked.query
    kind = None if query["kind"] is None else JobKind(query["kind"])
    server = None if query["server"] is None else ServerId(query["server"])
    found = asked.system.jobs.of(kind, server, query["model"])
    found = [job for job in found if query["state"] in (None, job.state.value)]
    at = asked.reading()
    shown = [describe(job, at) for job in found[: query["limit"]]]
    return JobsAnswer(count=len(shown), total=len(found), jobs=shown)


@topic.get(
    "/jobs/<job>",
    "One job; `stream=true` follows it.",
    query=(FOLLOW,),
)
async def one(asked: AdminRequest, job: str) -> JobAnswer | Relay:
    found = asked.system.jobs.get(job)
    return (
        following(found, asked.reading()) if asked.query["stream"] else JobAnswer(job=describe(found, asked.reading()))
    )


@topic.delete(
    "/jobs/<job>",
    "Cancel a job that waits or runs. What a pull has brought stays, and the next one goes on there.",
    action="cancel job",
    fails=(409,),
)
async def cancel(asked: AdminRequest, job: str) -> JobAnswer:
    found = asked.system.jobs.cancel(job, by=asked.by.name)
    asked.note.about(job=found.id, server=found.server, model=found.model)
    if found.state is not JobState.CANCELLED:
        raise Conflict(f"job '{found.id}' has ended already: {found.state.value}")
    return JobAnswer(job=describe(found, asked.reading()))


def describe(job: Job, at: ClockReading) -> JobJson:
    """One job as the API shows it."""
    progress = job.progress
    return JobJson(
        id=job.id,
        kind=job.kind,
        server_id=job.server,
        model=job.model,
        state=job.state,
        created_at=at.epoch_ms(job.created),
        started_at=at.epoch_ms(job.started),
        ended_at=at.epoch_ms(job.ended),
        by=job.by,
        priority=job.priority,
        progress=ProgressJson(
            completed=progress.completed,
            total=progress.total,
            percent=progress.percent,
            bytes_per_second=None if progress.rate is None else round(progress.rate),
            eta_ms=milliseconds(progress.eta),
        ),
        status=job.detail,
        error=job.error,
        load_time=milliseconds(job.load_seconds),
        resumed=job.resumed,
    )


def following(job: Job, at: ClockReading) -> Relay:
    """A response that tells how a job goes on, line by line, until it ends. The client leaving ends nothing else."""
    return Relay(partial(_follow, job, at))


async def _follow(job: Job, at: ClockReading, down: Downstream) -> None:
    await down.start(200, _NDJSON)
    told, told_at = None, 0.0
    while True:
        last = job.state.ended or job.adrift
        now, state = trio.current_time(), (job.state, job.detail, job.progress.completed, job.progress.total)
        if state != told or now - told_at >= QUIET:
            await down.write(responses.encoded(describe(job, at)) + b"\n")
            told, told_at = state, now
        if last:
            break
        await job.wait(LINE_EVERY)
    await down.finish()
