"""The fleet in figures, in one small answer."""

from __future__ import annotations

from typing import Any, Final

from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.kit.schemas import EPOCH_MS, SECONDS, SHARE, Said
from web.admin.observability import health, window_figures

topic = RouteGroup("stats", "The fleet in figures.")

LATELY: Final = 3_600.0

STATS: Final = {
    **health.OVERVIEW,
    "circuitBreakers": health.BREAKERS,
    "usableServers": Said(int, "healthy, and not taken out of service"),
    "capacity": Said(int, "slots of the usable servers"),
    "queuedRequests": int,
    "queuePaused": bool,
    "totalRequests": Said(int, "since the first start, like the next two"),
    "totalErrors": int,
    "totalTokens": int,
    "since": Said(EPOCH_MS, "when the fleet was first started"),
    "requestsPerSecond": Said(float, "over the last minute"),
    "requestsLastHour": int,
    "errorRate": Said(SHARE, "over the last hour, like the next two"),
    "avgLatency": window_figures.MILLIS,
    "p95Latency": window_figures.MILLIS,
    "droppedRecords": Said(int, "requests left out of all figures, since this process began"),
    "uptime": SECONDS,
}


@topic.get("/stats", "The fleet in figures.", returns={"success": bool, "stats": STATS}, seed=True)
async def stats(asked: AdminRequest) -> dict[str, Any]:
    system = asked.system
    rate = await health.requests_per_second(system)
    _, sums = system.statistics.totals.window(LATELY)
    usable = [cell.state for cell in system.servers.values() if cell.state.usable]
    queue = system.queries.queue_view(0)
    shown = {
        **health.overview(system),
        "circuitBreakers": health.breakers_by_name(system),
        "usableServers": len(usable),
        "capacity": int(sum(state.ledger.capacity for state in usable)),
        "queuedRequests": queue.waiting,
        "queuePaused": queue.paused,
        **window_figures.lifetime(system),
        "requestsPerSecond": rate,
        "requestsLastHour": sums.count,
        "errorRate": window_figures.rounded(sums.error_rate),
        "avgLatency": window_figures.rounded(sums.average),
        "p95Latency": window_figures.rounded(sums.percentile(0.95)),
        "droppedRecords": system.statistics.request_log.dropped,
        "uptime": round(system.uptime, 3),
    }
    return {"success": True, "stats": shown}
