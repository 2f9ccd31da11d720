"""Health: of the fleet, for people, for load balancers, for the dashboard; and a round of probes on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from msgspec import UNSET, UnsetType
from quart import Response

from fleet.breakers.values import BreakerState
from fleet.common.times import iso
from fleet.security.roles import Role
from web.admin.kit.answers import ISO, SECONDS, Answer, JsonObject
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.observability.health_summary import VERDICT, verdict_of
from web.admin.observability.symptoms import HealthWord, Symptom, symptoms, word_of
from web.asgi.quart_request import scope
from web.http import responses
from web.http.units import is_healthy
from web.http.version import own_version
from web.security import api_key_auth

if TYPE_CHECKING:
    from actors.system import System

topic = RouteGroup("health", "How the fleet is.")
probes = RouteGroup("probes", "For load balancers and people: needs no key.", root="")

RATE_SPAN: Final = 60.0
"""Seconds over which `requestsPerSecond` is taken."""


class ReasonJson(JsonObject, kw_only=True):
    """Something that is wrong."""

    code: Annotated[
        str,
        "draining, no_server, server_unhealthy, server_not_probed, server_refuses, queue_paused, queue_full, "
        "store_degraded, server_set_aside, records_dropped, history_degraded, history_set_aside, config_reload_failed; "
        "and the verdict's code if that is none of these",
    ]
    text: str
    since: Annotated[ISO | None, "null: not known"]


class BreakerFailuresJson(JsonObject, kw_only=True):
    """One breaker in two words."""

    state: BreakerState
    failure_count: int


BreakersByName = Annotated[
    dict[str, BreakerFailuresJson], "by `server:model`; a breaker with nothing to remember is closed, and absent"
]


class OverviewJson(JsonObject, kw_only=True):
    """The fleet in figures: no names, but where breakers are shown."""

    total_servers: int
    healthy_servers: int
    total_models: int
    in_flight_requests: int
    open_circuit_breakers: int
    circuit_breakers: BreakersByName | UnsetType = UNSET


class HealthAnswer(Answer, kw_only=True):
    """Whether the fleet can serve."""

    status: HealthWord
    verdict: VERDICT
    reasons: list[ReasonJson]
    uptime: SECONDS
    version: str
    servers: int
    healthy_servers: int
    in_flight_requests: int
    queued_requests: int
    requests_per_second: Annotated[float, "finished requests, over the last minute"]


class PublicHealthAnswer(JsonObject, kw_only=True):
    """The same for people."""

    status: Literal["ok", "degraded", "unhealthy", "draining"]
    verdict: VERDICT
    reasons: list[ReasonJson]
    uptime: SECONDS
    timestamp: ISO
    orchestrator: OverviewJson


class LiveAnswer(JsonObject, kw_only=True):
    """The process answers."""

    status: Literal["ok"] = "ok"


class ReadyAnswer(JsonObject, kw_only=True):
    """Requests may come."""

    status: Literal["ready"] = "ready"
    healthy_servers: int


@topic.get(
    "/health",
    "Whether the fleet can serve, and everything that is wrong.",
    role=Role.CLIENT,
    seed=True,
)
async def fleet_health(asked: AdminRequest) -> HealthAnswer:
    system = asked.system
    named = asked.by.role >= Role.OPERATOR
    found = symptoms(system, asked.context.settings, named=named)
    return HealthAnswer(
        status=word_of(found),
        verdict=verdict_of(system, named=named),
        reasons=[_shown(each) for each in found],
        uptime=round(system.uptime, 3),
        version=own_version(),
        servers=len(system.servers),
        healthy_servers=healthy_servers(system),
        in_flight_requests=system.in_flight,
        queued_requests=system.queries.queue_view(0).waiting,
        requests_per_second=await requests_per_second(system),
    )


@probes.get(
    "/health",
    "The fleet in figures, for people and the dashboard; names only for those who may see them.",
    role=Role.CLIENT,
    open=True,
)
async def for_people(asked: AdminRequest) -> PublicHealthAnswer:
    system = asked.system
    trusted = api_key_auth.is_trusted(scope(), system)
    found = symptoms(system, asked.context.settings, named=trusted)
    word = word_of(found)
    return PublicHealthAnswer(
        status="ok" if word == "healthy" else word,
        verdict=verdict_of(system, named=trusted),
        reasons=[_shown(each) for each in found],
        uptime=round(system.uptime, 3),
        timestamp=iso(system.clock.wall()),
        orchestrator=overview(system, breakers_by_name(system) if trusted else UNSET),
    )


@probes.get(
    "/health/live",
    "Whether the process answers.",
    role=Role.CLIENT,
    open=True,
)
async def live(asked: AdminRequest) -> LiveAnswer:
    return LiveAnswer()


@probes.get(
    "/health/ready",
    "Whether to send requests here: 503 while no server can be used, and while the fleet shuts down.",
    role=Role.CLIENT,
    open=True,
    fails=(503,),
)
async def ready(asked: AdminRequest) -> ReadyAnswer | Response:
    system = asked.system
    usable = sum(cell.state.usable for cell in system.servers.values())
    if usable and not system.draining:
        return ReadyAnswer(healthy_servers=usable)
    reason = "shutting down" if system.draining else "no healthy server"
    body = {"status": "not_ready", "reason": reason, "totalServers": len(system.servers)}
    return responses.json({**body, "success": False, "error": reason}, 503)


def healthy_servers(system: System) -> int:
    """How many the probes reach, whatever the operator says."""
    return sum(is_healthy(cell) for cell in system.servers.values())


def overview(system: System, breakers: dict[str, BreakerFailuresJson] | UnsetType) -> OverviewJson:
    """The fleet in figures, with these breakers."""
    states = [cell.state for cell in system.servers.values()]
    return OverviewJson(
        total_servers=len(states),
        healthy_servers=healthy_servers(system),
        total_models=len({model for state in states for model in state.models}),
        in_flight_requests=system.in_flight,
        open_circuit_breakers=sum(state is BreakerState.OPEN for _, state, _ in system.breakers.states()),
        circuit_breakers=breakers,
    )


def breakers_by_name(system: System) -> dict[str, BreakerFailuresJson]:
    """State and failures of every breaker that remembers something; names servers and models."""
    return {
        f"{pair.server}:{pair.model}": BreakerFailuresJson(state=state, failure_count=failures)
        for pair, state, failures in system.breakers.states()
    }


async def requests_per_second(system: System) -> float:
    """Finished requests, over the last minute; whatever has ended by now is counted."""
    await system.statistics.request_log.catch_up()
    start, sums = system.statistics.totals.window(RATE_SPAN)
    return round(sums.count / max(system.clock.now() - start, 1.0), 4)


def _shown(symptom: Symptom) -> ReasonJson:
    return ReasonJson(code=symptom.code, text=symptom.text, since=iso(symptom.since))
