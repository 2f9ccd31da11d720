"""Models across the fleet: which there are, where they are, how common each is."""

from __future__ import annotations

from typing import Any, Final

from actors.system import System
from fleet.common.ids import ANY_MODEL
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.kit.schemas import Each, Said
from web.admin.models.state import holders, spellings
from web.http.units import is_healthy

topic = RouteGroup("models", "Models across the fleet.")

POPULAR: Final = {
    "name": str,
    "serverCount": int,
    "percentage": Said(int, "0 to 100, of all servers"),
    "servers": [Said(str, "URL")],
    "serverIds": [str],
    "loadedOn": Said([str], "servers that have it in memory"),
    "requests": Said(int, "in the last hour"),
}
_HOUR: Final = 3600.0


@topic.get(
    "/model-map",
    "Which server holds which models, as each listed them when it last answered.",
    returns={
        "success": bool,
        "modelToServers": Each([str]),
        "serverToModels": Each([str]),
        "totalModels": int,
        "totalServers": int,
    },
    seed=True,
)
async def model_map(asked: AdminRequest) -> dict[str, Any]:
    system = asked.system
    names = spellings(system)
    by_server = {
        server: sorted(names[model] for model in cell.state.models if model != ANY_MODEL)
        for server, cell in system.servers.items()
    }
    by_model: dict[str, list[str]] = {}
    for server, models in by_server.items():
        for name in models:
            by_model.setdefault(name, []).append(server)
    return {
        "success": True,
        "modelToServers": dict(sorted(by_model.items())),
        "serverToModels": by_server,
        "totalModels": len(by_model),
        "totalServers": len(by_server),
    }


@topic.get(
    "/models",
    "The names of all models, sorted.",
    returns={"success": bool, "count": int, "models": [str]},
    seed=True,
)
async def all_models(asked: AdminRequest) -> dict[str, Any]:
    names = spellings(asked.system)
    listed = {model for cell in asked.system.servers.values() for model in cell.state.models}
    found = sorted(name for model, name in names.items() if model in listed)
    return {"success": True, "count": len(found), "models": found}


@topic.get(
    "/models/fleet-stats",
    "How common each model is, the most common first.",
    returns={
        "success": bool,
        "totalServers": int,
        "healthyServers": int,
        "totalUniqueModels": int,
        "popularModels": [POPULAR],
    },
    seed=True,
)
async def fleet_stats(asked: AdminRequest) -> dict[str, Any]:
    system = asked.system
    await system.statistics.request_log.catch_up()
    popular = _popular(system)
    return {
        "success": True,
        "totalServers": len(system.servers),
        "healthyServers": sum(is_healthy(cell) for cell in system.servers.values()),
        "totalUniqueModels": len(popular),
        "popularModels": popular,
    }


def _popular(system: System) -> list[dict[str, Any]]:
    names, found = spellings(system), []
    for model, cells in holders(system).items():
        listing = [cell for cell in cells if model in cell.state.models]
        if listing:
            shown = {
                "name": names[model],
                "serverCount": len(listing),
                "percentage": round(100 * len(listing) / len(system.servers)),
                "servers": [cell.state.spec.url for cell in listing],
                "serverIds": [cell.state.id for cell in listing],
                "loadedOn": [cell.state.id for cell in cells if model in cell.state.resident],
                "requests": system.statistics.totals.requests(model, _HOUR),
            }
            found.append(shown)
    return sorted(found, key=lambda each: (-each["serverCount"], -each["requests"], each["name"]))
