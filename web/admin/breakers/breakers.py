"""Circuit breakers: look at them.

A pair without a breaker is closed and remembers nothing; looking at it creates nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

from fleet.common.errors import ModelNotFound
from fleet.common.ids import ANY_MODEL, Pair, ServerId
from fleet.common.model_names import canonical
from web.admin.breakers import views
from web.admin.breakers.views import (
    LOWER,
    BreakerStatsJson,
    ListedBreakerJson,
    NamedBreakerJson,
    ScoreJson,
    UpperListedBreakerJson,
)
from web.admin.kit.answers import EPOCH_MS, ISO, Answer, JsonObject
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.http.units import take_turns

if TYPE_CHECKING:
    from actors.state.servers import ServerCell
    from fleet.breakers.values import BreakerView

_LONGEST: Final = 200

topic = RouteGroup("breakers", "Circuit breakers, one for each model on each server.")


class BreakersAnswer(Answer, kw_only=True):
    """All breakers that remember something."""

    circuit_breakers: list[UpperListedBreakerJson]


class ServerBreakersAnswer(Answer, kw_only=True):
    """All pairs of a server, and the server as a whole."""

    server_id: str
    stats: BreakerStatsJson
    count: int
    circuit_breakers: list[ListedBreakerJson]


class PairBreakerJson(JsonObject, kw_only=True):
    """The breaker of one pair in short."""

    server_id: str
    model: str
    state: LOWER
    failure_count: int
    last_failure: EPOCH_MS | None
    since: ISO
    why: str
    next: Annotated[str, "what it waits for"]
    next_step: Annotated[str, "the same as `next`"]
    forced_by: Annotated[str, "who forced this state, in which it stays until it is reset"] | None
    forced_since: ISO | None


class PairAnswer(Answer, kw_only=True):
    """One pair."""

    breaker: PairBreakerJson
    key: Annotated[str, "server:model"]
    server_id: str
    model: str
    stats: BreakerStatsJson
    lb_score: ScoreJson | None


class ModelBreakerJson(NamedBreakerJson, kw_only=True):
    """The breaker of one model on one server."""

    error_rate_percent: Annotated[float, "0 to 100"]


class ModelBreakerAnswer(Answer, kw_only=True):
    """One pair, by its other address."""

    server_id: str
    model: str
    circuit_breaker: ModelBreakerJson


class PairPath(NamedTuple):
    """What a path is about: a server of ours, and a canonical model name."""

    cell: ServerCell
    pair: Pair


@topic.get(
    "/circuit-breakers",
    "All circuit breakers that remember something; every other pair is closed.",
    seed=True,
)
async def all_breakers(asked: AdminRequest) -> BreakersAnswer:
    system, at = asked.system, asked.reading()
    shown = []
    for number, pair in enumerate(system.breakers.pairs()):
        if (view := system.breakers.get(pair)) is not None:
            cell = system.servers.get(pair.server)
            state = None if cell is None else cell.state
            shown.append(views.listed(UpperListedBreakerJson, view, at, system.config, state))
        await take_turns(number)
    return BreakersAnswer(circuit_breakers=shown)


@topic.get(
    "/circuit-breakers/<server>",
    "All pairs of a server, and the server as a whole: its state is the best of theirs.",
    seed=True,
)
async def of_server(asked: AdminRequest, server: str) -> ServerBreakersAnswer:
    cell = asked.system.cell(ServerId(server))
    found = [view_of(asked, PairPath(cell, pair)) for pair in pairs_of(cell)]
    config, at = asked.system.config, asked.reading()
    return ServerBreakersAnswer(
        server_id=server,
        stats=views.summary(found, cell.state.added, at),
        count=len(found),
        circuit_breakers=[views.listed(ListedBreakerJson, view, at, config, cell.state) for view in found],
    )


@topic.get(
    "/circuit-breakers/<server>/<path:model>",
    "The circuit breaker of one model on one server; a pair that nothing is remembered of is closed.",
    seed=True,
)
async def of_pair(asked: AdminRequest, server: str, model: str) -> PairAnswer:
    asking = asking_of(asked, server, model)
    view, at = view_of(asked, asking), asked.reading()
    stats = views.stats(BreakerStatsJson, view, at)
    breaker = PairBreakerJson(
        server_id=server,
        model=view.pair.model,
        state=stats.state,
        failure_count=stats.failure_count,
        last_failure=at.epoch_ms(view.last_failure),
        since=stats.since,
        why=stats.why,
        next=stats.next,
        next_step=stats.next_step,
        forced_by=stats.forced_by,
        forced_since=stats.forced_since,
    )
    return PairAnswer(
        breaker=breaker,
        key=views.key(view),
        server_id=server,
        model=view.pair.model,
        stats=stats,
        lb_score=views.pair_score(asked.system.config, asking.cell.state, view.pair.model, at.now),
    )


@topic.get(
    "/servers/<server>/models/<path:model>/circuit-breaker",
    "The circuit breaker of one model on one server, by its other address.",
    seed=True,
)
async def of_model(asked: AdminRequest, server: str, model: str) -> ModelBreakerAnswer:
    view = view_of(asked, asking_of(asked, server, model))
    shown = views.named(ModelBreakerJson, view, asked.reading(), error_rate_percent=round(100 * view.error_rate, 2))
    return ModelBreakerAnswer(server_id=server, model=view.pair.model, circuit_breaker=shown)


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
