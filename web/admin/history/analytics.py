"""The fleet's past in figures: as a whole, by model, by server, and what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Annotated, Final

from msgspec import UNSET, UnsetType

from fleet.common.times import iso, milliseconds
from fleet.history.figures import Names, RequestFigures, figures_by, figures_of, figures_over_time
from fleet.history.questions import RowsQuestion, SumsGroup
from fleet.history.request_row import RequestRow
from fleet.history.time_ranges import step_for
from fleet.history.trends import Direction, trend_of
from web.admin.history import asked as past
from web.admin.history.asked import MEAN_MS, MS_OR_NULL, RangeJson, mean_ms
from web.admin.history.requests import outcomes_of
from web.admin.history.row_views import message
from web.admin.kit.answers import ISO, SHARE, Answer, JsonObject
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup

topic = RouteGroup("analytics", "The fleet's past in figures.")

RECENT: Final = 20
"""Errors that are shown one by one."""
_POINTS: Final = 100


class PastSummaryJson(JsonObject, kw_only=True):
    """The fleet over a range of time."""

    total_requests: int
    total_errors: Annotated[int, "that got no answer, whoever is to blame, unless their client left"]
    avg_latency: MEAN_MS
    p95_latency: MS_OR_NULL
    unique_models: Annotated[int, "of requests that a server was tried for"]
    unique_servers: int
    time_range: str
    requests_per_second: Annotated[float, "over the whole range"]
    error_rate: SHARE
    top_model: str | None
    most_active_server: str | None
    tokens_generated: int
    tokens_prompt: int
    cold_requests: int
    wasted_seconds: Annotated[float, "for which slots were held that gave nobody an answer"]


class PastSummaryAnswer(Answer, kw_only=True):
    """The fleet over a range of time."""

    range: RangeJson
    summary: PastSummaryJson


@topic.get(
    "/analytics/summary",
    "The fleet's past in figures.",
    seed=True,
    fails=past.UNAVAILABLE,
    query=past.ranges("24h"),
)
async def summary(asked: AdminRequest) -> PastSummaryAnswer:
    within = past.range_of(asked)
    groups = await past.sums(asked, within, "server", "model")
    whole = figures_of(groups)
    tried = figures_by([group for group in groups if group.names[0]], 0, 1)
    servers, models = {server for server, _ in tried}, {model for _, model in tried}
    shown = PastSummaryJson(
        total_requests=whole.requests,
        total_errors=whole.errors,
        avg_latency=mean_ms(whole.average),
        p95_latency=milliseconds(whole.percentile(0.95)),
        unique_models=len(models),
        unique_servers=len(servers),
        time_range=within.text,
        requests_per_second=round(whole.requests / within.seconds, 6),
        error_rate=round(whole.error_rate, 4),
        top_model=_most(tried, 1),
        most_active_server=_most(tried, 0),
        tokens_generated=whole.sums.output_tokens,
        tokens_prompt=whole.sums.prompt_tokens,
        cold_requests=whole.sums.cold,
        wasted_seconds=round(whole.sums.wasted, 3),
    )
    return PastSummaryAnswer(range=within.shown, summary=shown)


def _most(found: Mapping[Names, RequestFigures], place: int) -> str | None:
    counts: dict[str, int] = {}
    for names, each in found.items():
        counts[names[place]] = counts.get(names[place], 0) + each.requests
    return min(counts, key=lambda name: (-counts[name], name), default=None)


class TopModelJson(JsonObject, kw_only=True):
    """One model."""

    model: str
    requests: int
    percentage: Annotated[float, "0 to 100, of all requests of the range"]
    avg_latency: MEAN_MS
    p95_latency: MS_OR_NULL
    error_rate: SHARE
    tokens_generated: int
    cold_requests: int


class TopModelsAnswer(Answer, kw_only=True):
    """Models by requests, the most wanted first."""

    time_range: str
    range: RangeJson
    models: list[TopModelJson]
    count: int


@topic.get(
    "/analytics/top-models",
    "The models that were asked for most.",
    seed=True,
    fails=past.UNAVAILABLE,
    query=(Param("limit", int, 10, "Most models of the answer.", 1, 1_000), past.SERVER, *past.ranges("24h")),
)
async def top_models(asked: AdminRequest) -> TopModelsAnswer:
    within = past.range_of(asked)
    groups = await past.sums(asked, within, "model")
    total = max(1, figures_of(groups).requests)
    found = sorted(figures_by(groups, 0).items(), key=lambda each: (-each[1].requests, each[0]))
    models = [
        TopModelJson(
            model=model,
            requests=each.requests,
            percentage=round(100.0 * each.requests / total, 2),
            avg_latency=mean_ms(each.average),
            p95_latency=milliseconds(each.percentile(0.95)),
            error_rate=round(each.error_rate, 4),
            tokens_generated=each.sums.output_tokens,
            cold_requests=each.sums.cold,
        )
        for (model,), each in found[: asked.query["limit"]]
    ]
    return TopModelsAnswer(time_range=within.text, range=within.shown, models=models, count=len(models))


class ServerPerformanceJson(JsonObject, kw_only=True):
    """One server."""

    id: str
    requests: int
    avg_latency: MEAN_MS
    p95_latency: MS_OR_NULL
    p99_latency: MS_OR_NULL
    error_rate: SHARE
    throughput: Annotated[float, "requests per second over the whole range"]
    utilization: Annotated[float | None, "share of its present slots that requests held; null: not in the fleet"]
    score: Annotated[
        float | None,
        "0 to 1: the share of requests without errors, times the median of all servers' latencies by its own if that "
        "is longer; null without requests",
    ]


class ServerPerformanceAnswer(Answer, kw_only=True):
    """All servers of the range, and those of the fleet without requests."""

    time_range: str
    range: RangeJson
    servers: list[ServerPerformanceJson]
    count: int


@topic.get(
    "/analytics/server-performance",
    "Servers side by side.",
    seed=True,
    fails=past.UNAVAILABLE,
    query=(past.MODEL, *past.ranges("1h")),
)
async def server_performance(asked: AdminRequest) -> ServerPerformanceAnswer:
    within = past.range_of(asked)
    found = {server: each for (server,), each in figures_by(await past.sums(asked, within, "server"), 0).items()}
    slots = {str(cell.state.id): cell.state.ledger.capacity for cell in asked.system.servers.values()}
    usual = median([each.average for server, each in found.items() if server] or [0.0])
    servers = []
    for server in sorted({*found, *slots} - {""}):
        each = found.get(server, RequestFigures())
        capacity = slots.get(server)
        servers.append(
            ServerPerformanceJson(
                id=server,
                requests=each.requests,
                avg_latency=mean_ms(each.average),
                p95_latency=milliseconds(each.percentile(0.95)),
                p99_latency=milliseconds(each.percentile(0.99)),
                error_rate=round(each.error_rate, 4),
                throughput=round(each.requests / within.seconds, 6),
                utilization=None if not capacity else round(each.sums.slot / (capacity * within.seconds), 4),
                score=_score(each, usual),
            )
        )
    return ServerPerformanceAnswer(time_range=within.text, range=within.shown, servers=servers, count=len(servers))


def _score(each: RequestFigures, usual: float) -> float | None:
    if not each.requests:
        return None
    swift = min(1.0, usual / each.average) if each.average else 1.0
    return round((1.0 - each.error_rate) * swift, 2)


class RecentErrorJson(JsonObject, kw_only=True):
    """One request that got no answer."""

    timestamp: Annotated[ISO, "when it arrived"]
    server_id: str
    model: str
    error_type: str
    message: str
    request_id: str
    status: int


class ErrorsAnswer(Answer, kw_only=True):
    """Requests that got no answer, whoever is to blame, unless their client left."""

    time_range: str
    range: RangeJson
    total_errors: int
    error_rate: SHARE
    by_type: Annotated[dict[str, int], "by outcome"]
    by_server: Annotated[dict[str, int], "empty name: none was tried"]
    by_model: dict[str, int]
    trend: Annotated[Direction, "of the share of errors; stable, too, while there are too few points"]
    recent_errors: Annotated[list[RecentErrorJson], "the last ones, as far as requests are kept"] | UnsetType = UNSET


@topic.get(
    "/analytics/errors",
    "What went wrong, by type, server and model.",
    seed=True,
    fails=past.UNAVAILABLE,
    query=(
        Param("include_recent", bool, True, "Whether the last errors are listed."),
        past.SERVER,
        past.MODEL,
        *past.ranges("24h"),
    ),
)
async def errors(asked: AdminRequest) -> ErrorsAnswer:
    within = past.range_of(asked)
    step = step_for(within.buckets, within.now, _POINTS)
    groups = await past.sums(asked, within, "server", "model", step=step, sketches=())
    whole = figures_of(groups)
    shares = [(float(bucket), each.error_rate) for bucket, each in figures_over_time(groups).items()]
    return ErrorsAnswer(
        time_range=within.text,
        range=within.shown,
        total_errors=whole.errors,
        error_rate=round(whole.error_rate, 4),
        by_type=_errors(groups, 2),
        by_server=_errors(groups, 0),
        by_model=_errors(groups, 1),
        trend=trend_of(shares).direction,
        recent_errors=await _recent(asked, within) if asked.query["include_recent"] else UNSET,
    )


def _errors(groups: list[SumsGroup], place: int) -> dict[str, int]:
    """Errors by the name at a place, the most frequent first."""
    found = [(each.errors, name) for (name,), each in figures_by(groups, place).items() if each.errors]
    return {name: number for number, name in sorted(found, key=lambda each: (-each[0], each[1]))}


async def _recent(asked: AdminRequest, within: past.AskedRange) -> list[RecentErrorJson]:
    names = {**past.names_of(asked), "outcome": outcomes_of("refused", "failed")}
    question = RowsQuestion(since=within.since, until=within.until, limit=RECENT, names=names)
    page = await (await past.queries_of(asked)).rows(question)
    return [_error(row) for _, row in page.rows]


def _error(row: RequestRow) -> RecentErrorJson:
    return RecentErrorJson(
        timestamp=iso(row.began),
        server_id=row.server,
        model=row.model,
        error_type=row.outcome,
        message=message(row),
        request_id=row.request,
        status=row.status,
    )
