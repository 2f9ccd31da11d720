"""All metrics of a running fleet at one moment, in one turn of the event loop, so that they agree with one another.

The cost is a few microseconds per server, and a tenth of one per pair of server and model (see `ModelCounts`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from actors.observability.metrics_feed import STATE_WORDS
from fleet.breakers.gate import GateState
from fleet.common.ids import ModelName, ServerId
from fleet.observability.health_summary.summary import Level
from fleet.observability.metrics.snapshot import STATES, Exposed, Family, Labels, Point, count
from fleet.scheduling import server_words
from fleet.scheduling.server_state import Admin, Health, ServerState

if TYPE_CHECKING:
    from actors.breakers.registry import BreakerRegistry
    from actors.observability.alert_monitor import Monitor
    from actors.observability.host.sampler import HostWatch
    from actors.observability.watched_fleet import WatchedFleet
    from actors.state.servers import ServerCell
    from actors.storage.history.queries import History
    from fleet.observability.host_sample import HostSample


class Audience(Protocol):
    """Who watches the dashboard."""

    @property
    def clients(self) -> Mapping[str, int]:
        """How many, by transport."""
        ...

    @property
    def skipped(self) -> int:
        """Updates that slow ones were spared."""
        ...


class MetricSources(Protocol):
    """The parts of a running fleet that have figures (the handle on it)."""

    @property
    def watched_fleet(self) -> WatchedFleet: ...

    @property
    def breakers(self) -> BreakerRegistry: ...

    @property
    def host(self) -> HostWatch: ...

    @property
    def monitor(self) -> Monitor: ...

    @property
    def feed(self) -> Audience: ...

    @property
    def history(self) -> History | None: ...


def snapshot(sources: MetricSources, version: str, python: str, counts: ModelCounts | None = None) -> list[Family]:
    """Every metric of the table, in its order. Synchronous: what is in flight equals the open leases.

    `counts` are of this moment or the one before; they are made here if they are not given.
    """
    exposed = Exposed()
    count(exposed, sources.watched_fleet.statistics.metrics)
    cells = list(sources.watched_fleet.servers.values())
    _requests(exposed, sources)
    _queue(exposed, sources)
    doubted = sources.watched_fleet.scheduler.expectations.estimates.doubted
    _servers(exposed, cells, sources.watched_fleet.clock.now(), doubted)
    _runners(exposed, sources, cells)
    _models(exposed, sources, counts or ModelCounts.of(cell.state for cell in cells))
    _breakers(exposed, sources)
    _fleet(exposed, sources)
    _watchers(exposed, sources)
    exposed.points("fleet_build_info", [((version, python), 1)])
    if (sample := sources.host.latest) is not None:
        _host(exposed, sample)
    return exposed.in_order()


def _requests(exposed: Exposed, sources: MetricSources) -> None:
    now = sources.watched_fleet.clock.now()
    pace = [
        ((label,), model.pace.per_second(now))
        for label, model in sources.watched_fleet.statistics.metrics.models.items()
    ]
    exposed.points("ollama_proxy_tokens_per_second", pace)
    exposed.value("ollama_proxy_active_requests", sources.watched_fleet.servers.in_flight)
    exposed.value("fleet_in_flight", sources.watched_fleet.servers.in_flight)
    exposed.value("fleet_open_requests", sources.watched_fleet.open_requests)
    if (first := sources.monitor.traffic.first).count:
        exposed.value("fleet_first_token_p50_seconds", first.p50)
        exposed.value("fleet_first_token_p95_seconds", first.p95)


def _queue(exposed: Exposed, sources: MetricSources) -> None:
    fleet = sources.watched_fleet
    waiting = [ticket.enqueued for ticket in fleet.scheduler.tickets.values() if ticket.open]
    exposed.value("ollama_proxy_queue_size", len(waiting))
    exposed.value("fleet_queue_waiting", len(waiting))
    exposed.value("fleet_queue_capacity", fleet.config.current.queue_size)
    exposed.value("fleet_queue_oldest_seconds", fleet.clock.now() - min(waiting) if waiting else 0.0)
    exposed.value("fleet_queue_paused", fleet.scheduler.memory.paused)


# ---- servers and models


def _servers(
    exposed: Exposed, cells: Iterable[ServerCell], now: float, doubted: Iterable[tuple[ServerId, ModelName]]
) -> None:
    named = [((str(cell.state.id),), cell, cell.state) for cell in cells]
    words = Counter(server_words.word_of(state, server_words.METRICS) for _, _, state in named)
    exposed.points("fleet_servers", [((word,), words[word]) for word in server_words.all_of(server_words.METRICS)])
    exposed.points("fleet_server_up", [(key, state.health is Health.HEALTHY) for key, _, state in named])
    exposed.points("fleet_server_in_service", [(key, state.admin is Admin.ACTIVE) for key, _, state in named])
    draining = [(key, now - state.admin_since) for key, _, state in named if state.admin is Admin.DRAINING]
    exposed.points("fleet_server_drain_seconds", draining)
    exposed.points("fleet_server_slots", [(key, int(state.capacity)) for key, _, state in named])
    exposed.points("fleet_server_in_flight", [(key, len(cell.leases)) for key, cell, _ in named])
    probed = [(key, state.last_response) for key, _, state in named if state.last_response is not None]
    exposed.points("fleet_server_probe_seconds", probed)
    exposed.points("fleet_server_models", [(key, len(state.models)) for key, _, state in named])
    exposed.points("fleet_server_resident_models", [(key, len(state.resident)) for key, _, state in named])
    exposed.points("fleet_server_vram_used_bytes", [(key, state.vram) for key, _, state in named])
    unreliable = Counter(server for server, _ in doubted)
    exposed.points("fleet_prediction_unreliable_models", [(key, unreliable[state.id]) for key, _, state in named])


def _runners(exposed: Exposed, sources: MetricSources, cells: Iterable[ServerCell]) -> None:
    """What was learned of those in memory; only so many pairs are shown."""
    fleet = sources.watched_fleet
    learned = (
        ((str(cell.state.id), str(model)), slots)
        for cell in cells
        for model, slots in fleet.scheduler.expectations.learned_slots(cell.state).items()
    )
    exposed.points("fleet_runner_slots", list(islice(learned, fleet.config.current.metrics.pairs)))


@dataclass(slots=True)
class ModelCounts:
    """On how many servers each model is installed, resident and routable. Of a thousand servers not in one turn."""

    installed: Counter[ModelName] = field(default_factory=Counter)
    resident: Counter[ModelName] = field(default_factory=Counter)
    routable: Counter[ModelName] = field(default_factory=Counter)

    def add(self, state: ServerState) -> None:
        """Count those of one server."""
        models = state.models
        self.installed.update(models.keys())
        self.resident.update(state.resident.keys())
        if state.usable:  # only the exceptions are looked at one by one: there are few
            shut = {model for model, gate in state.gates.items() if gate.state is GateState.SHUT}
            self.routable.update(models.keys())
            self.routable.subtract(model for model in shut | (state.barred - state.cooling) if model in models)

    @classmethod
    def of(cls, states: Iterable[ServerState]) -> ModelCounts:
        """Those of all, in this turn."""
        counts = cls()
        for state in states:
            counts.add(state)
        return counts


def _models(exposed: Exposed, sources: MetricSources, counts: ModelCounts) -> None:
    shown = _shown(sources, counts.installed)
    for name in ("installed", "resident", "routable"):
        counted: Counter[ModelName] = getattr(counts, name)
        exposed.points(f"fleet_model_{name}", [((model,), counted[model]) for model in shown])


def _shown(sources: MetricSources, installed: Counter[ModelName]) -> list[ModelName]:
    """The models with gauges: those that are asked for come first, then by how many servers have them."""
    meter, most = sources.watched_fleet.statistics.metrics, sources.watched_fleet.config.current.metrics.models
    asked = [ModelName(model) for model in meter.models if model in installed]
    if len(installed) <= most:
        return list(filter(None, installed))  # what has an impossible name is no model
    others = sorted(
        (model for model in installed if model and model not in meter.models), key=lambda m: (-installed[m], m)
    )
    return [*asked, *others][:most]


def _breakers(exposed: Exposed, sources: MetricSources) -> None:
    """The open ones first: only so many pairs are shown."""
    numbers = {state: STATES.index(word) for state, word in STATE_WORDS.items()}
    found = [((str(pair.server), str(pair.model)), numbers[state]) for pair, state, _ in sources.breakers.states()]
    totals = Counter(number for _, number in found)
    exposed.points("fleet_breakers", [((word,), totals[number]) for number, word in enumerate(STATES)])
    found.sort(key=lambda each: -each[1])
    exposed.points("fleet_breaker_state", found[: sources.watched_fleet.config.current.metrics.pairs])


# ---- the fleet itself, and the machine


def _fleet(exposed: Exposed, sources: MetricSources) -> None:
    fleet, reloads = sources.watched_fleet, sources.watched_fleet.config.reloads
    began = fleet.statistics.metrics.began  # not worked out anew each time, or it would seem to change
    exposed.value("fleet_start_time_seconds", began)
    exposed.value("fleet_draining", fleet.servers.draining)
    exposed.value("fleet_config_reload_success", reloads.ok)
    exposed.points("fleet_config_reloads_total", [(("ok",), reloads.succeeded), (("failed",), reloads.failed)])
    exposed.value("fleet_config_reload_timestamp_seconds", began if reloads.at is None else reloads.at)
    exposed.value("fleet_history_dropped_total", fleet.statistics.request_log.dropped)
    exposed.value("fleet_history_failures_total", fleet.statistics.request_log.failures)
    store = fleet.journal.standing.state
    exposed.value("fleet_store_up", None if store == "off" else store == "ok")
    exposed.value("fleet_store_dropped_total", fleet.journal.dropped_lines + fleet.journal.dropped_changes)
    if sources.history is not None:
        history = sources.history.recorder
        exposed.value("fleet_request_history_up", history.standing.state == "ok")
        exposed.value("fleet_request_history_rows_total", history.counts.written)
        exposed.value("fleet_request_history_dropped_total", history.counts.dropped)


def _watchers(exposed: Exposed, sources: MetricSources) -> None:
    level = sources.monitor.verdict.level
    exposed.points("fleet_verdict", [((each.value,), each is level) for each in Level])
    firing = Counter((alert.rule, alert.severity) for alert in sources.monitor.alerts.firing)
    exposed.points("fleet_alerts_firing", list(firing.items()))
    exposed.points("fleet_dashboard_clients", [((name,), number) for name, number in sources.feed.clients.items()])
    exposed.value("fleet_dashboard_skipped_total", sources.feed.skipped)


def _host(exposed: Exposed, sample: HostSample) -> None:
    exposed.value("ollama_proxy_system_cpu_percent", sample.cpu_percent)
    exposed.value("ollama_proxy_system_memory_percent", sample.memory_percent)
    memory = {"available": sample.memory_available, "used": sample.memory_used}
    exposed.points("ollama_proxy_system_memory_bytes", _told(((name,), size) for name, size in memory.items()))
    exposed.value("ollama_proxy_gpu_utilization_percent", sample.gpu_percent)
    exposed.points("ollama_proxy_power_watts", [((part,), watts) for part, watts in sample.power.items()])
    exposed.value("fleet_host_disk_ratio", _share(sample.disk_percent))
    gpus = [((gpu.id,), gpu) for gpu in sample.gpus]
    exposed.points("fleet_host_gpu_utilization_ratio", _told((key, _share(gpu.percent)) for key, gpu in gpus))
    exposed.points("fleet_host_gpu_memory_used_bytes", _told((key, gpu.memory_used) for key, gpu in gpus))
    exposed.points("fleet_host_gpu_memory_total_bytes", _told((key, gpu.memory_total) for key, gpu in gpus))
    exposed.points("fleet_host_gpu_temperature_celsius", _told((key, gpu.temperature) for key, gpu in gpus))


def _share(percent: float | None) -> float | None:
    return None if percent is None else percent / 100


def _told(points: Iterable[tuple[Labels, float | None]]) -> list[Point]:
    """Those that are known: what a machine does not tell has no series."""
    return [(key, value) for key, value in points if value is not None]
