"""Circuit breakers: look at them.

A pair without a breaker is closed and remembers nothing; looking at it creates nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fleet.common.errors import ModelNotFound
from fleet.common.ids import ANY_MODEL, Pair, ServerId
from fleet.common.model_names import canonical
from web.admin.breakers import views as breaker_view
from web.admin.breakers.views import LOWER, PAIR_SCORE, STANDING, UPPER, listed_shape, named_shape, stats_shape
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.kit.schemas import EPOCH_MS, Maybe, Said
from web.http.units import epoch_ms, take_turns

if TYPE_CHECKING:
    from actors.state.servers import ServerCell
    from fleet.breakers.values import BreakerView

_LONGEST: Final = 200

topic = RouteGroup("breakers", "Circuit breakers, one for each model on each server.")

PAIR: Final = {
    "success": bool,
    "breaker": {
        "serverId": str,
        "model": str,
        "state": LOWER,
        "failureCount": int,
        "lastFailure": Maybe(EPOCH_MS),
        **STANDING,
    },
    "key": Said(str, "server:model"),
    "serverId": str,
    "model": str,
    "stats": stats_shape(LOWER),
    "lbScore": PAIR_SCORE,
}


class PairPath(NamedTuple):
    """What a path is about: a server of ours, and a canonical model name."""

    cell: ServerCell
    pair: Pair


@topic.get(
    "/circuit-breakers",
    "All circuit breakers that remember something; every other pair is closed.",
    returns={"success": bool, "circuitBreakers": [listed_shape(UPPER)]},
    seed=True,
)
async def all_breakers(asked: AdminRequest) -> dict[str, Any]:
    system = asked.system
    shown = []
    for number, pair in enumerate(system.breakers.pairs()):
        if (view := system.breakers.get(pair)) is not None:
            cell = system.servers.get(pair.server)
            shown.append(breaker_view.listed(view, system.config, None if cell is None else cell.state, upper=True))
        await take_turns(number)
    return {"success": True, "circuitBreakers": shown}


@topic.get(
    "/circuit-breakers/<server>",
    "All pairs of a server, and the server as a whole: its state is the best of theirs.",
    returns={
        "success": bool,
        "serverId": str,
        "stats": stats_shape(LOWER),
        "count": int,
        "circuitBreakers": [listed_shape(LOWER)],
    },
    seed=True,
)
async def of_server(asked: AdminRequest, server: str) -> dict[str, Any]:
    cell = asked.system.cell(ServerId(server))
    views = [view_of(asked, PairPath(cell, pair)) for pair in pairs_of(cell)]
    config = asked.system.config
    return {
        "success": True,
        "serverId": server,
        "stats": breaker_view.summary(views, cell.state.added),
        "count": len(views),
        "circuitBreakers": [breaker_view.listed(view, config, cell.state, upper=False) for view in views],
    }


@topic.get(
    "/circuit-breakers/<server>/<path:model>",
    "The circuit breaker of one model on one server; a pair that nothing is remembered of is closed.",
    returns=PAIR,
    seed=True,
)
async def of_pair(asked: AdminRequest, server: str, model: str) -> dict[str, Any]:
    asking = asking_of(asked, server, model)
    view = view_of(asked, asking)
    stats = breaker_view.stats(view, upper=False)
    breaker = {
        "serverId": server,
        "model": view.pair.model,
        "state": view.state.value,
        "failureCount": view.failure_count,
        "lastFailure": epoch_ms(view.last_failure),
        **breaker_view.standing(view),
    }
    return {
        "success": True,
        "breaker": breaker,
        "key": breaker_view.key(view),
        "serverId": server,
        "model": view.pair.model,
        "stats": stats,
        "lbScore": breaker_view.pair_score(asked.system.config, asking.cell.state, view.pair.model),
    }


@topic.get(
    "/servers/<server>/models/<path:model>/circuit-breaker",
    "The circuit breaker of one model on one server, by its other address.",
    returns={
        "success": bool,
        "serverId": str,
        "model": str,
        "circuitBreaker": named_shape(errorRatePercent=Said(float, "0 to 100")),
    },
    seed=True,
)
async def of_model(asked: AdminRequest, server: str, model: str) -> dict[str, Any]:
    view = view_of(asked, asking_of(asked, server, model))
    shown = {**breaker_view.named(view), "errorRatePercent": round(100 * view.error_rate, 2)}
    return {"success": True, "serverId": server, "model": view.pair.model, "circuitBreaker": shown}


# ---- common ground


def asking_of(asked: AdminRequest, server: str, model: str) -> PairPath:
    """Raises ServerNotFound, and ModelNotFound for what cannot be the name of a model."""
    cell, name = asked.system.cell(ServerId(server)), canonical(model)
    if name == ANY_MODEL:
        raise ModelNotFound(f"'{model[:_LONGEST]}' is not a valid model name")
    return PairPath(cell, Pair(cell.state.id, name))


def pairs_of(cell: ServerCell) -> list[Pair]:
    """What a server lists, and what its breakers remember besides."""
    return [
        Pair(cell.state.id, model) for model in (*cell.state.models, *(cell.state.gates.keys() - cell.state.models))
    ]


def view_of(asked: AdminRequest, asking: PairPath) -> BreakerView:
    breakers = asked.system.breakers
    return breakers.get(asking.pair) or breakers.untouched(asking.pair, asking.cell.state.added)
