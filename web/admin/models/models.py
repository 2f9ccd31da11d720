"""Models across the fleet: which there are, where they are, how common each is."""

from __future__ import annotations

from typing import Annotated, Final

from actors.system import System
from fleet.common.ids import ANY_MODEL, ServerId
from web.admin.kit.answers import Answer, JsonObject
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.models.state import holders, spellings
from web.http.units import is_healthy

topic = RouteGroup("models", "Models across the fleet.")

_HOUR: Final = 3600.0


class ModelMapAnswer(Answer, kw_only=True):
    """Which server holds which models."""

    model_to_servers: dict[str, list[ServerId]]
    server_to_models: dict[ServerId, list[str]]
    total_models: int
    total_servers: int


class ModelNamesAnswer(Answer, kw_only=True):
    """All names."""

    count: int
    models: list[str]


class PopularModelJson(JsonObject, kw_only=True):
    """How common one model is."""

    name: str
    server_count: int
    percentage: Annotated[int, "0 to 100, of all servers"]
    servers: list[Annotated[str, "URL"]]
    server_ids: list[ServerId]
    loaded_on: Annotated[list[ServerId], "servers that have it in memory"]
    requests: Annotated[int, "in the last hour"]


class FleetStatsAnswer(Answer, kw_only=True):
    """All models, the most common first."""

    total_servers: int
    healthy_servers: int
    total_unique_models: int
    popular_models: list[PopularModelJson]


@topic.get(
    "/model-map",
    "Which server holds which models, as each listed them when it last answered.",
    seed=True,
)
async def model_map(asked: AdminRequest) -> ModelMapAnswer:
    system = asked.system
    names = spellings(system)
    by_server = {
        server: sorted(names[model] for model in cell.state.models if model != ANY_MODEL)
        for server, cell in system.servers.items()
    }
    by_model: dict[str, list[ServerId]] = {}
    for server, models in by_server.items():
        for name in models:
            by_model.setdefault(name, []).append(server)
    return ModelMapAnswer(
        model_to_servers=dict(sorted(by_model.items())),
        server_to_models=by_server,
        total_models=len(by_model),
        total_servers=len(by_server),
    )


@topic.get(
    "/models",
    "The names of all models, sorted.",
    seed=True,
)
async def all_models(asked: AdminRequest) -> ModelNamesAnswer:
    names = spellings(asked.system)
    listed = {model for cell in asked.system.servers.values() for model in cell.state.models}
    found = sorted(name for model, name in names.items() if model in listed)
    return ModelNamesAnswer(count=len(found), models=found)


@topic.get(
    "/models/fleet-stats",
    "How common each model is, the most common first.",
    seed=True,
)
async def fleet_stats(asked: AdminRequest) -> FleetStatsAnswer:
    system = asked.system
    await system.statistics.request_log.catch_up()
    popular = _popular(system)
    return FleetStatsAnswer(
        total_servers=len(system.servers),
        healthy_servers=sum(is_healthy(cell) for cell in system.servers.values()),
        total_unique_models=len(popular),
        popular_models=popular,
    )


def _popular(system: System) -> list[PopularModelJson]:
    names, found = spellings(system), []
    for model, cells in holders(system).items():
        listing = [cell for cell in cells if model in cell.state.models]
        if listing:
            shown = PopularModelJson(
                name=names[model],
                server_count=len(listing),
                percentage=round(100 * len(listing) / len(system.servers)),
                servers=[cell.state.spec.url for cell in listing],
                server_ids=[cell.state.id for cell in listing],
                loaded_on=[cell.state.id for cell in cells if model in cell.state.resident],
                requests=system.statistics.totals.requests(model, _HOUR),
            )
            found.append(shown)
    return sorted(found, key=lambda each: (-each.server_count, -each.requests, each.name))
