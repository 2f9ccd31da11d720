"""Health: of the fleet, for people, for load balancers, for the dashboard."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from quart import Blueprint, Response

from web import access, replies
from web.admin.common import ROOT, is_healthy, now_iso
from web.reading import scope

if TYPE_CHECKING:
    from actors.system import System


def own_version() -> str:
    """The version of the installed package."""
    try:
        return version("fleet-for-ollama")
    except PackageNotFoundError:
        return "0"


def blueprint(system: System) -> Blueprint:
    """Routes under the orchestrator's root, and `/health...` for probes."""
    routes = Blueprint("health", __name__)

    @routes.get(f"{ROOT}/health")
    async def fleet_health() -> Response:
        word = status_word(system)
        body = {
            "success": True,
            "status": word,
            "uptime": round(system.uptime, 3),
            "version": own_version(),
            "servers": len(system.servers),
            "healthyServers": _healthy(system),
        }
        return replies.json(body)

    @routes.get("/health")
    async def for_people() -> Response:
        body = {
            "status": "ok" if status_word(system) == "healthy" else status_word(system),
            "uptime": round(system.uptime, 3),
            "timestamp": now_iso(),
            "orchestrator": _overview(system, access.is_trusted(scope()["headers"], system.config.security)),
        }
        return replies.json(body)

    @routes.get("/health/live")
    async def live() -> Response:
        return replies.json({"status": "ok"})

    @routes.get("/health/ready")
    async def ready() -> Response:
        healthy = _healthy(system)
        if healthy and not system.draining:
            return replies.json({"status": "ready", "healthyServers": healthy})
        reason = "shutting down" if system.draining else "no healthy server"
        return replies.json({"status": "not_ready", "reason": reason, "totalServers": len(system.servers)}, 503)

    return routes


def status_word(system: System) -> str:
    """`healthy`, `degraded` (some servers are down), `unhealthy` (all are), or `draining`."""
    if system.draining:
        return "draining"
    healthy = _healthy(system)
    if not healthy:
        return "unhealthy"
    return "healthy" if healthy == len(system.servers) else "degraded"


def _healthy(system: System) -> int:
    return sum(is_healthy(cell) for cell in system.servers.values())


def _overview(system: System, trusted: bool) -> dict[str, object]:
    """The fleet in figures; which server and which model is nobody's business who would need a key and has none."""
    states = [cell.state for cell in system.servers.values()]
    breakers = {
        f"{view.pair.server}:{view.pair.model}": {"state": view.state.value, "failureCount": view.failure_count}
        for view in system.breakers.describe()
    }
    return {
        "totalServers": len(states),
        "healthyServers": _healthy(system),
        "totalModels": len({model for state in states for model in state.models}),
        "inFlightRequests": system.in_flight,
        "openCircuitBreakers": sum(each["state"] == "open" for each in breakers.values()),
        **({"circuitBreakers": breakers} if trusted else {}),
    }
