"""Whether a figure of the past rises or falls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Final, NamedTuple

from fleet.common.errors import BadRequest
from fleet.history.figures import RequestFigures, figures_over_time
from fleet.history.time_ranges import step_for
from fleet.history.trends import Direction, trend_of
from web.admin.history import asked as past
from web.admin.history.asked import RangeJson
from web.admin.kit.answers import SHARE, Answer, JsonObject
from web.admin.kit.routes import AdminRequest, RouteGroup

topic = RouteGroup("trends", "Whether figures rise or fall.")

_POINTS: Final = 100


class _Figure(NamedTuple):
    """A figure over time. `of`: its value of some requests and a number of seconds; `empty`: that of no requests."""

    unit: str
    of: Callable[[RequestFigures, float], float]
    empty: float | None = None


_METRICS: Final[Mapping[str, _Figure]] = {
    "latency": _Figure("milliseconds", lambda each, _: 1000.0 * each.average),
    "errors": _Figure("share of requests", lambda each, _: each.error_rate),
    "throughput": _Figure("requests per second", lambda each, seconds: each.requests / seconds, 0.0),
    "tokens": _Figure("tokens generated per second", lambda each, seconds: each.sums.output_tokens / seconds, 0.0),
    "wait": _Figure("milliseconds in the queue", lambda each, _: 1000.0 * each.sums.wait / each.requests),
    "load": _Figure("slots held", lambda each, seconds: each.sums.slot / seconds, 0.0),
}


class AnalysisJson(JsonObject, kw_only=True):
    """The slope by Theil and Sen: the median of those of all pairs of points. Null under 8 points."""

    direction: Annotated[Direction, "stable unless the confidence is 0.95 or more"]
    slope: Annotated[float | None, "by the hour, in the unit"]
    confidence: Annotated[SHARE | None, "that there is a trend at all, by Mann and Kendall"]
    points: int
    unit: str
    interval_minutes: Annotated[int, "that each point stands for"]


class TrendAnswer(Answer, kw_only=True):
    """One figure."""

    metric: str
    analysis: AnalysisJson
    time_range: str
    range: RangeJson


@topic.get(
    "/analytics/trends/<metric>",
    "Whether latency, errors, throughput, tokens, wait or load rises or falls.",
    seed=True,
    fails=past.UNAVAILABLE,
    query=(past.SERVER, past.MODEL, *past.ranges("24h")),
)
async def trends(asked: AdminRequest, metric: str) -> TrendAnswer:
    known = _METRICS.get(metric)
    if known is None:
        raise BadRequest(f"Invalid metric. Must be one of: {', '.join(_METRICS)}")
    within = past.range_of(asked)
    step = step_for(within.buckets, within.now, _POINTS)
    groups = await past.sums(asked, within, step=step, sketches=())
    found = trend_of(_points(known, figures_over_time(groups), step, within.now))
    analysis = AnalysisJson(
        direction=found.direction,
        slope=None if found.slope is None else round(3600.0 * found.slope, 6),
        confidence=None if found.confidence is None else round(found.confidence, 4),
        points=found.points,
        unit=known.unit,
        interval_minutes=step // 60,
    )
    return TrendAnswer(metric=metric, analysis=analysis, time_range=within.text, range=within.shown)


def _points(metric: _Figure, found: Mapping[int, RequestFigures], step: int, now: float) -> list[tuple[float, float]]:
    """One for each interval that is over; those without requests count from the first one that had any."""
    over = [bucket for bucket in found if bucket + step <= now]
    if metric.empty is None:
        return [(float(bucket), metric.of(found[bucket], step)) for bucket in over]
    return (
        [
            (float(bucket), metric.of(found[bucket], step) if bucket in found else metric.empty)
            for bucket in range(over[0], int(now) - step + 1, step)
        ]
        if over
        else []
    )
