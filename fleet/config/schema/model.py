"""The whole configuration: one frozen value that every part of the fleet reads its settings from."""

from __future__ import annotations

from itertools import combinations
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from fleet.config.schema.balancing import (
    CircuitBreakerSection,
    HealthSection,
    LoadBalancerSection,
    PlacementSection,
    QueueSection,
    RetrySection,
)
from fleet.config.schema.json_schema import StandardSchema
from fleet.config.schema.listeners import (
    CompatSection,
    CorsSection,
    LimitsSection,
    LoggingSection,
    MonitoringSection,
    ServerSection,
    TimeoutsSection,
)
from fleet.config.schema.observability import (
    AiStatusSection,
    AlertsSection,
    DashboardSection,
    HostSection,
    MetricsSection,
    OtelSection,
)
from fleet.config.schema.persistence import HistorySection, JobsSection, ReloadSection, StoreSection
from fleet.config.schema.problems import Conflicts
from fleet.config.schema.security import SecuritySection
from fleet.config.schema.servers import MOST_SERVERS, ServerSpec, check_unique
from fleet.config.schema.types import Port, Seconds, Section
from fleet.config.schema.urls import is_loopback, normalise_url
from fleet.security.backend_addresses import refusal

WILDCARDS = frozenset({"0.0.0.0", "::"})


class Config(Section):
    """Every setting of the fleet. Times in seconds, except in `circuit_breaker`."""

    port: Port | None = Field(None, description="Another name of server.orchestrator_port.")
    enable_queue: bool = Field(True, description="Whether requests may wait; else a busy fleet refuses at once.")
    enable_circuit_breaker: bool = Field(True, description="Whether failing pairs of model and server are left alone.")
    drain_timeout: Seconds = Field(30.0, description="How long running requests may go on at shutdown, in seconds.")
    server: ServerSection = Field(ServerSection(), description="Where the fleet listens.")
    servers: tuple[ServerSpec, ...] = Field((), max_length=MOST_SERVERS, description="The Ollama servers.")
    queue: QueueSection = Field(QueueSection(), description="The waiting lines.")
    load_balancer: LoadBalancerSection = Field(LoadBalancerSection(), description="Which server gets a request.")
    health: HealthSection = Field(HealthSection(), description="How servers are watched.")
    timeouts: TimeoutsSection = Field(TimeoutsSection(), description="Deadlines of one request.")
    retry: RetrySection = Field(RetrySection(), description="When another server is tried.")
    circuit_breaker: CircuitBreakerSection = Field(CircuitBreakerSection(), description="Breakers, in milliseconds.")
    limits: LimitsSection = Field(LimitsSection(), description="How much a client may send.")
    compat: CompatSection = Field(CompatSection(), description="How closely to follow Ollama.")
    cors: CorsSection = Field(CorsSection(), description="Which web pages may call.")
    placement: PlacementSection = Field(PlacementSection(), description="Where models go.")
    jobs: JobsSection = Field(JobsSection(), description="Background work on models.")
    store: StoreSection = Field(StoreSection(), description="What survives a restart.")
    history: HistorySection = Field(HistorySection(), description="What is kept of finished requests.")
    reload: ReloadSection = Field(ReloadSection(), description="How this file is followed.")
    monitoring: MonitoringSection = Field(MonitoringSection(), description="Fleet-wide caps.")
    security: SecuritySection = Field(SecuritySection(), description="Who may use the fleet.")
    metrics: MetricsSection = Field(MetricsSection(), description="What Prometheus reads.")
    host: HostSection = Field(HostSection(), description="How the machine under the fleet is watched.")
    alerts: AlertsSection = Field(AlertsSection(), description="When the fleet complains.")
    dashboard: DashboardSection = Field(DashboardSection(), description="The live feed behind the dashboard.")
    ai_status: AiStatusSection = Field(AiStatusSection(), description="A text on the fleet's state, by a model.")
    otel: OtelSection = Field(OtelSection(), description="Traces, by OpenTelemetry.")
    logging: LoggingSection = Field(LoggingSection(), description="What is logged.")

    @field_validator("servers")
    @classmethod
    def _unique(cls, servers: tuple[ServerSpec, ...]) -> tuple[ServerSpec, ...]:
        check_unique(servers)
        return servers

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        found = [*self._one_port(), *conflicts(self)]
        if found:
            raise Conflicts(found)
        return self

    def _one_port(self) -> list[tuple[str, str]]:
        """Makes both names of the orchestrator's port say the same, so that a dump loads again."""
        other = self.server.orchestrator_port
        if self.port is None or self.port == other:
            object.__setattr__(self, "port", other)
        elif "orchestrator_port" in self.server.model_fields_set:
            return [("port", f"is {self.port}, but server.orchestrator_port, its other name, is {other}: keep one")]
        else:
            same = self.server.model_copy(update={"orchestrator_port": self.port})
            object.__setattr__(self, "server", same)
        return []

    @property
    def orchestrator_port(self) -> int:
        """Port of the orchestrator's API, whichever of its two names was used."""
        return self.server.orchestrator_port

    @property
    def total_timeout(self) -> float:
        """Deadline of a whole request, in seconds: `server.request_timeout` if set, else `timeouts.total`."""
        return self.timeouts.total if self.server.request_timeout is None else self.server.request_timeout

    @property
    def queue_size(self) -> int:
        """Requests that may wait at one time: `monitoring.max_queue_size` if set, else `queue.max_size`."""
        return self.queue.max_size if self.monitoring.max_queue_size is None else self.monitoring.max_queue_size


def unsafe_listener(config: Config) -> str | None:
    """Why this configuration must not start, in one sentence, or None: an open listener without keys."""
    security = config.security
    if is_loopback(config.server.host) or security.allow_unauthenticated or security.keys_required:
        return None
    return (
        f"server.host is {config.server.host}, so other machines could use the fleet without a key: "
        "set security.api_keys, keys or keys_file (and not security.require_api_key: false), "
        "or security.allow_unauthenticated, or listen on 127.0.0.1"
    )


def checks_hosts(config: Config) -> bool:
    """Whether the Host of a request matters.

    A page of a foreign name that was made to point at this machine (DNS rebinding) is, to a browser, of one origin with
    the fleet. Only its Host gives it away. With keys there is nothing to gain by it, and a listener that is open to a
    network on purpose is known there by any name.
    """
    security = config.security
    return is_loopback(config.server.host) and not security.keys_required and "*" not in security.allowed_hosts


def schema(*, by_alias: bool = True) -> dict[str, Any]:
    """The JSON schema of a configuration, in camelCase as the admin API shows it, or in the file's snake_case."""
    return Config.model_json_schema(by_alias=by_alias, schema_generator=StandardSchema)


def conflicts(config: Config) -> list[tuple[str, str]]:
    """What does not go together, as (path, message) each; also for a configuration that was put together from two."""
    own = own_places(config)
    looping = [(index, _loop(spec, own)) for index, spec in enumerate(config.servers)]
    # servers that point where no server may be
    refused = [(index, refusal(spec.url, config.security.backends)) for index, spec in enumerate(config.servers)]
    found = [*_clashes(config), *((f"servers.{index}.url", why) for index, why in [*looping, *refused] if why)]
    builder = config.placement.builder
    if builder is not None and builder not in {spec.id for spec in config.servers}:
        found.append(("placement.builder", f"names the server {builder}, which is not in servers"))
    return found


def listening(config: Config) -> dict[str, int]:
    """The ports we listen on, by their keys; 0 is any free one."""
    names = ("proxy_port", "orchestrator_port", "dashboard_port", "metrics_port")
    return {f"server.{name}": getattr(config.server, name) for name in names}


def _clashes(config: Config) -> list[tuple[str, str]]:
    ports = listening(config)
    return [
        (name, f"is {port}, and so is {other}: each needs its own")
        for (name, port), (other, taken) in combinations(ports.items(), 2)
        if port and port == taken
    ]


def own_places(config: Config) -> frozenset[str]:
    """The normal URLs under which the fleet itself listens, as far as its ports are known."""
    hosts = {config.server.host}
    if config.server.host in WILDCARDS or is_loopback(config.server.host):
        hosts.add("localhost")
    ports = set(listening(config).values()) - {0}
    places = [f"{f'[{host}]' if ':' in host else host}:{port}" for host in hosts for port in ports]
    return frozenset(normalise_url(f"{scheme}://{place}") for scheme in ("http", "https") for place in places)


def misplaced(spec: ServerSpec, config: Config) -> str:
    """Why no server of this configuration may be where `spec` is, as the end of a sentence; empty if it may."""
    return _loop(spec, own_places(config)) or refusal(spec.url, config.security.backends) or ""


def _loop(spec: ServerSpec, own: frozenset[str]) -> str:
    """A server that is the fleet itself would send every request round in circles until all slots are gone."""
    what = "is an address the fleet itself listens on: change one of the ports"
    return what if normalise_url(spec.url) in own else ""
