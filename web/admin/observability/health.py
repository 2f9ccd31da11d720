"""Health: of the fleet, for people, for load balancers, for the dashboard; and a round of probes on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from quart import Response

from fleet.breakers.values import BreakerState
from fleet.common.times import iso
from fleet.security.roles import Role
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.kit.schemas import ISO, SECONDS, Each, Maybe, OneOf, Optional, Said
from web.admin.observability.health_summary import VERDICT, verdict_of
from web.admin.observability.symptoms import Symptom, symptoms, word_of
from web.asgi.quart_request import scope
from web.http import responses
from web.http.units import is_healthy, now_iso
from web.http.version import own_version
from web.security import api_key_auth

if TYPE_CHECKING:
    from actors.system import System

topic = RouteGroup("health", "How the fleet is.")
probes = RouteGroup("probes", "For load balancers and people: needs no key.", root="")

RATE_SPAN: Final = 60.0
"""Seconds over which `requestsPerSecond` is taken."""
REASON: Final = {
    "code": Said(
        str,
        "draining, no_server, server_unhealthy, server_not_probed, server_refuses, queue_paused, queue_full, "
        "store_degraded, server_set_aside, records_dropped, config_reload_failed; and the verdict's code if that is "
        "none of these",
    ),
    "text": str,
    "since": Said(Maybe(ISO), "null: not known"),
}
STATUS: Final = OneOf(("healthy", "degraded", "unhealthy", "draining"))
BREAKERS: Final = Said(
    Each({"state": OneOf(("closed", "open", "half-open")), "failureCount": int}),
    "by `server:model`; a breaker with nothing to remember is closed, and absent",
)
OVERVIEW: Final = {
    "totalServers": int,
    "healthyServers": int,
    "totalModels": int,
    "inFlightRequests": int,
    "openCircuitBreakers": int,
}


@topic.get(
    "/health",
    "Whether the fleet can serve, and everything that is wrong.",
    role=Role.CLIENT,
    returns={
        "success": bool,
        "status": STATUS,
        "verdict": VERDICT,
        "reasons": [REASON],
        "uptime": SECONDS,
        "version": str,
        "servers": int,
        "healthyServers": int,
        "inFlightRequests": int,
        "queuedRequests": int,
        "requestsPerSecond": Said(float, "finished requests, over the last minute"),
    },
    seed=True,
)
async def fleet_health(asked: AdminRequest) -> dict[str, Any]:
    system = asked.system
    named = asked.by.role >= Role.OPERATOR
    found = symptoms(system, asked.context.settings, named=named)
    return {
        "success": True,
        "status": word_of(found),
        "verdict": verdict_of(system, named=named),
        "reasons": [_shown(each) for each in found],
        "uptime": round(system.uptime, 3),
        "version": own_version(),
        "servers": len(system.servers),
        "healthyServers": healthy_servers(system),
        "inFlightRequests": system.in_flight,
        "queuedRequests": system.queries.queue_view(0).waiting,
        "requestsPerSecond": await requests_per_second(system),
    }


@probes.get(
    "/health",
    "The fleet in figures, for people and the dashboard; names only for those who may see them.",
    role=Role.CLIENT,
    open=True,
    returns={
        "status": OneOf(("ok", "degraded", "unhealthy", "draining")),
        "verdict": VERDICT,
        "reasons": [REASON],
        "uptime": SECONDS,
        "timestamp": ISO,
        "orchestrator": {**OVERVIEW, "circuitBreakers": Optional(BREAKERS)},
    },
)
async def for_people(asked: AdminRequest) -> dict[str, Any]:
    system = asked.system
    trusted = api_key_auth.is_trusted(scope(), system)
    found = symptoms(system, asked.context.settings, named=trusted)
    word = word_of(found)
    return {
        "status": "ok" if word == "healthy" else word,
        "verdict": verdict_of(system, named=trusted),
        "reasons": [_shown(each) for each in found],
        "uptime": round(system.uptime, 3),
        "timestamp": now_iso(),
        "orchestrator": overview(system) | ({"circuitBreakers": breakers_by_name(system)} if trusted else {}),
    }


@probes.get(
    "/health/live",
    "Whether the process answers.",
    role=Role.CLIENT,
    open=True,
    returns={"status": OneOf(("ok",))},
)
async def live(asked: AdminRequest) -> dict[str, Any]:
    return {"status": "ok"}


@probes.get(
    "/health/ready",
    "Whether to send requests here: 503 while no server can be used, and while the fleet shuts down.",
    role=Role.CLIENT,
    open=True,
    returns={"status": OneOf(("ready",)), "healthyServers": int},
    fails=(503,),
)
async def ready(asked: AdminRequest) -> dict[str, Any] | Response:
    system = asked.system
    usable = sum(cell.state.usable for cell in system.servers.values())
    if usable and not system.draining:
        return {"status": "ready", "healthyServers": usable}
    reason = "shutting down" if system.draining else "no healthy server"
    body = {"status": "not_ready", "reason": reason, "totalServers": len(system.servers)}
    return responses.json({**body, "success": False, "error": reason}, 503)


def healthy_servers(system: System) -> int:
    """How many the probes reach, whatever the operator says."""
    return sum(is_healthy(cell) for cell in system.servers.values())


def overview(system: System) -> dict[str, Any]:
    """The fleet in figures, in `OVERVIEW`'s shape: no names."""
    states = [cell.state for cell in system.servers.values()]
    return {
        "totalServers": len(states),
        "healthyServers": healthy_servers(system),
        "totalModels": len({model for state in states for model in state.models}),
        "inFlightRequests": system.in_flight,
        "openCircuitBreakers": sum(state is BreakerState.OPEN for _, state, _ in system.breakers.states()),
    }


def breakers_by_name(system: System) -> dict[str, Any]:
    """State and failures of every breaker that remembers something; names servers and models."""
    return {
        f"{pair.server}:{pair.model}": {"state": state.value, "failureCount": failures}
        for pair, state, failures in system.breakers.states()
    }


async def requests_per_second(system: System) -> float:
    """Finished requests, over the last minute; whatever has ended by now is counted."""
    await system.statistics.request_log.catch_up()
    start, sums = system.statistics.totals.window(RATE_SPAN)
    return round(sums.count / max(system.clock.now() - start, 1.0), 4)


def _shown(symptom: Symptom) -> dict[str, Any]:
    return {"code": symptom.code, "text": symptom.text, "since": iso(symptom.since)}
