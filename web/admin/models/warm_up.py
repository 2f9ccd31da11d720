"""Bringing models into memory: jobs, so they outlive who asked for them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from msgspec import UNSET, UnsetType
from pydantic import Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from fleet.common.errors import FleetError, NoServer, ServerNotFound, TooManyJobs
from fleet.common.ids import ModelName, ServerId
from fleet.common.model_names import canonical
from fleet.common.times import milliseconds
from fleet.config.schema.types import Section, Whole
from fleet.models.jobs import JobKind
from fleet.protocol.go_duration import go_seconds
from fleet.scheduling import server_words
from web.admin.kit.answers import Answer, JsonObject
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.models.state import Presence, Sight, Survey, Where, server_of, size_on, spelling, spelt, surveyed, wanted
from web.ollama_api.read_your_writes import reread

if TYPE_CHECKING:
    from actors.jobs.job import Job
    from actors.state.servers import ServerCell
    from actors.system import System

topic = RouteGroup("model-loading", "Bringing models into memory.")

PRIORITIES: Final = {"low": -5, "normal": 0, "high": 5}
"""As in the header X-Priority."""
_YEAR: Final = 366 * 86400.0
_LARGE: Final = 2**31 - 1


def _lasts(value: object) -> float | str:
    """How long a model stays, as Ollama takes it."""
    if isinstance(value, str) and (seconds := go_seconds(value)) is not None:
        kept: float | str = value
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        kept = seconds = value
    else:
        raise PydanticCustomError("keep_alive", "must be a number of seconds or a duration like 5m")
    if seconds == 0:
        raise PydanticCustomError("keep_alive", "0 would unload the model at once")
    if seconds > _YEAR:
        raise PydanticCustomError("keep_alive", "is longer than a year; a negative number means for ever")
    return kept


KeepAlive = Annotated[
    float | str,
    PlainValidator(_lasts),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}]}),
]


class WarmUpOptions(Section):
    """The options that decide whether a loaded runner fits a request; what is not given, the server chooses."""

    num_ctx: Annotated[Whole, Field(ge=1, le=_LARGE)] | None = None
    num_batch: Annotated[Whole, Field(ge=1, le=_LARGE)] | None = None
    num_gpu: Annotated[Whole, Field(ge=-1, le=_LARGE)] | None = None
    main_gpu: Annotated[Whole, Field(ge=0, le=_LARGE)] | None = None
    num_thread: Annotated[Whole, Field(ge=0, le=_LARGE)] | None = None
    draft_num_predict: Annotated[Whole, Field(ge=0, le=_LARGE)] | None = None
    use_mmap: bool | None = None
    shift: bool | None = None


class Warmup(Section):
    """Where to load the model, how soon, for how long, and with which runner options."""

    servers: Annotated[list[Annotated[str, Field(max_length=64)]], Field(min_length=1, max_length=1000)] | None = Field(
        None, description="Ids of servers; without it every usable server that holds the model."
    )
    priority: Literal["low", "normal", "high"] = Field("normal", description="Whose job is first where several wait.")
    keep_alive: KeepAlive | None = Field(
        None, description="As Ollama takes it: seconds, or a duration like 30m; negative: for ever."
    )
    options: WarmUpOptions | None = Field(
        None, description="Runner options, and no others; without it those that clients used most lately."
    )


Outcome = Literal["loading", "loaded", "failed"]


class WarmUpJson(JsonObject, kw_only=True):
    """How it stands on one server."""

    server_id: str
    status: Outcome
    estimated_time: Annotated[int, "milliseconds the whole load takes, probably; 0 if it is loaded"]
    load_time: Annotated[int, "milliseconds the last load took, once it is loaded; 0 if none was seen"]
    job_id: Annotated[str, "see /jobs/{id}"] | None
    error: Annotated[str, "why it cannot be loaded there"] | UnsetType = UNSET


class WarmUpSummaryJson(JsonObject, kw_only=True):
    """How many servers it is."""

    total_servers: int
    loaded_on: int
    loading_on: int
    failed_on: int


class WarmUpAnswer(Answer, kw_only=True):
    """How it stands everywhere."""

    model: str
    options: Annotated[dict[str, Any], "the runner options it is loaded with"]
    jobs: list[WarmUpJson]
    summary: WarmUpSummaryJson


class CancelledWarmUpAnswer(Answer, kw_only=True):
    """What was given up."""

    model: str
    cancelled: int
    message: str
    jobs: list[str]


@topic.post(
    "/models/<path:model>/warmup",
    "Load a model on some servers, with the runner options that clients use.",
    action="warm up model",
    body=Warmup,
    fails=(503,),
    seed=True,
)
async def warm_up(asked: AdminRequest, model: str) -> WarmUpAnswer:
    system, name = asked.system, wanted(asked.system, model)
    servers = _targets(system, name, asked.body.servers)
    asked.note.about(model=name, server=",".join(servers))
    await reread(system, servers)  # what the last probe saw may have been unloaded since
    plan = _Plan(system, await surveyed(system), name, asked.body, asked.by.name)
    jobs = [plan.row(server) for server in servers]
    if plan.refusals and len(plan.refusals) == len(jobs):
        raise plan.refusals[0]
    found: list[str] = [job.status for job in jobs]
    return WarmUpAnswer(
        success="loaded" in found or "loading" in found,
        model=spelling(system, name),
        options=plan.options,
        jobs=jobs,
        summary=WarmUpSummaryJson(
            total_servers=len(jobs),
            loaded_on=found.count("loaded"),
            loading_on=found.count("loading"),
            failed_on=found.count("failed"),
        ),
    )


def _targets(system: System, model: ModelName, given: list[str] | None) -> list[ServerId]:
    """Raises ServerNotFound with every id that nobody has, and NoServer if there is nowhere to load it."""
    if given is None:
        found = system.queries.holders(model)
        if not found:
            raise NoServer(f"no server that holds model '{model}' can be used now", retry_after=5.0)
        return found
    servers = [ServerId(each) for each in dict.fromkeys(given)]
    missing = [server for server in servers if server not in system.servers]
    if missing:
        names = ", ".join(f"'{server}'" for server in missing[:20])
        raise ServerNotFound(f"server {names} not found" if len(missing) == 1 else f"servers {names} not found")
    return servers


class _Plan:
    """One warm-up: what is the same for all its servers. `refusals`: servers whose job was refused for lack of room."""

    def __init__(self, system: System, survey: Survey, model: ModelName, body: Warmup, by: str) -> None:
        self._system, self._model, self._body, self._by = system, model, body, by
        self._survey = survey
        self._given = None if body.options is None else body.options.model_dump(exclude_none=True)
        self.options = system.statistics.demand.options(model) if self._given is None else self._given
        self.refusals: list[TooManyJobs] = []

    def row(self, server: ServerId) -> WarmUpJson:
        """Start the job for one server, if it needs one; how it stands there."""
        cell = self._system.servers.get(server)
        if cell is None:
            return _failed(server, "the server was removed")
        if not cell.state.usable:
            return _failed(server, f"the server is {server_words.word_of(cell.state, server_words.API)}")
        if self._model not in cell.state.models:
            return _failed(server, "the server does not hold the model")
        sight = self._survey.sight(cell, self._model)
        if sight.presence is Presence.LOADED and self._fits(sight):
            return _row(server, "loaded", took=sight.load_seconds or 0.0)
        try:
            job = self._start(cell, sight)
        except FleetError as error:
            if isinstance(error, TooManyJobs):
                self.refusals.append(error)
            return _failed(server, error.message)
        estimate = self._system.statistics.load_times.estimate(sight.pair, size_on(cell, self._model))
        return _row(server, "loading", estimate=estimate, job=job)

    def _fits(self, sight: Sight) -> bool:
        """Whether what is in memory needs nothing done to it."""
        if self._body.keep_alive is not None:
            return False
        return not self._outgrown(sight) if self._given is None else self._given == {"num_ctx": sight.context}

    def _outgrown(self, sight: Sight) -> bool:
        """Whether clients want another context than the runner has. Loading a busy runner again would stop them all."""
        if sight.context is None or self._survey.busy(sight.pair):
            return False
        return bool(self.options.get("num_ctx", sight.context) != sight.context)

    def _start(self, cell: ServerCell, sight: Sight) -> Job:
        options: dict[str, Any] = {"runner": self._runner(sight)}
        if self._body.keep_alive is not None:
            options["keep_alive"] = self._body.keep_alive
        embeds = self._system.statistics.demand.embeds(self._model)
        if embeds is not None:
            options["embedding"] = embeds
        name = spelt(cell.state.models[self._model], self._model)
        priority = PRIORITIES[self._body.priority]
        return self._system.jobs.start(
            JobKind.WARM, cell.state.id, name, by=self._by, priority=priority, options=options
        )

    def _runner(self, sight: Sight) -> dict[str, Any]:
        """A model that only has to stay longer keeps the context it has: anything else would load it again."""
        stays = self._given is None and sight.presence is Presence.LOADED and not self._outgrown(sight)
        return {**self.options, "num_ctx": sight.context} if stays and sight.context else dict(self.options)


def _row(
    server: ServerId,
    status: Outcome,
    *,
    estimate: float = 0.0,
    took: float = 0.0,
    job: Job | None = None,
    error: str | UnsetType = UNSET,
) -> WarmUpJson:
    return WarmUpJson(
        server_id=server,
        status=status,
        estimated_time=milliseconds(estimate),
        load_time=milliseconds(took),
        job_id=None if job is None else job.id,
        error=error,
    )


def _failed(server: ServerId, why: str) -> WarmUpJson:
    return _row(server, "failed", error=why)


# ---- ending a warm-up


@topic.post(
    "/models/<path:model>/cancel",
    "Cancel the warm-ups of a model that have not ended; a load under way is given up.",
    action="cancel warm-up",
    body=Where,
    seed=True,
)
async def cancel(asked: AdminRequest, model: str) -> CancelledWarmUpAnswer:
    system, server = asked.system, server_of(asked)
    asked.note.about(model=model, server=server or "")
    jobs = system.jobs.of(kind=JobKind.WARM, server=server, model=model, active=True)
    name = canonical(model) if jobs else wanted(system, model)
    for job in jobs:
        system.jobs.cancel(job.id, by=asked.by.name)
    count = len(jobs)
    shown = spelling(system, name)
    message = (
        f"{count} warm-up{'' if count == 1 else 's'} of {shown} cancelled" if count else f"{shown} is not warmed up"
    )
    return CancelledWarmUpAnswer(
        model=shown,
        cancelled=count,
        message=message,
        jobs=[job.id for job in jobs],
    )
