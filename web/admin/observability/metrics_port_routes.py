"""The metrics port: health and a summary in the shapes of the monitoring stack's reference.

Seconds, percent from 0 to 100, GiB where a name says `gb`, shares from 0 to 1. What nothing was measured of is null,
never zero: the mean over no requests, a GPU that the machine does not have. Our own keys stand beside the reference's.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Struct
from quart import Response

from actors.system import System
from fleet.common.errors import BadRequest
from fleet.common.times import iso
from fleet.observability.host_sample import HostSample
from fleet.observability.statistics.time_windows import span_of
from fleet.scheduling.server_state import Admin, Health
from fleet.security.roles import Role
from web.admin.kit.answers import ISO
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.models.figures import MINUTE
from web.admin.observability.health import LiveAnswer
from web.admin.observability.health_summary import VERDICT, verdict_of
from web.admin.observability.summary import (
    NOTHING,
    Percent,
    SummaryAnswer,
    mean_seconds,
    summarised,
    tenths,
    total_requests,
)
from web.admin.observability.symptoms import HealthWord, symptoms, word_of
from web.asgi.quart_request import scope
from web.http import responses
from web.http.version import own_version
from web.security import api_key_auth

topic = RouteGroup("monitoring", "On the metrics port: health, and a summary of the figures.", root="")

ROUTES: Final = """The metrics port of a fleet for Ollama.

/metrics              for Prometheus
/health               how the fleet is; 503 while it cannot serve (/health/live: whether the process answers)
/api/metrics/summary  the figures of the last minutes
"""
WINDOW: Final = Param(
    "window", str, "5m", "How far back means, shares and counts go: any number of m, h or d up to 7d."
)
_WELL: Final = ("healthy", "degraded")


class OllamaServiceJson(Struct, kw_only=True, gc=False):
    """All servers as if they were one: the first that can be used stands for them."""

    status: HealthWord
    url: Annotated[str, "of the first server that can be used; for operators only"] | None
    response_time_ms: Annotated[float, "of the last probe of that server"] | None
    servers: int
    healthy_servers: int


class ProxyServiceJson(Struct, kw_only=True, gc=False):
    """The queue."""

    status: HealthWord
    active_requests: int
    queue_size: int


class MetricsServiceJson(Struct, kw_only=True, gc=False):
    """The figures."""

    status: HealthWord
    total_requests: Annotated[int, "since the first start"]
    avg_response_time: Annotated[float, "seconds, over five minutes"] | None


class ServicesJson(Struct, kw_only=True, gc=False):
    """What the fleet consists of, to the reference."""

    ollama: OllamaServiceJson
    proxy: ProxyServiceJson
    metrics: MetricsServiceJson


class MachineJson(Struct, kw_only=True, gc=False):
    """The machine."""

    cpu_percent: Percent
    memory_percent: Percent
    disk_usage_percent: Percent


class MonitoringHealthAnswer(Struct, kw_only=True, gc=False):
    """How the fleet, its queue and its machine are."""

    status: HealthWord
    timestamp: ISO
    version: str
    verdict: VERDICT
    services: ServicesJson
    system: MachineJson


class MonitoringReadyAnswer(Struct):
    """Requests may come."""

    status: Literal["ready"] = "ready"


@topic.get("/", "Which routes there are.", role=Role.CLIENT, open=True, returns=str, media="text/plain")
async def root(asked: AdminRequest) -> Response:
    return responses.text(ROUTES)


@topic.get(
    "/health",
    "How the fleet, its queue and its machine are; 503, with the same body, while it cannot serve.",
    role=Role.CLIENT,
    open=True,
    bare=True,
    returns=MonitoringHealthAnswer,
    fails=(503,),
)
async def health(asked: AdminRequest) -> Response:
    system = asked.system
    found = symptoms(system, asked.context.settings, named=False)
    word = word_of(found)
    body = MonitoringHealthAnswer(
        status=word,
        timestamp=iso(system.clock.wall()),
        version=own_version(),
        verdict=verdict_of(system, named=api_key_auth.is_trusted(scope(), system)),
        services=ServicesJson(
            ollama=_backends(system, asked.by.role >= Role.OPERATOR),
            proxy=_proxy(system),
            metrics=await _figures(system, any(each.code == "records_dropped" for each in found)),
        ),
        system=_machine(system.host.latest or NOTHING),
    )
    return responses.typed(body, 200 if word in _WELL else 503)


@topic.get("/health/live", "Whether the process answers.", role=Role.CLIENT, open=True)
async def live(asked: AdminRequest) -> LiveAnswer:
    return LiveAnswer()


@topic.get(
    "/health/ready",
    "Whether the fleet can serve: 503 while no server can be used, and while it shuts down.",
    role=Role.CLIENT,
    open=True,
    bare=True,
    returns=MonitoringReadyAnswer,
    fails=(503,),
)
async def ready(asked: AdminRequest) -> Response:
    if word_of(symptoms(asked.system, asked.context.settings, named=False)) in _WELL:
        return responses.typed(MonitoringReadyAnswer())
    return responses.json({"status": "not_ready"}, 503)


@topic.get(
    "/api/metrics/summary",
    "Figures of finished requests over a sliding window, of the fleet and by model; the machine.",
    role=Role.CLIENT,
    query=(WINDOW,),
)
async def summary(asked: AdminRequest) -> SummaryAnswer:
    window = asked.query["window"]
    if (span := span_of(window)) is None:
        raise BadRequest("window must be like 5m, 6h or 7d, and at most 7d")
    return await summarised(asked.system, window, span)


def _backends(system: System, named: bool) -> OllamaServiceJson:
    """All servers as if they were one: the first that can be used stands for them."""
    states = [cell.state for cell in system.servers.values()]
    usable = [state for state in states if state.usable]
    ill = [state for state in states if state.admin is Admin.ACTIVE and state.health is not Health.HEALTHY]
    shown = next(iter(usable or states), None)
    took = usable[0].last_response if usable else None
    return OllamaServiceJson(
        status="unhealthy" if not usable else "degraded" if ill else "healthy",
        url=shown.spec.url if shown is not None and named else None,
        response_time_ms=None if took is None else round(took * 1000, 1),
        servers=len(states),
        healthy_servers=sum(state.health is Health.HEALTHY for state in states),
    )


def _proxy(system: System) -> ProxyServiceJson:
    queue = system.queries.queue_view(0)
    status: HealthWord = "draining" if system.draining else "healthy"
    if not system.draining and (queue.paused or 0 < queue.max_size <= queue.waiting):
        status = "degraded"
    return ProxyServiceJson(status=status, active_requests=system.in_flight, queue_size=queue.waiting)


async def _figures(system: System, dropped: bool) -> MetricsServiceJson:
    await system.statistics.request_log.catch_up()
    _, sums = system.statistics.totals.window(5 * MINUTE)
    return MetricsServiceJson(
        status="degraded" if dropped else "healthy",
        total_requests=total_requests(system),
        avg_response_time=mean_seconds(sums.latency, sums.count),
    )


def _machine(sample: HostSample) -> MachineJson:
    return MachineJson(
        cpu_percent=tenths(sample.cpu_percent),
        memory_percent=tenths(sample.memory_percent),
        disk_usage_percent=tenths(sample.disk_percent),
    )
