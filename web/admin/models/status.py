"""Which models are in memory where, are being loaded, failed to load."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import trio
from msgspec import UNSET, UnsetType

from fleet.common.ids import ServerId
from fleet.common.times import iso, milliseconds
from web.admin.kit.answers import BYTES, ISO, MS, Answer, JsonObject
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.models.state import (
    CountsJson,
    Presence,
    Sight,
    counts,
    holders,
    size_on,
    spelling,
    spellings,
    surveyed,
    wanted,
)

if TYPE_CHECKING:
    from actors.state.servers import ServerCell
    from actors.system import System

topic = RouteGroup("model-status", "Which models are in memory.")

LOAD_TIME = Annotated[int, "milliseconds the last load took; 0 if none was seen"]


class ModelOnServerJson(JsonObject, kw_only=True):
    """How things stand with a model on one server."""

    server_id: str
    status: Presence
    load_time: LOAD_TIME
    last_used: ISO | None
    estimated_time: Annotated[int, "milliseconds a load would take; 0 if it is loaded"]
    used_vram: BYTES
    expires_at: Annotated[str, "when the server will unload it, in the server's own words"] | None
    job_id: Annotated[str, "the warm-up under way"] | None
    error: Annotated[str, "why the last warm-up failed"] | UnsetType = UNSET


class ModelStatusAnswer(Answer, kw_only=True):
    """Where a model is."""

    model: str
    status: CountsJson
    servers: list[ModelOnServerJson]


class OnMapJson(JsonObject, kw_only=True):
    """The same in short."""

    loaded: bool
    loading: bool
    status: Presence
    last_used: Annotated[int, "milliseconds since 1970; 0: never"]
    load_time: LOAD_TIME
    gpu_memory: Annotated[int, "megabytes (2^20 bytes)"]
    error: str | UnsetType = UNSET


class MappedModelJson(CountsJson, kw_only=True):
    """One model and the servers that hold it."""

    servers: dict[ServerId, OnMapJson]


class StatusSummaryJson(JsonObject, kw_only=True):
    """All models together."""

    total_servers: int
    total_models: int
    loaded_models: int
    loading_models: int
    average_load_time: MS


class ModelsStatusAnswer(Answer, kw_only=True):
    """Where every model is."""

    summary: StatusSummaryJson
    models: dict[str, MappedModelJson]


@topic.get(
    "/models/<path:model>/status",
    "Where a model is in memory, is being loaded, failed to load.",
    seed=True,
)
async def status(asked: AdminRequest, model: str) -> ModelStatusAnswer:
    system, name = asked.system, wanted(asked.system, model)
    survey = await surveyed(system)
    seen = [(cell, survey.sight(cell, name)) for cell in system.servers.values()]
    return ModelStatusAnswer(
        model=spelling(system, name),
        status=counts(CountsJson, (sight.presence for _, sight in seen), len(seen)),
        servers=[_shown(system, cell, sight) for cell, sight in seen],
    )


def _shown(system: System, cell: ServerCell, sight: Sight) -> ModelOnServerJson:
    loaded = sight.presence is Presence.LOADED
    estimate = 0.0 if loaded else system.statistics.load_times.estimate(sight.pair, size_on(cell, sight.pair.model))
    return ModelOnServerJson(
        server_id=sight.pair.server,
        status=sight.presence,
        load_time=milliseconds(sight.load_seconds or 0.0),
        last_used=iso(sight.last_used),
        estimated_time=milliseconds(estimate),
        used_vram=sight.vram,
        expires_at=sight.expires_at,
        job_id=sight.active.id if sight.active is not None else None,
        error=UNSET if sight.error is None else sight.error,
    )


@topic.get(
    "/models/status",
    "The same for all models, as a map. Servers that do not hold a model are counted, not listed.",
    seed=True,
)
async def all_status(asked: AdminRequest) -> ModelsStatusAnswer:
    system = asked.system
    survey, names, total = await surveyed(system), spellings(system), len(system.servers)
    models: dict[str, MappedModelJson] = {}
    took: list[float] = []
    for model, cells in sorted(holders(system).items()):
        sights = [survey.sight(cell, model) for cell in cells]
        took += [sight.load_seconds for sight in sights if sight.load_seconds is not None]
        on = {sight.pair.server: _on_map(sight) for sight in sights}
        models[names[model]] = counts(MappedModelJson, (sight.presence for sight in sights), total, servers=on)
        await trio.lowlevel.checkpoint()  # requests go first: this may be thousands of pairs
    summary = StatusSummaryJson(
        total_servers=total,
        total_models=len(models),
        loaded_models=sum(each.loaded_on > 0 for each in models.values()),
        loading_models=sum(each.loading_on > 0 for each in models.values()),
        average_load_time=milliseconds(fmean(took) if took else 0.0),
    )
    return ModelsStatusAnswer(summary=summary, models=models)


def _on_map(sight: Sight) -> OnMapJson:
    return OnMapJson(
        loaded=sight.presence is Presence.LOADED,
        loading=sight.presence is Presence.LOADING,
        status=sight.presence,
        last_used=milliseconds(sight.last_used or 0.0),
        load_time=milliseconds(sight.load_seconds or 0.0),
        gpu_memory=round(sight.vram / 2**20),
        error=UNSET if sight.error is None else sight.error,
    )
