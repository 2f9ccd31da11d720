"""Which models are in memory where, are being loaded, failed to load."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

import trio

from fleet.common.times import iso, milliseconds
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.kit.schemas import BYTES, EPOCH_MS, ISO, MS, Each, Maybe, OneOf, Optional, Said
from web.admin.models.state import (
    COUNTED,
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

_WORDS: Final = OneOf(tuple(each.value for each in Presence))
LOAD_TIME: Final = Said(int, "milliseconds the last load took; 0 if none was seen")
SERVER: Final = {
    "serverId": str,
    "status": _WORDS,
    "loadTime": LOAD_TIME,
    "lastUsed": Maybe(ISO),
    "estimatedTime": Said(int, "milliseconds a load would take; 0 if it is loaded"),
    "usedVram": BYTES,
    "expiresAt": Maybe(Said(str, "when the server will unload it, in the server's own words")),
    "jobId": Maybe(Said(str, "the warm-up under way")),
    "error": Optional(Said(str, "why the last warm-up failed")),
}
ON_MAP: Final = {
    "loaded": bool,
    "loading": bool,
    "status": _WORDS,
    "lastUsed": Said(EPOCH_MS, "milliseconds since 1970; 0: never"),
    "loadTime": LOAD_TIME,
    "gpuMemory": Said(int, "megabytes (2^20 bytes)"),
    "error": Optional(str),
}


@topic.get(
    "/models/<path:model>/status",
    "Where a model is in memory, is being loaded, failed to load.",
    returns={"success": bool, "model": str, "status": COUNTED, "servers": [SERVER]},
    seed=True,
)
async def status(asked: AdminRequest, model: str) -> dict[str, Any]:
    system, name = asked.system, wanted(asked.system, model)
    survey = await surveyed(system)
    seen = [(cell, survey.sight(cell, name)) for cell in system.servers.values()]
    return {
        "success": True,
        "model": spelling(system, name),
        "status": counts((sight.presence for _, sight in seen), len(seen)),
        "servers": [_shown(system, cell, sight) for cell, sight in seen],
    }


def _shown(system: System, cell: ServerCell, sight: Sight) -> dict[str, Any]:
    loaded = sight.presence is Presence.LOADED
    estimate = 0.0 if loaded else system.statistics.load_times.estimate(sight.pair, size_on(cell, sight.pair.model))
    shown = {
        "serverId": sight.pair.server,
        "status": sight.presence.value,
        "loadTime": milliseconds(sight.load_seconds or 0.0),
        "lastUsed": iso(sight.last_used),
        "estimatedTime": milliseconds(estimate),
        "usedVram": sight.vram,
        "expiresAt": sight.expires_at,
        "jobId": sight.active.id if sight.active is not None else None,
    }
    return shown if sight.error is None else {**shown, "error": sight.error}


@topic.get(
    "/models/status",
    "The same for all models, as a map. Servers that do not hold a model are counted, not listed.",
    returns={
        "success": bool,
        "summary": {
            "totalServers": int,
            "totalModels": int,
            "loadedModels": int,
            "loadingModels": int,
            "averageLoadTime": MS,
        },
        "models": Each({**COUNTED, "servers": Each(ON_MAP)}),
    },
    seed=True,
)
async def all_status(asked: AdminRequest) -> dict[str, Any]:
    system = asked.system
    survey, names, total = await surveyed(system), spellings(system), len(system.servers)
    models: dict[str, dict[str, Any]] = {}
    took: list[float] = []
    for model, cells in sorted(holders(system).items()):
        sights = [survey.sight(cell, model) for cell in cells]
        took += [sight.load_seconds for sight in sights if sight.load_seconds is not None]
        on = {sight.pair.server: _on_map(sight) for sight in sights}
        models[names[model]] = {**counts((sight.presence for sight in sights), total), "servers": on}
        await trio.lowlevel.checkpoint()  # requests go first: this may be thousands of pairs
    summary = {
        "totalServers": total,
        "totalModels": len(models),
        "loadedModels": sum(each["loadedOn"] > 0 for each in models.values()),
        "loadingModels": sum(each["loadingOn"] > 0 for each in models.values()),
        "averageLoadTime": milliseconds(fmean(took) if took else 0.0),
    }
    return {"success": True, "summary": summary, "models": models}


def _on_map(sight: Sight) -> dict[str, Any]:
    shown = {
        "loaded": sight.presence is Presence.LOADED,
        "loading": sight.presence is Presence.LOADING,
        "status": sight.presence.value,
        "lastUsed": milliseconds(sight.last_used or 0.0),
        "loadTime": milliseconds(sight.load_seconds or 0.0),
        "gpuMemory": round(sight.vram / 2**20),
    }
    return shown if sight.error is None else {**shown, "error": sight.error}
