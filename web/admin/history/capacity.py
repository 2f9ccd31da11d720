"""How full the fleet is, was, and is likely to be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import mean
from typing import Annotated, Final

from actors.state.queue_views import QueueView
from actors.system import System
from fleet.common.times import milliseconds
from fleet.history.capacity import HIGH, HOUR, LOW, WEEK, Forecast, Recommendation, forecast, peak
from fleet.history.figures import RequestFigures, figures_by, figures_over_time
from fleet.history.questions import SumsQuestion
from fleet.history.time_ranges import aligned
from web.admin.history import asked as past
from web.admin.history.asked import RangeJson
from web.admin.kit.answers import EPOCH_MS, MS, SHARE, Answer, JsonObject
from web.admin.kit.routes import AdminRequest, RouteGroup

topic = RouteGroup("capacity", "How full the fleet is, was, and is likely to be.")

_PAST: Final = 5 * WEEK
_FEWEST: Final = 20
"""Requests from which on a server's errors are worth a word."""
_MOST: Final = 20


class CurrentCapacityJson(JsonObject, kw_only=True):
    """Slots now, of servers that get requests."""

    total_capacity: int
    used_capacity: int
    available_capacity: int
    queue_depth: int
    saturation: SHARE
    queue_size: Annotated[int, "the same as queueDepth"]
    avg_wait_time: Annotated[MS, "of all requests that got a slot since this process began"]
    saturation_level: Annotated[float, "the same as saturation"]


class ForecastJson(JsonObject, kw_only=True):
    """How full it is likely to be: the same hours of past weeks, else of past days, else as the last hour."""

    predicted_saturation: Annotated[float | None, "1: all slots, all the time; null: there is no past"]
    confidence: Annotated[SHARE, "how many of four such hours there were; no probability"]
    recommendation: Recommendation


class ForecastsJson(JsonObject, kw_only=True):
    """The next hour, and the fullest hour of the next 24."""

    next_hour: ForecastJson
    next_24_hours: ForecastJson
    predicted_load: Annotated[float | None, "slots in use in the next hour"]
    recommended_servers: Annotated[int | None, "like those there are, for the fullest hour to be 80 % full"]
    bottleneck_server: Annotated[str | None, "whose slots were in use most in the range"]


class CapacityTrendsJson(JsonObject, kw_only=True):
    """Hour by hour, the last one not over yet; hours without requests are absent."""

    requests_per_hour: list[int]
    saturation_levels: Annotated[list[float], "by the slots that there are now"]
    timestamps: list[EPOCH_MS]


class CapacityAnswer(Answer, kw_only=True):
    """How full the fleet is, was, and is likely to be."""

    time_range: str
    range: RangeJson
    current: CurrentCapacityJson
    forecast: ForecastsJson
    trends: CapacityTrendsJson
    recommendations: list[str]


@topic.get(
    "/analytics/capacity",
    "How full the fleet is, was, and is likely to be.",
    seed=True,
    fails=past.UNAVAILABLE,
    query=past.ranges("24h"),
)
async def capacity(asked: AdminRequest) -> CapacityAnswer:
    within, system = past.range_of(asked), asked.system
    wanted = SumsQuestion(span=aligned(within.now - _PAST, within.now, within.now), by=("outcome",), step=HOUR)
    hourly = figures_over_time(await (await past.queries_of(asked)).sums(wanted))
    by_server = {
        server: each
        for (server,), each in figures_by(await past.sums(asked, within, "server", sketches=()), 0).items()
        if server
    }
    slots = {str(cell.state.id): cell.state.ledger.capacity for cell in system.servers.values() if cell.state.usable}
    held, whole = {hour: each.sums.slot for hour, each in hourly.items()}, sum(slots.values())
    soon = forecast(held, whole, int(within.now) // HOUR * HOUR + HOUR, within.now)
    most = peak(held, whole, within.now)
    shown = {hour: each for hour, each in hourly.items() if within.buckets.since <= hour < within.until}
    return CapacityAnswer(
        time_range=within.text,
        range=within.shown,
        current=_current(system, slots, system.queries.queue_view(0)),
        forecast=ForecastsJson(
            next_hour=_forecast(soon),
            next_24_hours=_forecast(most),
            predicted_load=None if soon.saturation is None else round(soon.saturation * whole, 3),
            recommended_servers=_servers(most, len(slots)),
            bottleneck_server=_bottleneck(by_server, slots),
        ),
        trends=CapacityTrendsJson(
            requests_per_hour=[each.requests for each in shown.values()],
            saturation_levels=[round(each.sums.slot / (HOUR * whole), 6) if whole else 0.0 for each in shown.values()],
            timestamps=[milliseconds(hour) for hour in shown],
        ),
        recommendations=_recommendations(most, len(slots), by_server),
    )


def _current(system: System, slots: Mapping[str, float], queue: QueueView) -> CurrentCapacityJson:
    total = int(sum(slots.values()))
    used = sum(cell.state.in_use for cell in system.servers.values() if cell.state.usable)
    full = round(used / total, 4) if total else 0.0
    return CurrentCapacityJson(
        total_capacity=total,
        used_capacity=used,
        available_capacity=max(0, total - used),
        queue_depth=queue.waiting,
        saturation=full,
        queue_size=queue.waiting,
        avg_wait_time=milliseconds(queue.avg_wait),
        saturation_level=full,
    )


def _forecast(found: Forecast) -> ForecastJson:
    return ForecastJson(
        predicted_saturation=None if found.saturation is None else round(found.saturation, 4),
        confidence=round(found.confidence, 2),
        recommendation=found.recommendation,
    )


def _servers(most: Forecast, servers: int) -> int | None:
    """So many, like those there are, that the fullest hour leaves a fifth free."""
    return None if most.saturation is None or not servers else max(1, math.ceil(most.saturation * servers / HIGH))


def _bottleneck(by_server: Mapping[str, RequestFigures], slots: Mapping[str, float]) -> str | None:
    full = {server: each.sums.slot / slots[server] for server, each in by_server.items() if slots.get(server)}
    return min(full, key=lambda server: (-full[server], server), default=None)


def _recommendations(most: Forecast, servers: int, by_server: Mapping[str, RequestFigures]) -> list[str]:
    found = []
    wanted = _servers(most, servers) or servers
    if most.saturation is not None and most.saturation > HIGH:
        found.append(
            f"Add {max(1, wanted - servers)} more: the fullest hour of the next 24 is likely to use "
            f"{most.saturation:.0%} of the slots"
        )
    if most.saturation is not None and most.saturation < LOW and most.samples > 1 and wanted < servers:
        found.append(f"{wanted} of the {servers} servers are likely to be enough for the next 24 hours")
    many = {server: each for server, each in by_server.items() if each.requests >= _FEWEST}
    usual = mean([each.error_rate for each in many.values()] or [0.0])
    for server in sorted(many, key=lambda name: -many[name].error_rate):
        rate = many[server].error_rate
        if rate > max(0.05, usual):
            found.append(f"Investigate server {server}: {rate:.1%} of its requests got no answer")
    return found[:_MOST]
