"""Figures of finished requests, over real spans of time: of the fleet, per server, per server and model.

Latencies are milliseconds. Of the fleet: from arrival to end, the wait for a slot included (`avgWaitTime` says how much
of it); of servers and pairs: without that wait. Every outcome counts, errors too. What a window is wrong about: see
`fleet.observability.statistics.time_windows` (its far edge) and `fleet.observability.statistics.totals` (failover).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import trio

from fleet.common.ids import ANY_MODEL, Pair, ServerId
from fleet.common.times import milliseconds
from fleet.observability.statistics.aggregates import Sums
from fleet.scheduling import server_words
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.kit.schemas import EPOCH_MS, SHARE, Each, OneOf, Said
from web.admin.observability import window_figures
from web.admin.observability.pair_metrics import PAIR, RANGE, range_of, shown, windows_of
from web.admin.observability.window_figures import MILLIS, rounded
from web.http.units import epoch_ms, is_healthy

if TYPE_CHECKING:
    from actors.state.servers import ServerCell
    from actors.system import System

topic = RouteGroup("metrics", "Figures of finished requests.")

GLOBAL: Final = {
    "totalRequests": int,
    "totalErrors": int,
    "totalTokens": Said(int, "of prompts and answers"),
    "errorRate": SHARE,
    "avgLatency": MILLIS,
    "p50Latency": MILLIS,
    "p95Latency": MILLIS,
    "p99Latency": MILLIS,
    "avgWaitTime": Said(float, "milliseconds; the part of the latency that was spent waiting for a slot"),
    "requestsPerSecond": float,
}
SERVER: Final = {
    "id": str,
    "status": OneOf(server_words.all_of(server_words.API)),
    "requests": int,
    "errors": int,
    "avgLatency": MILLIS,
    "p95Latency": MILLIS,
    "utilization": Said(float, "0 to 1: the share of its slots in use at this moment"),
}
SERVER_METRICS: Final = {
    "healthy": bool,
    "inFlight": int,
    "queued": Said(int, "waiting requests for models that it holds; other servers may take them"),
    "models": Each(PAIR),
}


@dataclass(slots=True)
class _Server:
    """What is put together of one server's pairs."""

    sums: Sums = field(default_factory=lambda: Sums(wide=True))
    models: dict[str, Any] = field(default_factory=dict)


@topic.get(
    "/metrics",
    "Figures of the fleet, of every server and of every model there, over a time range.",
    query=(RANGE,),
    returns={
        "success": bool,
        "timestamp": EPOCH_MS,
        "timeRange": str,
        "startTime": Said(EPOCH_MS, "where the figures begin: up to one bucket before what was asked for"),
        "global": GLOBAL,
        "lifetime": window_figures.LIFETIME,
        "servers": [SERVER],
        "serverMetrics": Each(SERVER_METRICS),
    },
    seed=True,
)
async def metrics(asked: AdminRequest) -> dict[str, Any]:
    system, span = asked.system, range_of(asked.query["timeRange"])
    await system.statistics.request_log.catch_up()
    start, sums = system.statistics.totals.window(span)
    found = await gathered(system, span)
    waiting = system.queries.queue_view(0).by_model
    cells = {server: cell for server, cell in system.servers.items() if server in found}
    return {
        "success": True,
        "timestamp": milliseconds(system.clock.wall()),
        "timeRange": asked.query["timeRange"],
        "startTime": epoch_ms(start),
        "global": _global(system, start, sums),
        "lifetime": window_figures.lifetime(system),
        "servers": [_server(cell, found[server].sums) for server, cell in cells.items()],
        "serverMetrics": {server: _metrics_of(cell, found[server], waiting) for server, cell in cells.items()},
    }


async def gathered(system: System, span: float) -> dict[ServerId, _Server]:
    """The figures of all servers, pair by pair; others run in between."""
    found = {server: _Server() for server in system.servers}
    for pair in list(system.statistics.totals.book.pairs):
        if pair.server in found:
            _add_pair(system, pair, span, found[pair.server])
            await trio.lowlevel.checkpoint()
    return found


def _add_pair(system: System, pair: Pair, span: float, server: _Server) -> None:
    """Requests without a model are only in the server's sums: the name of nothing is no name."""
    windows = windows_of(system, pair, span)
    server.sums.merge(windows[span][1])
    if pair.model != ANY_MODEL:
        server.models[pair.model] = shown(system, pair, windows, span)


def _global(system: System, start: float, sums: Sums) -> dict[str, Any]:
    shares = window_figures.percentiles(sums)
    return {
        "totalRequests": sums.count,
        "totalErrors": sums.errors,
        "totalTokens": sums.tokens,
        "errorRate": rounded(sums.error_rate),
        "avgLatency": rounded(sums.average),
        **{f"{name}Latency": value for name, value in shares.items()},
        "avgWaitTime": rounded(sums.waited / sums.count) if sums.count else 0.0,
        "requestsPerSecond": rounded(window_figures.per_second(system, start, sums)),
    }


def _server(cell: ServerCell, sums: Sums) -> dict[str, Any]:
    capacity = cell.state.ledger.capacity
    return {
        "id": cell.state.id,
        "status": server_words.word_of(cell.state, server_words.API),
        "requests": sums.count,
        "errors": sums.errors,
        "avgLatency": rounded(sums.average),
        "p95Latency": rounded(sums.percentile(0.95)),
        "utilization": rounded(min(cell.state.in_use / capacity, 1.0)) if capacity else 0.0,
    }


def _metrics_of(cell: ServerCell, server: _Server, waiting: Mapping[str, int]) -> dict[str, Any]:
    return {
        "healthy": is_healthy(cell),
        "inFlight": cell.state.in_use,
        "queued": sum(waiting.get(model, 0) for model in cell.state.models),
        "models": server.models,
    }
