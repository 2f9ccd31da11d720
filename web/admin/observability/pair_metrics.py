"""Figures of one model on one server, over real spans of time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from actors.system import System
from fleet.common.errors import BadRequest, ModelNotFound
from fleet.common.ids import ANY_MODEL, Pair, ServerId
from fleet.common.model_names import canonical
from fleet.common.times import milliseconds
from fleet.observability.statistics.aggregates import Sums
from fleet.observability.statistics.time_windows import span_of
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.kit.schemas import EPOCH_MS, SHARE, Maybe, Optional, Said
from web.admin.observability import window_figures
from web.admin.observability.window_figures import MILLIS, rounded

topic = RouteGroup("pair_metrics", "Figures of one model on one server.")

Windows = Mapping[float, tuple[float, Sums]]
"""By their seconds: where each begins on Trio's clock, and its sums."""

RANGE: Final = Param("timeRange", str, "1h", "How far back: 1h, 24h, 7d, or any number of m, h or d up to 7d.")

PAIR: Final = {
    "windows": window_figures.WINDOWS,
    "percentiles": window_figures.PERCENTILES,
    **window_figures.DERIVED,
    "requests": int,
    "errors": int,
    "errorRate": SHARE,
    "avgLatency": MILLIS,
    "lastUsed": Maybe(EPOCH_MS),
    "streamingMetrics": Optional(Said(window_figures.STREAMING, "the last 32 streamed answers; absent without any")),
}


def range_of(text: str) -> float:
    """Seconds of a `timeRange`. Raises BadRequest."""
    span = span_of(text)
    if span is None:
        raise BadRequest("timeRange must be like 5m, 6h or 7d, and at most 7d")
    return span


def windows_of(system: System, pair: Pair, span: float) -> Windows:
    """Those of the reference, and the one asked for; by their seconds."""
    spans = tuple(sorted({*window_figures.SPANS.values(), span}))
    return dict(zip(spans, system.statistics.totals.windows(spans, pair), strict=True))


def shown(system: System, pair: Pair, windows: Windows, span: float) -> dict[str, Any]:
    """The pair in `PAIR`'s shape; its figures without a window of their own are those of `span`."""
    start, sums = windows[span]
    return {
        "windows": historical(system, windows),
        "percentiles": window_figures.percentiles(sums),
        **window_figures.derived(system, start, sums),
        "requests": sums.count,
        "errors": sums.errors,
        "errorRate": rounded(sums.error_rate),
        "avgLatency": rounded(sums.average),
        "lastUsed": milliseconds(system.statistics.totals.last_used(pair)),
        **_streaming(system, pair, "streamingMetrics"),
    }


def historical(system: System, windows: Windows) -> dict[str, Any]:
    """The reference's windows, by name."""
    return {name: window_figures.window(system, *windows[each]) for name, each in window_figures.SPANS.items()}


def _streaming(system: System, pair: Pair, name: str) -> dict[str, Any]:
    line = system.statistics.totals.book.pairs.get(pair)
    return {name: window_figures.streaming(line.streams)} if line is not None and line.streams else {}


@topic.get(
    "/metrics/<server>/<path:model>",
    "Figures of one model on one server; zeros if nobody has asked for it.",
    query=(RANGE,),
    returns={
        "success": bool,
        "serverId": str,
        "model": str,
        "timeRange": str,
        "metrics": {
            "realtime": {"inFlight": int, "queued": Said(int, "waiting for this model, whatever server takes them")},
            "historical": window_figures.WINDOWS,
            "percentiles": window_figures.PERCENTILES,
            "derived": window_figures.DERIVED,
            "lifetime": window_figures.LIFETIME,
            "lastUsed": Maybe(EPOCH_MS),
            "streaming": Optional(window_figures.STREAMING),
        },
    },
    seed=True,
)
async def of_pair(asked: AdminRequest, server: str, model: str) -> dict[str, Any]:
    system, span = asked.system, range_of(asked.query["timeRange"])
    await system.statistics.request_log.catch_up()
    pair = _known(system, server, model)
    windows = windows_of(system, pair, span)
    start, sums = windows[span]
    found = {
        "realtime": _realtime(system, pair),
        "historical": historical(system, windows),
        "percentiles": window_figures.percentiles(sums),
        "derived": window_figures.derived(system, start, sums),
        "lifetime": window_figures.lifetime(system, pair),
        "lastUsed": milliseconds(system.statistics.totals.last_used(pair)),
        **_streaming(system, pair, "streaming"),
    }
    named = {"serverId": pair.server, "model": pair.model, "timeRange": asked.query["timeRange"]}
    return {"success": True, **named, "metrics": found}


def _known(system: System, server: str, model: str) -> Pair:
    """The pair. Raises ServerNotFound, and ModelNotFound if the server lists no such model and none was asked of it."""
    pair = Pair(ServerId(server), canonical(model))
    if pair.model != ANY_MODEL and pair in system.statistics.totals.book.pairs:
        return pair
    if pair.model == ANY_MODEL or pair.model not in system.cell(pair.server).state.models:
        raise ModelNotFound(f"server '{server[:100]}' has no model '{model[:100]}'")
    return pair


def _realtime(system: System, pair: Pair) -> dict[str, int]:
    cell = system.servers.get(pair.server)
    return {
        "inFlight": cell.state.ledger.of_model(pair.model) if cell is not None else 0,
        "queued": system.queries.queue_view(0).by_model.get(pair.model, 0),
    }
