"""Figures of finished requests: of one server, and over time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

from fleet.common.errors import BadRequest
from fleet.common.times import milliseconds
from fleet.history.figures import RequestFigures, figures_by, figures_of, figures_over_time
from fleet.history.time_ranges import finest_tier, step_for
from web.admin.history import asked as past
from web.admin.history.asked import MEAN_MS, MS_OR_NULL, RangeJson, mean_ms
from web.admin.kit.answers import EPOCH_MS, SHARE, Answer, JsonObject
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup

topic = RouteGroup("request_stats", "Figures of finished requests.")

POINTS: Final = 100
"""Points over time, if nobody says how far apart."""
MOST_POINTS: Final = 3_000


class ServersWithHistoryAnswer(Answer, kw_only=True):
    """Servers of which there are requests, the busiest first; they need not be in the fleet any more."""

    count: int
    server_ids: list[str]


class PartJson(JsonObject, kw_only=True):
    """The requests of one model, or to one endpoint."""

    count: int
    avg_duration: MEAN_MS
    error_rate: SHARE


class RequestStatsJson(JsonObject, kw_only=True):
    """Figures of requests. Those whose clients left are neither successful nor failed."""

    total_requests: int
    successful_requests: int
    failed_requests: int
    left_requests: int
    avg_duration: MEAN_MS
    p50_latency: MS_OR_NULL
    p95_latency: MS_OR_NULL
    p99_latency: MS_OR_NULL
    avg_tokens_generated: Annotated[float, "by requests"]
    avg_tokens_prompt: Annotated[float, "by requests"]
    requests_per_minute: Annotated[float, "over the whole range"]
    error_rate: SHARE
    cold_requests: Annotated[int, "that waited for a load"]
    attempts: int
    by_model: dict[str, PartJson]
    by_endpoint: dict[str, PartJson]


class RequestStatsAnswer(Answer, kw_only=True):
    """Figures of one server."""

    server_id: str
    hours: Annotated[float, "how long the range is"]
    range: RangeJson
    stats: RequestStatsJson


class TimelinePointJson(JsonObject, kw_only=True):
    """The requests that ended within an interval."""

    timestamp: Annotated[EPOCH_MS, "where it begins"]
    count: int
    success_count: int
    error_count: int
    left_count: int
    avg_duration: MEAN_MS
    p95_duration: MS_OR_NULL
    tokens_generated: int
    tokens_prompt: int


class TimelineAnswer(Answer, kw_only=True):
    """Requests over time. An interval without requests has no point."""

    server_id: Annotated[str, "`all`: of the whole fleet"]
    hours: Annotated[float, "how long the range is"]
    interval_minutes: int
    range: RangeJson
    data_points: list[TimelinePointJson]


@topic.get(
    "/analytics/servers-with-history",
    "Servers of which there are finished requests.",
    seed=True,
    fails=past.UNAVAILABLE,
    query=past.ranges("30d"),
)
async def servers_with_history(asked: AdminRequest) -> ServersWithHistoryAnswer:
    groups = await past.sums(asked, past.range_of(asked), "server", sketches=())
    found = figures_by(groups, 0)
    busiest = sorted((server for (server,) in found if server), key=lambda server: (-found[server,].requests, server))
    return ServersWithHistoryAnswer(count=len(busiest), server_ids=busiest)


@topic.get(
    "/analytics/request-stats/<server_id>",
    "Figures of the finished requests of one server.",
    seed=True,
    fails=past.UNAVAILABLE,
    query=(past.HOURS, past.MODEL, past.CLIENT, past.ENDPOINT, *past.ranges(None)),
)
async def request_stats(asked: AdminRequest, server_id: str) -> RequestStatsAnswer:
    within = past.range_of(asked)
    groups = await past.sums(asked, within, "model", "endpoint", names=past.names_of(asked, server=server_id))
    whole = figures_of(groups)
    sums, requests = whole.sums, max(1, whole.requests)
    stats = RequestStatsJson(
        total_requests=whole.requests,
        successful_requests=whole.answered,
        failed_requests=whole.errors,
        left_requests=whole.left,
        avg_duration=mean_ms(whole.average),
        p50_latency=milliseconds(whole.percentile(0.5)),
        p95_latency=milliseconds(whole.percentile(0.95)),
        p99_latency=milliseconds(whole.percentile(0.99)),
        avg_tokens_generated=round(sums.output_tokens / requests, 2),
        avg_tokens_prompt=round(sums.prompt_tokens / requests, 2),
        requests_per_minute=round(60.0 * whole.requests / within.seconds, 4),
        error_rate=round(whole.error_rate, 4),
        cold_requests=sums.cold,
        attempts=sums.attempts,
        by_model=_parts(figures_by(groups, 0).items()),
        by_endpoint=_parts(figures_by(groups, 1).items()),
    )
    hours = round(within.buckets.seconds / 3600.0, 2)
    return RequestStatsAnswer(server_id=server_id, hours=hours, range=within.shown, stats=stats)


def _parts(found: Iterable[tuple[tuple[str, ...], RequestFigures]]) -> dict[str, PartJson]:
    return {
        name: PartJson(count=each.requests, avg_duration=mean_ms(each.average), error_rate=round(each.error_rate, 4))
        for (name,), each in found
    }


@topic.get(
    "/analytics/request-timeline",
    "Finished requests over time.",
    seed=True,
    fails=past.UNAVAILABLE,
    query=(
        past.SERVER,
        past.MODEL,
        past.CLIENT,
        past.ENDPOINT,
        past.HOURS,
        *past.ranges(None),
        Param("interval_minutes", int, None, "How far apart points are; some 100 of them otherwise.", 1, 10_080),
    ),
)
async def request_timeline(asked: AdminRequest) -> TimelineAnswer:
    within = past.range_of(asked)
    step = interval(within, asked.query["interval_minutes"])
    groups = await past.sums(asked, within, step=step)
    points = [_point(bucket, each) for bucket, each in figures_over_time(groups).items()]
    return TimelineAnswer(
        server_id=asked.query["server_id"] or "all",
        hours=round(within.buckets.seconds / 3600.0, 2),
        interval_minutes=step // 60,
        range=within.shown,
        data_points=points,
    )


def interval(within: past.AskedRange, minutes: int | None) -> int:
    """Seconds between two points. Raises BadRequest if there would be too many, or no buckets are that short."""
    buckets = within.buckets
    if minutes is None:
        return step_for(buckets, within.now, POINTS)
    step, finest = minutes * 60, finest_tier(buckets.since, within.now)
    if step % finest:
        raise BadRequest(f"intervalMinutes must be a multiple of {finest // 60} that long ago")
    if buckets.seconds > step * MOST_POINTS:
        raise BadRequest(f"that would be more than {MOST_POINTS} points: make intervalMinutes longer")
    return step


def _point(bucket: int, each: RequestFigures) -> TimelinePointJson:
    return TimelinePointJson(
        timestamp=milliseconds(bucket),
        count=each.requests,
        success_count=each.answered,
        error_count=each.errors,
        left_count=each.left,
        avg_duration=mean_ms(each.average),
        p95_duration=milliseconds(each.percentile(0.95)),
        tokens_generated=each.sums.output_tokens,
        tokens_prompt=each.sums.prompt_tokens,
    )
