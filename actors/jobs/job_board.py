"""Background work on models: pulls, copies, warm-ups, unloads, deletions.

Every job is a task of the board's own nursery: it outlives who asked for it, and ends with its server or the fleet. A
job that crashes has failed, and that is all. What had not ended when the process did waits again in the next one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import trio

from actors.jobs.job import Document, Job, JobContext, job_of
from actors.jobs.job_kinds import work
from actors.kit.supervisor import keep_up
from actors.state.servers import ServerCell
from actors.storage.journal import Journal
from fleet.common.errors import BadRequest, FleetError, JobNotFound, NoServer, ServerNotFound, ShuttingDown, TooManyJobs
from fleet.common.ids import ModelName, ServerId
from fleet.common.model_names import canonical, is_valid
from fleet.models.jobs import JobKind, JobState, Limits, choose
from fleet.scheduling.server_state import Health

log = logging.getLogger("fleet.jobs")

KIND: Final = "job"
"""What the journal calls them."""
EVERY: Final = 1.0
"""Seconds between two looks at those that wait: a server may have come, gone, or been probed meanwhile."""
HOMELESS: Final = 30.0
"""Seconds that a job of an earlier process waits for its server to be known again."""
_INTERRUPTED: Final = "interrupted by the end of the fleet"

Key = tuple[JobKind, ServerId, ModelName, str]
"""What makes two jobs the same; of warm-ups also how the model is loaded."""


class JobBoard:
    """All jobs of the fleet. Every method without `await` is synchronous and safe to call from any task.

    Bounds: `jobs.waiting` wait, `jobs.total` run (`jobs.per_server` on one server), `jobs.keep` that ended are
    remembered. All are read when they matter, so that a change of the configuration counts at once.
    """

    def __init__(self, context: JobContext, journal: Journal) -> None:
        self._context = context
        self._journal = journal
        self._config, self._clock, self._servers = context.config, context.clock, context.servers
        self._nursery: trio.Nursery | None = None
        self._more = trio.lowlevel.ParkingLot()
        self._opened = self._clock.now()
        self._numbers = 0
        self._jobs: dict[str, Job] = {}
        self._waiting: dict[str, Job] = {}
        self._running: dict[str, Job] = {}
        self._unended: dict[Key, Job] = {}
        self._ended: dict[str, None] = {}
        self._restore()

    # ---- what others ask

    def start(
        self,
        kind: JobKind,
        server: ServerId,
        model: str,
        *,
        by: str = "",
        priority: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> Job:
        """Have something done; the same thing that has not ended yet is returned instead, with the higher priority.

        A warm-up with other options, or an insecure pull, is another thing: it comes after the one under way.

        Raises ServerNotFound, BadRequest for a name that is none, TooManyJobs, and ShuttingDown while the fleet drains.
        """
        self._check(server, model)
        job = Job(
            self._context, kind, server, model, number=self._numbers + 1, by=by, priority=priority, options=options
        )
        if (same := self._unended.get(_key(job))) is not None:
            same.priority = max(same.priority, priority)
            return same
        limit = self._config.current.jobs.waiting
        if len(self._waiting) >= limit and choose(self._able([job]), self._running.values(), self._limits) is None:
            raise TooManyJobs(f"{limit} jobs wait for their turn already", retry_after=10.0)
        self._numbers = job.number
        self._add(job)
        self._touch(job, "queued")
        self._pump()
        return job

    def get(self, job_id: str) -> Job:
        """One job; raises JobNotFound."""
        job = self._jobs.get(job_id)
        if job is None:
            raise JobNotFound(f"job '{job_id[:100]}' not found")
        return job

    def all(self) -> list[Job]:
        """Every job that is remembered, newest first."""
        return list(reversed(self._jobs.values()))

    def of(
        self,
        kind: JobKind | None = None,
        server: ServerId | None = None,
        model: str | None = None,
        active: bool | None = None,
    ) -> list[Job]:
        """Those that match everything given, newest first. `active`: have not ended (True), have (False)."""
        name = None if model is None else canonical(model)

        def matches(job: Job) -> bool:
            return (
                kind in (None, job.kind)
                and server in (None, job.server)
                and name in (None, canonical(job.model))
                and active in (None, not job.state.ended)
            )

        return [job for job in self.all() if matches(job)]

    def cancel(self, job_id: str, *, by: str = "") -> Job:
        """End a job that waits or runs; one that has ended, or is done but for the last look, is not cancelled.

        Raises JobNotFound.
        """
        job = self.get(job_id)
        if job.accomplished:
            self._end(job, JobState.DONE, "success")
        elif not job.state.ended:
            self._end(job, JobState.CANCELLED, f"cancelled by {by}" if by else "cancelled")
            job.scope.cancel()
            self._pump()
        return job

    # ---- the board's own life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the jobs' tasks until cancelled; who had not ended is queued again by the next process."""
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(keep_up, "jobs", self._look_now_and_then)
                task_status.started()
        finally:
            self._nursery = None

    async def _look_now_and_then(self) -> None:
        """Jobs wait for servers too, and nobody tells us of those."""
        while True:
            if not self._waiting:
                await self._more.park()
            await trio.sleep(EVERY)
            self._pump()

    def _pump(self) -> None:
        """Start whoever there is room for."""
        self._drop_homeless()
        if self._servers.draining:
            for waiting in self._waiting.values():
                waiting.nudge()
        while self._nursery is not None and not self._servers.draining:
            job = choose(self._able(self._waiting.values()), self._running.values(), self._limits)
            if job is None:
                return
            del self._waiting[job.id]
            self._running[job.id] = job
            job.begin()
            self._touch(job, "started")
            self._nursery.start_soon(self._live, job, self._servers[job.server], name=f"job {job.id}")

    def _able(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Those that wait for nothing but room. A server that was not probed yet has its first verdict in seconds."""
        for job in jobs:
            cell = self._servers.get(job.server)
            if cell is not None and cell.state.health is not Health.UNKNOWN:
                yield job

    async def _live(self, job: Job, cell: ServerCell) -> None:
        try:
            with job.scope:
                await self._attempt(job, cell)
        finally:
            self._running.pop(job.id, None)
            self._pump()

    async def _attempt(self, job: Job, cell: ServerCell) -> None:
        try:
            if self._servers.get(job.server) is not cell:  # removed before we came to it
                raise _gone(job.server)
            await work(self._context, cell, job)
        except FleetError as error:
            if self._servers.draining and isinstance(error, NoServer | ShuttingDown):
                if not job.state.ended:
                    job.put_back(_INTERRUPTED)
                    self._waiting[job.id] = job
                    self._touch(job, "interrupted")
            else:
                self._end(job, JobState.FAILED, error.message, error)
        except Exception:
            log.exception("job crashed", extra=_about(job))
            failure = FleetError("internal error", details=f"see the log for job {job.id}")
            self._end(job, JobState.FAILED, failure.message, failure)
        else:
            self._end(job, JobState.DONE, "success")

    # ---- the books

    def _check(self, server: ServerId, model: str) -> None:
        if self._servers.draining:
            raise ShuttingDown("the fleet is shutting down", retry_after=2.0)
        if server not in self._servers:
            raise ServerNotFound(f"server '{server[:100]}' not found")
        if not is_valid(model):
            raise BadRequest(f"invalid model name '{model[:100]}'")

    @property
    def _limits(self) -> Limits:
        return Limits(self._config.current.jobs.per_server, self._config.current.jobs.total)

    def _add(self, job: Job) -> None:
        self._jobs[job.id] = self._waiting[job.id] = self._unended[_key(job)] = job
        self._more.unpark_all()

    def _end(self, job: Job, state: JobState, detail: str, failure: FleetError | None = None) -> None:
        """It is over, unless it was before."""
        if job.state.ended:
            return
        job.finish(state, detail, failure)
        self._waiting.pop(job.id, None)
        del self._unended[_key(job)]
        self._touch(job, state.value)
        self._remember(job)

    def _remember(self, job: Job) -> None:
        """Keep it among those that ended; the oldest make room."""
        self._ended[job.id] = None
        while len(self._ended) > self._config.current.jobs.keep:
            oldest = next(iter(self._ended))
            del self._ended[oldest], self._jobs[oldest]
            self._journal.touch(KIND, oldest)

    def _drop_homeless(self) -> None:
        """End those whose server is gone; what an earlier process left waits a little for servers that come late."""
        early = self._clock.now() - self._opened < HOMELESS
        for job in list(self._waiting.values()):
            cell = self._servers.get(job.server)
            if job.home is None and cell is None and early and job.resumed:
                continue
            if cell is None or job.home not in (None, cell):
                gone = _gone(job.server)
                self._end(job, JobState.FAILED, gone.message, gone)
            else:
                job.home = cell

    def _touch(self, job: Job, what: str) -> None:
        self._journal.touch(KIND, job.id)
        extra = _about(job)
        if job.error is not None:
            extra["reason"] = job.error
        log.info("job %s", what, extra=extra)

    def _document(self, key: str) -> Document | None:
        job = self._jobs.get(key)
        return None if job is None else job.document()

    def _restore(self) -> None:
        """Take over what an earlier process left, in its order."""
        self._journal.keep(KIND, self._document)
        found = self._journal.recall(KIND, lambda key, kept: job_of(self._context, key, kept))
        for job in sorted(found, key=lambda job: job.number):
            self._numbers = job.number  # of those to come are higher
            if job.state.ended:
                self._jobs[job.id] = job
                self._remember(job)
            elif _key(job) not in self._unended:
                self._add(job)
            else:
                self._journal.touch(KIND, job.id)


def _key(job: Job) -> Key:
    how = job.options if job.kind is JobKind.WARM else {"insecure": job.options.get("insecure", False)}
    return job.kind, job.server, canonical(job.model), json.dumps(how, sort_keys=True)


def _about(job: Job) -> dict[str, Any]:
    return {"job": job.id, "kind": job.kind.value, "server": job.server, "model": job.model, "by": job.by}


def _gone(server: ServerId) -> ServerNotFound:
    return ServerNotFound(f"server '{server}' is not part of the fleet any more")
