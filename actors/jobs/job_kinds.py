"""What jobs do to a server, by kind. Each raises FleetError when it fails; cancelled, its connection is closed.

Nothing here holds a slot. Drains and removals of the server see a job as they see a transfer: they wait for it for a
while, then end it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from actors.dispatch.load_learning import learn_load
from actors.jobs.job import Job, JobContext
from actors.requests.pull_stream import pulling
from actors.requests.transfer import watched
from actors.state.servers import ServerCell
from actors.state.transfer import Transfer
from fleet.common.errors import BackendBroke, FirstByteTimeout, JobFailed, ModelNotFound, NoServer, Phase
from fleet.common.model_names import canonical
from fleet.config import Config
from fleet.models.inventory import parsed
from fleet.models.jobs import JobKind, bounded, is_embedding
from fleet.scheduling.server_state import Admin, Row

REREAD: Final = 2.0
"""Seconds a job waits at its end until the fleet has seen what it changed; a slower server is believed later."""
_SHORT: Final = 65.0
"""Seconds for an unload or a deletion, which load nothing."""

Status = tuple[int, bytes]


async def work(context: JobContext, cell: ServerCell, job: Job) -> None:
    """Do it; when this returns, the fleet knows what has changed on the server."""
    machine = cell.pool
    try:
        await _WORK[job.kind](context, cell, job)
    except BaseException:  # cancelled too: it may have been done all the same
        cell.probe_now.set()
        raise
    if cell.pool is not machine:
        raise JobFailed(f"the URL of server '{job.server}' was changed meanwhile: it was done on the machine before")
    job.accomplished = True
    probed = cell.probed
    cell.probe_now.set()
    with trio.move_on_after(REREAD):
        await probed.wait()


class _Errand(Transfer):
    """Work that has a deadline of its own; until then silence is normal."""

    def check(self, now: float, config: Config) -> None:
        """Nothing stands still here."""


async def _errand(
    context: JobContext, cell: ServerCell, within: float, call: Callable[[], Awaitable[Status]]
) -> Status:
    """One control call. Raises FirstByteTimeout after `within` seconds."""
    with watched(context.servers, cell, _Errand(cell.state.id)):
        with trio.move_on_after(within):
            return await call()
        raise FirstByteTimeout(f"no answer within {within:g} s", Phase.HEADERS)
    raise AssertionError("watched() has raised what ended it")


# ---- kinds


async def _pull(context: JobContext, cell: ServerCell, job: Job) -> None:
    """Download from the registry; what has come stays there when this ends early, and the next pull goes on."""
    with watched(context.servers, cell) as running:
        wanted = {"model": job.model} | ({"insecure": True} if job.options.get("insecure") is True else {})
        async with pulling(cell, wanted, context.config.current.timeouts.connect) as records:
            async for record in records:
                running.alive()
                if _take(context, job, record):
                    return
        raise BackendBroke("the connection ended before the pull did", Phase.BODY)


def _take(context: JobContext, job: Job, record: Row) -> bool:
    """Note what a record says; whether it says success."""
    if "error" in record:
        raise JobFailed(bounded(record["error"]))
    job.download.take(record, context.clock.now())
    status = record.get("status")
    if isinstance(status, str) and status:
        job.detail = bounded(status)
    return status == "success"


async def _warm(context: JobContext, cell: ServerCell, job: Job) -> None:
    """Load into memory. A server that gets no requests now (down, drained, in maintenance) is not warmed."""
    if not cell.state.usable:
        admin, health = cell.state.admin, cell.state.health
        what = health.value if admin is Admin.ACTIVE else admin.value
        raise NoServer(f"server '{job.server}' is {what}: it gets no requests, so nothing is loaded", retry_after=5.0)
    embedding, sure = _embedding(cell, job)
    began = context.clock.now()
    job.detail = "loading"
    status, body = await _load(context, cell, job, embedding)
    if status == 400 and not sure:  # "does not support generate": its row did not say what it is
        status, body = await _load(context, cell, job, not embedding)
    _check(job, status, body)
    job.load_seconds = context.clock.now() - began
    learn_load(context.load_times, cell, canonical(job.model), job.load_seconds)


async def _load(context: JobContext, cell: ServerCell, job: Job, embedding: bool) -> Status:
    runner, keep_alive = job.options.get("runner"), job.options.get("keep_alive")
    options, limit = runner if isinstance(runner, dict) else {}, context.config.current.jobs.load_timeout

    async def load() -> Status:
        return await cell.client.load(
            job.model, embedding=embedding, options=options, keep_alive=keep_alive, timeout=limit
        )

    return await _errand(context, cell, limit, load)


def _embedding(cell: ServerCell, job: Job) -> tuple[bool, bool]:
    """Whether the model only embeds, and whether somebody said so expressly."""
    said = job.options.get("embedding")
    if isinstance(said, bool):
        return said, True
    return is_embedding(cell.state.models.get(canonical(job.model), {})), False


async def _unload(context: JobContext, cell: ServerCell, job: Job) -> None:
    """Out of memory as soon as nobody uses it; fine as well when it is not loaded."""
    embedding, _ = _embedding(cell, job)
    _check(job, *await _errand(context, cell, _SHORT, lambda: cell.client.unload(job.model, embedding=embedding)))


async def _delete(context: JobContext, cell: ServerCell, job: Job) -> None:
    status, body = await _errand(context, cell, _SHORT, lambda: cell.client.delete(job.model))
    if status == 404 and job.resumed:  # the fleet ended between the deletion and writing down that it was done
        return
    _check(job, status, body)


_WORK: Final[dict[JobKind, Callable[[JobContext, ServerCell, Job], Awaitable[None]]]] = {
    JobKind.PULL: _pull,
    JobKind.COPY: _pull,
    JobKind.WARM: _warm,
    JobKind.UNLOAD: _unload,
    JobKind.DELETE: _delete,
}


def _check(job: Job, status: int, body: bytes) -> None:
    if status == 404:
        raise ModelNotFound(f"model '{job.model}' not found on server '{job.server}'")
    if status != 200:
        raise JobFailed(bounded(_said(body) or f"server '{job.server}' answered {status}"))


def _said(body: bytes) -> str:
    """Ollama's own error text."""
    try:
        value = parsed(body)
    except ValueError:
        return ""
    text = value.get("error") if isinstance(value, dict) else None
    return text if isinstance(text, str) else ""
