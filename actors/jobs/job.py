"""One job: what it is to do, how far it has come, how it ended; and the document that outlives the process."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import trio

from actors.kit.clock import Clock
from actors.state.config_ref import ConfigRef
from actors.state.servers import ServerCell, Servers
from fleet.common.errors import FleetError
from fleet.common.ids import ModelName, ServerId
from fleet.common.model_names import canonical
from fleet.models.jobs import Download, JobKind, JobState, Progress, bounded, percent_of
from fleet.models.load_times import LoadTimes

Document = dict[str, Any]
RESUMED = "resumed after a restart"


@dataclass(frozen=True, slots=True, eq=False)
class JobContext:
    """The parts of a fleet that its jobs need."""

    config: ConfigRef
    clock: Clock
    servers: Servers
    load_times: LoadTimes


class Job:
    """Written by the job board and by the one task that does the work; everybody else reads.

    `created`, `started`, `ended` are moments on Trio's clock (None: not yet). `detail` is the last thing said about
    it, `error` why it failed, `failure` the same as an error of this process. `load_seconds` is what a warm-up took.
    """

    def __init__(
        self,
        context: JobContext,
        kind: JobKind,
        server: ServerId,
        model: str,
        *,
        number: int,
        by: str = "",
        priority: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.id = secrets.token_hex(8)
        self.kind, self.server, self.model = kind, server, model
        self.number, self.by, self.priority = number, by, priority
        self.options: dict[str, Any] = dict(options or {})
        self.state = JobState.QUEUED
        self.created: float = context.clock.now()
        self.started: float | None = None
        self.ended: float | None = None
        self.error: str | None = None
        self.failure: FleetError | None = None
        self.detail = "waits for its turn"
        self.load_seconds: float | None = None
        self.resumed = False
        """Whether it was begun by an earlier process."""
        self.home: ServerCell | None = None
        """The server that was meant: not the next one of that name. None: not seen yet, or the job has ended."""
        self.accomplished = False
        """Whether the server has done it; what remains is that the fleet sees it."""
        self.scope = trio.CancelScope()
        self.download = Download()
        self._clock, self._servers = context.clock, context.servers
        self._moved = trio.Event()
        self._final: Progress | None = None

    def __repr__(self) -> str:
        return f"<{self.kind.value} of {self.model} on {self.server}: {self.state.value}>"

    @property
    def key(self) -> tuple[ServerId, ModelName]:
        """What it works on; no two jobs work on the same at one time."""
        return self.server, canonical(self.model)

    @property
    def progress(self) -> Progress:
        """Bytes, percent, bytes per second, seconds left; None where unknown. After the end: no speed any more."""
        return self.download.progress(self._clock.now()) if self._final is None else self._final

    @property
    def adrift(self) -> bool:
        """Whether it waits for the next start of the fleet: this process will not do it any more."""
        return self.state is JobState.QUEUED and self._servers.draining

    async def wait(self, within: float) -> bool:
        """Wait for the end, at most `within` seconds, and not while it is adrift; whether it has ended.

        Cancelled: the job goes on.
        """
        with trio.move_on_after(within):
            while not (self.state.ended or self.adrift):
                await self._moved.wait()
        return self.state.ended

    # ---- the board's and the worker's

    def begin(self) -> None:
        """It is its turn."""
        self.state, self.started, self.detail = JobState.RUNNING, self._clock.now(), "started"
        self.scope, self.download = trio.CancelScope(), Download()

    def put_back(self, why: str) -> None:
        """It waits again: the fleet stops before it has ended."""
        self.state, self.started, self.detail = JobState.QUEUED, None, why
        self.nudge()

    def nudge(self) -> None:
        """Let who waits for it look again."""
        self._moved.set()
        self._moved = trio.Event()

    def finish(self, state: JobState, detail: str, failure: FleetError | None = None) -> None:
        """It has ended; wakes who waits for it."""
        if state is JobState.DONE:
            self.download.finish()
        came = self.progress
        self._final = Progress(came.completed, came.total, came.percent)
        self.state, self.ended, self.detail, self.failure = state, self._clock.now(), bounded(detail), failure
        self.error = None if failure is None else bounded(failure.message)
        self.home = None
        self.nudge()

    # ---- outliving the process

    def document(self) -> Document:
        """What is kept of it; times are seconds since 1970."""
        epoch, progress = self._clock.epoch, self.progress
        return {
            "id": self.id,
            "number": self.number,
            "kind": self.kind.value,
            "server": self.server,
            "model": self.model,
            "by": self.by,
            "priority": self.priority,
            "options": self.options,
            "state": self.state.value,
            "created": epoch(self.created),
            "started": None if self.started is None else epoch(self.started),
            "ended": None if self.ended is None else epoch(self.ended),
            "error": self.error,
            "detail": self.detail,
            "completed": progress.completed,
            "total": progress.total,
            "load_seconds": self.load_seconds,
            "resumed": self.resumed,
        }


def job_of(context: JobContext, key: str, kept: Document) -> Job:
    """A job of an earlier process; one that had not ended waits again. Raises anything if the document is not ours."""
    kind, server, model = JobKind(kept["kind"]), ServerId(_text(kept["server"])), _text(kept["model"])
    number, by, options = int(kept["number"]), _text(kept["by"]), dict(kept["options"])
    job = Job(context, kind, server, model, number=number, by=by, options=options)
    job.id, job.priority = key, int(kept["priority"])
    job.created, state = context.clock.moment(float(kept["created"])), JobState(kept["state"])
    job.resumed = bool(kept["resumed"]) or not state.ended
    if state.ended:
        _ended(context, job, state, kept)
    else:
        job.detail = RESUMED
    return job


def _ended(context: JobContext, job: Job, state: JobState, kept: Document) -> None:
    job.finish(state, _text(kept["detail"]))
    job.started = None if kept["started"] is None else context.clock.moment(float(kept["started"]))
    job.ended = context.clock.moment(float(kept["ended"]))
    job.error = None if kept["error"] is None else bounded(kept["error"])
    seconds, completed, total = kept["load_seconds"], kept["completed"], kept["total"]
    job.load_seconds = None if seconds is None else float(seconds)
    if completed is not None and total is not None:
        completed, total = int(completed), int(total)
        job._final = Progress(completed, total, percent_of(completed, total))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"not a text: {value!r:.50}")
    return value
