"""Figures of finished requests, over real spans of time: of the fleet, per server, per server and model.

Latencies are milliseconds. Of the fleet: from arrival to end, the wait for a slot included (`avgWaitTime` says how much
of it); of servers and pairs: without that wait. Every outcome counts, errors too. What a window is wrong about: see
`fleet.observability.statistics.time_windows` (its far edge) and `fleet.observability.statistics.totals` (failover).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import trio
from msgspec import field

from fleet.common.ids import ANY_MODEL, Pair, ServerId
from fleet.common.times import ClockReading, milliseconds
from fleet.observability.statistics.aggregates import Sums
from fleet.scheduling import server_words
from web.admin.kit.answers import EPOCH_MS, SHARE, Answer, JsonObject
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.kit.schemas import OneOf
from web.admin.observability import window_figures
from web.admin.observability.pair_metrics import RANGE, PairFiguresJson, range_of, shown, windows_of
from web.admin.observability.window_figures import LIFETIME, MILLIS, rounded
from web.http.units import is_healthy

if TYPE_CHECKING:
    from actors.state.servers import ServerCell
    from actors.system import System

topic = RouteGroup("metrics", "Figures of finished requests.")


class FleetMetricsJson(JsonObject, kw_only=True):
    """The fleet over the time range."""

    total_requests: int
    total_errors: int
    total_tokens: Annotated[int, "of prompts and answers"]
    error_rate: SHARE
    avg_latency: MILLIS
    p50_latency: MILLIS
    p95_latency: MILLIS
    p99_latency: MILLIS
    avg_wait_time: Annotated[float, "milliseconds; the part of the latency that was spent waiting for a slot"]
    requests_per_second: float


class ServerFiguresJson(JsonObject, kw_only=True):
    """A server over the time range."""

    id: str
    status: Annotated[str, OneOf(server_words.all_of(server_words.API))]
    requests: int
    errors: int
    avg_latency: MILLIS
    p95_latency: MILLIS
    utilization: Annotated[float, "0 to 1: the share of its slots in use at this moment"]


class ServerMetricsJson(JsonObject, kw_only=True):
    """A server at this moment, and its models over the time range."""

    healthy: bool
    in_flight: int
    queued: Annotated[int, "waiting requests for models that it holds; other servers may take them"]
    models: dict[str, PairFiguresJson]


class MetricsAnswer(Answer, kw_only=True):
    """The fleet, every server, every model there."""

    timestamp: EPOCH_MS
    time_range: str
    start_time: Annotated[EPOCH_MS, "where the figures begin: up to one bucket before what was asked for"]
    fleet: FleetMetricsJson = field(name="global")
    lifetime: LIFETIME
    servers: list[ServerFiguresJson]
    server_metrics: dict[str, ServerMetricsJson]


@dataclass(slots=True)
class _Server:
    """What is put together of one server's pairs."""

    sums: Sums = dataclasses.field(default_factory=lambda: Sums(wide=True))
    models: dict[str, PairFiguresJson] = dataclasses.field(default_factory=dict)


@topic.get(
    "/metrics",
    "Figures of the fleet, of every server and of every model there, over a time range.",
    query=(RANGE,),
    seed=True,
)
async def metrics(asked: AdminRequest) -> MetricsAnswer:
    system, span = asked.system, range_of(asked.query["timeRange"])
    await system.statistics.request_log.catch_up()
    start, sums = system.statistics.totals.window(span)
    at = asked.reading()
    found = await gathered(system, span, at)
    waiting = system.queries.queue_view(0).by_model
    cells = {server: cell for server, cell in system.servers.items() if server in found}
    return MetricsAnswer(
        timestamp=milliseconds(at.wall),
        time_range=asked.query["timeRange"],
        start_time=at.epoch_ms(start),
        fleet=_fleet(system, start, sums),
        lifetime=window_figures.lifetime(system),
        servers=[_server(cell, found[server].sums) for server, cell in cells.items()],
        server_metrics={server: _metrics_of(cell, found[server], waiting) for server, cell in cells.items()},
    )


async def gathered(system: System, span: float, at: ClockReading) -> dict[ServerId, _Server]:
    """The figures of all servers, pair by pair; others run in between."""
    found = {server: _Server() for server in system.servers}
    for pair in list(system.statistics.totals.book.pairs):
        if pair.server in found:
            _add_pair(system, pair, span, at, found[pair.server])
            await trio.lowlevel.checkpoint()
    return found


def _add_pair(system: System, pair: Pair, span: float, at: ClockReading, server: _Server) -> None:
    """Requests without a model are only in the server's sums: the name of nothing is no name."""
    windows = windows_of(system, pair, span)
    server.sums.merge(windows[span][1])
    if pair.model != ANY_MODEL:
        server.models[pair.model] = shown(system, pair, windows, span, at)


def _fleet(system: System, start: float, sums: Sums) -> FleetMetricsJson:
    shares = window_figures.percentiles(sums)
    return FleetMetricsJson(
        total_requests=sums.count,
        total_errors=sums.errors,
        total_tokens=sums.tokens,
        error_rate=rounded(sums.error_rate),
        avg_latency=rounded(sums.average),
        p50_latency=shares.p50,
        p95_latency=shares.p95,
        p99_latency=shares.p99,
        avg_wait_time=rounded(sums.waited / sums.count) if sums.count else 0.0,
        requests_per_second=rounded(window_figures.per_second(system, start, sums)),
    )


def _server(cell: ServerCell, sums: Sums) -> ServerFiguresJson:
    capacity = cell.state.capacity
    return ServerFiguresJson(
        id=cell.state.id,
        status=server_words.word_of(cell.state, server_words.API),
        requests=sums.count,
        errors=sums.errors,
        avg_latency=rounded(sums.average),
        p95_latency=rounded(sums.percentile(0.95)),
        utilization=rounded(min(cell.state.in_use / capacity, 1.0)) if capacity else 0.0,
    )


def _metrics_of(cell: ServerCell, server: _Server, waiting: Mapping[str, int]) -> ServerMetricsJson:
    return ServerMetricsJson(
        healthy=is_healthy(cell),
        in_flight=cell.state.in_use,
        queued=sum(waiting.get(model, 0) for model in cell.state.models),
        models=server.models,
    )
