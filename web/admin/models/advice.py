"""Which models are in memory without need, and which should be in more servers' memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import trio

from fleet.common.ids import ANY_MODEL, ModelName, Pair, ServerId
from fleet.common.times import iso, milliseconds
from fleet.models.jobs import JobState
from fleet.models.placement_advice import HOUR, LATELY, OFTEN, SHARE, ModelUse, Place, advise
from web.admin.kit.answers import BYTES, ISO, MS, Answer, JsonObject
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.models.state import Presence, Sight, Survey, holders, spellings, surveyed

if TYPE_CHECKING:
    from actors.state.servers import ServerCell
    from actors.system import System

topic = RouteGroup("model-advice", "Which models to load, and which nobody needs.")

_THERE: Final = (Presence.LOADED, Presence.LOADING)
_MOST: Final = 200
"""Recommendations that are shown."""
_LONGEST: Final = 7 * 86_400_000


class IdleModelJson(JsonObject, kw_only=True):
    """A model in memory that nobody uses."""

    server_id: str
    model: str
    idle_time: MS
    idle_time_minutes: int
    last_used: ISO | None
    used_vram: BYTES
    expires_at: str | None


class IdleModelsAnswer(Answer, kw_only=True):
    """The longest unused first."""

    threshold: MS
    models: list[IdleModelJson]
    count: int


class RecommendationJson(JsonObject, kw_only=True):
    """A model to warm up, and where."""

    model: str
    reason: str
    requests: Annotated[int, "in the last hour"]
    load: Annotated[float, "requests that run at once, on average"]
    resident_on: Annotated[list[ServerId], "usable servers that have it in memory"]
    suggested_servers: list[ServerId]


class RecommendationsAnswer(Answer, kw_only=True):
    """The most wanted first."""

    recommendations: list[RecommendationJson]
    count: int


@topic.get(
    "/models/idle",
    "Models that are in memory though nobody has used them for a while, the longest unused first.",
    query=(Param("threshold", float, 1_800_000.0, "Unused for so many milliseconds.", least=0, most=_LONGEST),),
    seed=True,
)
async def idle(asked: AdminRequest) -> IdleModelsAnswer:
    threshold = asked.query["threshold"]
    found = [each for each in _idle(asked.system, await surveyed(asked.system)) if each.idle_time >= threshold]
    found.sort(key=lambda each: -each.idle_time)
    return IdleModelsAnswer(threshold=round(threshold), models=found, count=len(found))


def _idle(system: System, survey: Survey) -> Iterator[IdleModelJson]:
    """All models in memory that nobody uses now. A warm-up begins a new life, and so does a start of the fleet."""
    names, now = spellings(system), system.clock.wall()
    for cell in system.servers.values():
        for model in cell.state.resident:
            if model == ANY_MODEL or survey.busy(Pair(cell.state.id, model)):
                continue
            sight = survey.sight(cell, model)
            seconds = max(now - _unused_since(system, cell, sight), 0.0)
            yield IdleModelJson(
                server_id=sight.pair.server,
                model=names[model],
                idle_time=milliseconds(seconds),
                idle_time_minutes=int(seconds // 60),
                last_used=iso(sight.last_used),
                used_vram=sight.vram,
                expires_at=sight.expires_at,
            )


def _unused_since(system: System, cell: ServerCell, sight: Sight) -> float:
    moments = [system.clock.epoch(max(system.started, cell.state.added))]
    if sight.last_used is not None:
        moments.append(sight.last_used)
    if sight.job is not None and sight.job.state is JobState.DONE and sight.job.ended is not None:
        moments.append(system.clock.epoch(sight.job.ended))
    return max(moments)


# ---- which should be


@topic.get(
    "/models/recommendations",
    f"Which models to warm up where: asked for at least {OFTEN} times in the last hour, and in no usable server's "
    f"memory, or with more requests at once than {SHARE:.0%} of the slots of those that have it. Requests at once: "
    "their rate (of the last hour or the last five minutes, whichever is higher) times the seconds that one takes.",
    seed=True,
)
async def recommendations(asked: AdminRequest) -> RecommendationsAnswer:
    system = asked.system
    survey, names, found = await surveyed(system), spellings(system), []
    for model, cells in holders(system).items():
        shown = _recommended(system, survey, model, cells, names[model])
        if shown is not None:
            found.append(shown)
        await trio.lowlevel.checkpoint()
    found.sort(key=lambda each: (-each.requests, each.model))
    return RecommendationsAnswer(recommendations=found[:_MOST], count=len(found[:_MOST]))


def _recommended(
    system: System, survey: Survey, model: ModelName, cells: list[ServerCell], name: str
) -> RecommendationJson | None:
    """The advice on one model; None if there is none to give. A server that loads it now is as good as loaded."""
    hour = system.statistics.totals.requests(model, HOUR)
    if not hour:
        return None
    usable = {cell.state.id: cell for cell in cells if cell.state.routable(model)}
    presences = {server: survey.sight(cell, model).presence for server, cell in usable.items()}
    there = [usable[server] for server, presence in presences.items() if presence in _THERE]
    elsewhere = [usable[server] for server, presence in presences.items() if presence not in _THERE]
    elsewhere.sort(key=_rank)
    lately, seconds = system.statistics.totals.requests(model, LATELY), system.statistics.demand.seconds(model)
    advice = advise(ModelUse(model, hour, lately, seconds, _places(there), _places(elsewhere)))
    if advice is None:
        return None
    return RecommendationJson(
        model=name,
        reason=advice.reason,
        requests=hour,
        load=round(advice.standing.load, 2),
        resident_on=[server for server, presence in presences.items() if presence is Presence.LOADED],
        suggested_servers=list(advice.suggested),
    )


def _rank(cell: ServerCell) -> tuple[Any, ...]:
    """The server to load a model on first: preferred, with little in memory, with much room for requests."""
    state = cell.state
    return -state.spec.priority, len(state.resident), -state.ledger.free, state.id


def _places(cells: list[ServerCell]) -> list[Place]:
    return [Place(cell.state.id, cell.state.capacity) for cell in cells]
