"""Figures of one model on one server, over real spans of time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from msgspec import UNSET, UnsetType

from actors.system import System
from fleet.common.errors import BadRequest, ModelNotFound
from fleet.common.ids import ANY_MODEL, Pair, ServerId
from fleet.common.model_names import canonical
from fleet.common.times import ClockReading, milliseconds
from fleet.observability.statistics.aggregates import Sums
from fleet.observability.statistics.time_windows import span_of
from web.admin.kit.answers import EPOCH_MS, SHARE, Answer, JsonObject
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.observability import window_figures
from web.admin.observability.window_figures import (
    LIFETIME,
    MILLIS,
    PERCENTILES,
    DerivedJson,
    StreamingJson,
    WindowsJson,
    rounded,
)

topic = RouteGroup("pair_metrics", "Figures of one model on one server.")

Windows = Mapping[float, tuple[float, Sums]]
"""By their seconds: where each begins on Trio's clock, and its sums."""

RANGE: Final = Param("timeRange", str, "1h", "How far back: 1h, 24h, 7d, or any number of m, h or d up to 7d.")


class PairFiguresJson(DerivedJson, kw_only=True):
    """A model on a server among all of them; what has no window of its own is of the time range."""

    windows: WindowsJson
    percentiles: PERCENTILES
    requests: int
    errors: int
    error_rate: SHARE
    avg_latency: MILLIS
    last_used: EPOCH_MS | None
    streaming_metrics: Annotated[StreamingJson, "the last 32 streamed answers; absent without any"] | UnsetType = UNSET


class PresentLoadJson(JsonObject, kw_only=True):
    """At this moment."""

    in_flight: int
    queued: Annotated[int, "waiting for this model, whatever server takes them"]


class PairDetailJson(JsonObject, kw_only=True):
    """All that is known of a model on a server."""

    realtime: PresentLoadJson
    historical: WindowsJson
    percentiles: PERCENTILES
    derived: DerivedJson
    lifetime: LIFETIME
    last_used: EPOCH_MS | None
    streaming: StreamingJson | UnsetType = UNSET


class PairMetricsAnswer(Answer, kw_only=True):
    """One model on one server."""

    server_id: str
    model: str
    time_range: str
    metrics: PairDetailJson


def range_of(text: str) -> float:
    """Seconds of a `timeRange`. Raises BadRequest."""
    span = span_of(text)
    if span is None:
        raise BadRequest("timeRange must be like 5m, 6h or 7d, and at most 7d")
    return span


def windows_of(system: System, pair: Pair, span: float) -> Windows:
    """Those of the reference, and the one asked for; by their seconds."""
    spans = tuple(sorted({*window_figures.SPANS, span}))
    return dict(zip(spans, system.statistics.totals.windows(spans, pair), strict=True))


def shown(system: System, pair: Pair, windows: Windows, span: float, at: ClockReading) -> PairFiguresJson:
    """The pair; its figures without a window of their own are those of `span`."""
    start, sums = windows[span]
    derived = window_figures.derived(system, start, sums)
    return PairFiguresJson(
        windows=window_figures.windows(at, windows),
        percentiles=window_figures.percentiles(sums),
        success_rate=derived.success_rate,
        throughput=derived.throughput,
        avg_tokens_per_request=derived.avg_tokens_per_request,
        requests=sums.count,
        errors=sums.errors,
        error_rate=rounded(sums.error_rate),
        avg_latency=rounded(sums.average),
        last_used=milliseconds(system.statistics.totals.last_used(pair)),
        streaming_metrics=_streaming(system, pair),
    )


def _streaming(system: System, pair: Pair) -> StreamingJson | UnsetType:
    line = system.statistics.totals.book.pairs.get(pair)
    return window_figures.streaming(line.streams) if line is not None and line.streams else UNSET


@topic.get(
    "/metrics/<server>/<path:model>",
    "Figures of one model on one server; zeros if nobody has asked for it.",
    query=(RANGE,),
    seed=True,
)
async def of_pair(asked: AdminRequest, server: str, model: str) -> PairMetricsAnswer:
    system, span = asked.system, range_of(asked.query["timeRange"])
    await system.statistics.request_log.catch_up()
    pair = _known(system, server, model)
    windows = windows_of(system, pair, span)
    start, sums = windows[span]
    found = PairDetailJson(
        realtime=_realtime(system, pair),
        historical=window_figures.windows(asked.reading(), windows),
        percentiles=window_figures.percentiles(sums),
        derived=window_figures.derived(system, start, sums),
        lifetime=window_figures.lifetime(system, pair),
        last_used=milliseconds(system.statistics.totals.last_used(pair)),
        streaming=_streaming(system, pair),
    )
    return PairMetricsAnswer(
        server_id=pair.server, model=pair.model, time_range=asked.query["timeRange"], metrics=found
    )


def _known(system: System, server: str, model: str) -> Pair:
    """The pair. Raises ServerNotFound, and ModelNotFound if the server lists no such model and none was asked of it."""
    pair = Pair(ServerId(server), canonical(model))
    if pair.model != ANY_MODEL and pair in system.statistics.totals.book.pairs:
        return pair
    if pair.model == ANY_MODEL or pair.model not in system.cell(pair.server).state.models:
        raise ModelNotFound(f"server '{server[:100]}' has no model '{model[:100]}'")
    return pair


def _realtime(system: System, pair: Pair) -> PresentLoadJson:
    cell = system.servers.get(pair.server)
    return PresentLoadJson(
        in_flight=cell.state.ledger.of_model(pair.model) if cell is not None else 0,
        queued=system.queries.queue_view(0).by_model.get(pair.model, 0),
    )
