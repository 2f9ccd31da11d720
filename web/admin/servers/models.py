"""The models of one server: list, pull to, copy to, delete from. What changes something is a job (see `jobs`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from msgspec import UNSET, UnsetType, field
from pydantic import Field
from quart import Response

from fleet.common.errors import BackendError, BadRequest, Conflict, FleetError, JobFailed, ServerNotFound
from fleet.common.ids import ServerId
from fleet.common.model_names import canonical
from fleet.config.schema.types import Section
from fleet.models.jobs import JobKind, JobState
from fleet.protocol.typed_fields import name_of
from web.admin.kit.answers import BYTES, Answer, JsonObject
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.models.jobs import FOLLOW, JobJson, describe, following
from web.http import responses
from web.http.units import is_healthy

if TYPE_CHECKING:
    from actors.jobs.job import Job
    from actors.state.servers import ServerCell
    from fleet.scheduling.server_state import Row

topic = RouteGroup("servermodels", "What one server holds.")

Name = Annotated[str, Field(min_length=1, max_length=1024)]
_WAIT: Final = Param("wait", bool, True, "false: answer 202 with the job at once, and let it go on.")
_HOW: Final = (_WAIT, FOLLOW)
_FAILS: Final = (202, 404, 409, 500, 502, 503, 504)
"""202: not waited for, or not done within `timeouts.total`."""


class PullBody(Section):
    """What to pull."""

    model: Name = Field(description="Name of the model; it is sent to the server as it stands here.")
    insecure: bool = Field(False, description="Take it from a registry without TLS, or with a certificate of its own.")


class CopyBody(PullBody):
    """What to bring over, and from where."""

    source_server_id: str | None = Field(None, max_length=100, description="A server that has the model.")


class HeldJson(JsonObject, kw_only=True):
    """One model: the server's own words where they are of the right kind, and what it has in memory."""

    name: str
    modified_at: str = field(name="modified_at")
    size: BYTES
    digest: str
    loaded: bool
    size_vram: BYTES | None
    context_length: Annotated[int, "tokens, of the loaded runner"] | None
    expires_at: Annotated[str, "when it leaves memory, in the server's own words"] | None


class HeldModelsAnswer(Answer, kw_only=True):
    """The models of one server."""

    server_id: str
    server_url: str
    healthy: bool
    healthy_since: Annotated[int, "milliseconds since 1970; when health last changed"] | None
    models: list[HeldJson]


class DetailsJson(JsonObject, kw_only=True):
    """Ollama's word for the end of a pull."""

    status: str = "success"


class WorkAnswer(Answer, kw_only=True):
    """A job that is done, or goes on."""

    server_id: str
    model: str
    job_id: str
    message: str
    job: JobJson
    details: DetailsJson | UnsetType = UNSET


class CopyAnswer(WorkAnswer, kw_only=True):
    """A copy; what was asked for and what came of it."""

    source_server_id: str | UnsetType | None = UNSET
    same_digest: bool | UnsetType | None = UNSET


Work = TypeVar("Work", bound=WorkAnswer)


@topic.get(
    "/servers/<server>/models",
    "The models of one server, as it last listed them.",
    seed=True,
)
async def models(asked: AdminRequest, server: str) -> HeldModelsAnswer:
    cell = asked.system.cell(ServerId(server))
    state = cell.state
    return HeldModelsAnswer(
        server_id=state.id,
        server_url=state.spec.url,
        healthy=is_healthy(cell),
        healthy_since=asked.reading().epoch_ms(state.since),
        models=[_held(row, state.resident.get(name)) for name, row in state.models.items()],
    )


@topic.post(
    "/servers/<server>/models/pull",
    "Download a model to one server. The answer comes when it is there; the download outlives a client that leaves.",
    action="pull model",
    body=PullBody,
    query=_HOW,
    fails=_FAILS,
    seed=True,
)
async def pull(asked: AdminRequest, server: str) -> WorkAnswer | Response:
    job = _start(asked, JobKind.PULL, server, asked.body.model, _options(asked.body))
    return await _unfinished(asked, job) or _done(WorkAnswer, asked, job, "pulled", details=DetailsJson())


@topic.post(
    "/servers/<server>/models/copy",
    "Bring a model to one server that another one has. Ollama cannot copy between servers, so this is a pull: a model "
    "that was made locally, and never pushed, cannot come this way; `sameDigest` says whether it is the same.",
    action="copy model",
    body=CopyBody,
    query=_HOW,
    fails=_FAILS,
    seed=True,
)
async def copy(asked: AdminRequest, server: str) -> CopyAnswer | Response:
    model, source = asked.body.model, asked.body.source_server_id
    target = _known(asked, "target", server)
    origin = None if source is None else _known(asked, "source", source)
    if origin is not None and canonical(model) not in origin.state.models:
        raise BadRequest(f"model '{model[:200]}' not found on source server '{origin.state.id}'")
    options = _options(asked.body) | ({} if origin is None else {"source": origin.state.id})
    job = _start(asked, JobKind.COPY, server, model, options)
    if (goes_on := await _unfinished(asked, job)) is not None:
        return goes_on
    same = _same(canonical(model), target, origin)
    return _done(CopyAnswer, asked, job, "copied", source_server_id=source, same_digest=same)


@topic.delete(
    "/servers/<server>/models/<path:model>",
    "Delete a model from one server. If it is in memory, it stays there until its time is over.",
    action="delete model",
    query=_HOW,
    fails=_FAILS,
    seed=True,
)
async def delete(asked: AdminRequest, server: str, model: str) -> WorkAnswer | Response:
    job = _start(asked, JobKind.DELETE, server, model)
    return await _unfinished(asked, job) or _done(WorkAnswer, asked, job, "deleted")


# ---- jobs and their answers


def _options(body: PullBody) -> dict[str, Any]:
    return {"insecure": True} if body.insecure else {}


def _start(asked: AdminRequest, kind: JobKind, server: str, model: str, options: dict[str, Any] | None = None) -> Job:
    asked.note.about(server=server, model=model)
    job = asked.system.jobs.start(kind, ServerId(server), model, by=asked.by.name, options=options)
    asked.note.about(job=job.id)
    return job


async def _unfinished(asked: AdminRequest, job: Job) -> Response | None:
    """The answer for who follows it, or does not wait for its end; None: it is done. Raises what it failed of."""
    if asked.query["stream"]:
        return following(job, asked.reading())
    patience = asked.system.config.total_timeout if asked.query["wait"] else 0.0
    if not await job.wait(patience):
        return responses.typed(_told(WorkAnswer, asked, job, f"job '{job.id}' goes on"), 202)
    if job.state is not JobState.DONE:
        failure = _failure(job)
        failure.fields = {"jobId": job.id}
        raise failure
    return None


def _done(kind: type[Work], asked: AdminRequest, job: Job, done: str, **more: Any) -> Work:
    return _told(kind, asked, job, f"Model '{job.model}' {done} successfully", **more)


def _told(kind: type[Work], asked: AdminRequest, job: Job, message: str, **more: Any) -> Work:
    return kind(
        server_id=job.server,
        model=job.model,
        job_id=job.id,
        message=message,
        job=describe(job, asked.reading()),
        **more,
    )


def _failure(job: Job) -> FleetError:
    """Why it failed, as an error of this call."""
    if job.state is JobState.CANCELLED:
        return Conflict(f"job '{job.id}' was {job.detail}")
    told = f"Failed to {job.kind.value} model"
    failure, words = job.failure, job.error or "it failed"
    if isinstance(failure, BackendError):
        return type(failure)(told, failure.phase, details=words, retry_after=failure.retry_after)
    if failure is None or type(failure) in (FleetError, JobFailed):
        return JobFailed(told, details=words)
    return type(failure)(words, details=told, retry_after=failure.retry_after)


# ---- small things


def _known(asked: AdminRequest, which: str, server: str) -> ServerCell:
    cell = asked.system.servers.get(ServerId(server))
    if cell is None:
        raise ServerNotFound(f"{which} server '{server[:100]}' not found")
    return cell


def _same(model: Any, target: ServerCell, origin: ServerCell | None) -> bool | None:
    """Whether both servers have the very same model now; None: nothing to compare."""
    if origin is None:
        return None
    ours, theirs = (cell.state.models.get(model, {}).get("digest") for cell in (target, origin))
    return None if ours is None or theirs is None else ours == theirs


def _held(row: Row, resident: Row | None) -> HeldJson:
    runner = resident or {}
    return HeldJson(
        name=name_of(row),
        modified_at=_text(row.get("modified_at")),
        size=_whole(row.get("size")) or 0,
        digest=_text(row.get("digest")),
        loaded=resident is not None,
        size_vram=_whole(runner.get("size_vram")),
        context_length=_whole(runner.get("context_length")),
        expires_at=_text(runner.get("expires_at")) or None,
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
