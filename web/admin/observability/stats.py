"""The fleet in figures, in one small answer."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import UNSET

from fleet.common.times import milliseconds
from web.admin.kit.answers import SECONDS, Answer, JsonObject
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.observability import health, window_figures

topic = RouteGroup("stats", "The fleet in figures.")

LATELY: Final = 3_600.0


class FleetFiguresJson(JsonObject, kw_only=True):
    """The fleet in figures."""

    total_servers: int
    healthy_servers: int
    total_models: int
    in_flight_requests: int
    open_circuit_breakers: int
    circuit_breakers: health.BreakersByName
    usable_servers: Annotated[int, "healthy, and not taken out of service"]
    capacity: Annotated[int, "slots of the usable servers"]
    queued_requests: int
    queue_paused: bool
    total_requests: Annotated[int, "since the first start, like the next two"]
    total_errors: int
    total_tokens: int
    since: Annotated[int, "when the fleet was first started"]
    requests_per_second: Annotated[float, "over the last minute"]
    requests_last_hour: int
    error_rate: Annotated[float, "over the last hour, like the next two"]
    avg_latency: Annotated[float, "milliseconds"]
    p95_latency: Annotated[float, "milliseconds"]
    dropped_records: Annotated[int, "requests left out of all figures, since this process began"]
    uptime: SECONDS


class StatsAnswer(Answer, kw_only=True):
    """One small answer."""

    stats: FleetFiguresJson


@topic.get("/stats", "The fleet in figures.", seed=True)
async def stats(asked: AdminRequest) -> StatsAnswer:
    system = asked.system
    rate = await health.requests_per_second(system)
    _, sums = system.statistics.totals.window(LATELY)
    usable = [cell.state for cell in system.servers.values() if cell.state.usable]
    queue = system.queries.queue_view(0)
    seen, total = health.overview(system, UNSET), system.statistics.totals.book.fleet.total
    shown = FleetFiguresJson(
        total_servers=seen.total_servers,
        healthy_servers=seen.healthy_servers,
        total_models=seen.total_models,
        in_flight_requests=seen.in_flight_requests,
        open_circuit_breakers=seen.open_circuit_breakers,
        circuit_breakers=health.breakers_by_name(system),
        usable_servers=len(usable),
        capacity=int(sum(state.capacity for state in usable)),
        queued_requests=queue.waiting,
        queue_paused=queue.paused,
        total_requests=total.requests,
        total_errors=total.errors,
        total_tokens=total.tokens,
        since=milliseconds(total.since),
        requests_per_second=rate,
        requests_last_hour=sums.count,
        error_rate=window_figures.rounded(sums.error_rate),
        avg_latency=window_figures.rounded(sums.average),
        p95_latency=window_figures.rounded(sums.percentile(0.95)),
        dropped_records=system.statistics.request_log.dropped,
        uptime=round(system.uptime, 3),
    )
    return StatsAnswer(stats=shown)
