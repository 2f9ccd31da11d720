"""Every metric that the fleet exposes: name, type, labels, meaning. One table for the exposition, the docs, the rules.

The `ollama_proxy_*` names are the monitoring stack's reference, kept letter by letter; ours are in base units. Labels
are bounded: `server` by the configuration, `model` by what servers list (`metrics.models`, `metrics.pairs`), everything
else by fixed words. Names that nobody serves are `other`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram", "info"]

OTHER: Final = "other"
"""The label of what has no series of its own."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One family. `name` as Prometheus shows it: counters with `_total`, infos with `_info`."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


def _metric(kind: Kind, name: str, labels: str, text: str) -> Metric:
    return Metric(name, kind, tuple(labels.split()), text)


DURATION_BUCKETS: Final = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
FIRST_TOKEN_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SERVER_FIRST_TOKEN_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Fewer: there are more servers than models, and they are most of a large fleet's lines."""
INTER_TOKEN_BUCKETS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
WAIT_BUCKETS: Final = (0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)
LOAD_BUCKETS: Final = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

METRICS: Final = (
    # ---- the monitoring stack's reference
    _metric(
        "counter", "ollama_proxy_requests_total", "method endpoint model status", "Total number of requests processed."
    ),
    _metric(
        "histogram",
        "ollama_proxy_request_duration_seconds",
        "method endpoint model",
        "Request duration in seconds, from arrival to end.",
    ),
    _metric("gauge", "ollama_proxy_active_requests", "", "Current number of active requests."),
    _metric("gauge", "ollama_proxy_queue_size", "", "Current queue size."),
    _metric("gauge", "ollama_proxy_tokens_per_second", "model", "Tokens generated per second, over the last minute."),
    _metric("gauge", "ollama_proxy_system_cpu_percent", "", "CPU usage percentage of the fleet's machine."),
    _metric("gauge", "ollama_proxy_system_memory_percent", "", "Memory usage percentage of the fleet's machine."),
    _metric(
        "gauge", "ollama_proxy_system_memory_bytes", "type", "Memory of the fleet's machine in bytes: available, used."
    ),
    _metric(
        "gauge",
        "ollama_proxy_gpu_utilization_percent",
        "",
        "GPU utilization percentage, the mean of this machine's GPUs.",
    ),
    _metric(
        "gauge", "ollama_proxy_power_watts", "component", "Power consumption of the fleet's machine in watts: cpu, gpu."
    ),
    # ---- requests
    _metric("counter", "fleet_requests_total", "server model outcome", "Finished requests; no server: not served."),
    _metric("counter", "fleet_attempts_total", "server outcome", "Attempts, a request may have several."),
    _metric("counter", "fleet_failovers_total", "cause", "Attempts that were followed by another on another server."),
    _metric("counter", "fleet_unserved_total", "model reason", "Requests that no server was found for."),
    _metric("counter", "fleet_prompt_tokens_total", "server model", "Tokens of prompts."),
    _metric("counter", "fleet_output_tokens_total", "server model", "Tokens generated."),
    _metric("counter", "fleet_wasted_tokens_total", "model", "Tokens generated for clients that left, about."),
    _metric("histogram", "fleet_time_to_first_token_seconds", "model", "From arrival to the first token of a stream."),
    _metric(
        "histogram", "fleet_server_first_token_seconds", "server", "From the grant to the first token of a stream."
    ),
    _metric("histogram", "fleet_inter_token_seconds", "model", "Mean time between two tokens of a stream."),
    _metric("counter", "fleet_streams_total", "server", "Streams that began."),
    _metric("counter", "fleet_stream_stalls_total", "server", "Streams that were ended because nothing came any more."),
    _metric("gauge", "fleet_in_flight", "", "Requests that hold a slot: the open leases."),
    _metric("gauge", "fleet_open_requests", "", "Requests that wait or hold a slot."),
    _metric("counter", "fleet_rate_limited_total", "listener", "Requests refused by a rate limit."),
    # ---- the queue
    _metric("gauge", "fleet_queue_waiting", "", "Requests that wait for a slot."),
    _metric("gauge", "fleet_queue_capacity", "", "Requests that may wait."),
    _metric("gauge", "fleet_queue_oldest_seconds", "", "For how long the oldest of them has waited; 0: nobody waits."),
    _metric("gauge", "fleet_queue_paused", "", "1 while the queue is paused."),
    _metric("counter", "fleet_queue_rejected_total", "reason", "Requests refused by the queue: full, timeout."),
    _metric("histogram", "fleet_queue_wait_seconds", "model", "Wait for a slot, over all attempts."),
    # ---- servers
    _metric("gauge", "fleet_servers", "state", "Servers by state: ok, down, unknown, draining, drained, maintenance."),
    _metric("gauge", "fleet_server_up", "server", "1 if the server answers probes."),
    _metric("gauge", "fleet_server_in_service", "server", "1 unless the operator took it out: drain, maintenance."),
    _metric("gauge", "fleet_server_drain_seconds", "server", "For how long it has been draining; only while it does."),
    _metric("gauge", "fleet_server_slots", "server", "Requests it may get at one time."),
    _metric("gauge", "fleet_server_in_flight", "server", "Requests it works on."),
    _metric("gauge", "fleet_server_probe_seconds", "server", "Duration of the last probe that was answered."),
    _metric("gauge", "fleet_server_models", "server", "Models installed."),
    _metric("gauge", "fleet_server_resident_models", "server", "Models in memory."),
    _metric("gauge", "fleet_server_vram_used_bytes", "server", "Video memory that its models take."),
    # ---- models
    _metric("gauge", "fleet_model_installed", "model", "Servers that have it."),
    _metric("gauge", "fleet_model_resident", "model", "Servers that have it in memory."),
    _metric("gauge", "fleet_model_routable", "model", "Servers that could be given a request for it."),
    _metric("counter", "fleet_model_loads_total", "server model", "Times it came into memory."),
    _metric("counter", "fleet_model_reloads_total", "server model", "Loads of a model that was in memory already."),
    _metric("counter", "fleet_model_evictions_total", "server model", "Times it went out of memory."),
    _metric("histogram", "fleet_model_load_seconds", "model", "Load times that requests waited for."),
    # ---- breakers
    _metric("gauge", "fleet_breakers", "state", "Breakers that remember something: closed, half_open, open."),
    _metric("gauge", "fleet_breaker_state", "server model", "0 closed, 1 half open, 2 open; absent: closed."),
    _metric("counter", "fleet_breaker_transitions_total", "server model to", "Changes of state."),
    # ---- the fleet itself
    _metric("info", "fleet_build_info", "version python", "What runs."),
    _metric("gauge", "fleet_start_time_seconds", "", "When it started, epoch seconds."),
    _metric("gauge", "fleet_draining", "", "1 while it shuts down."),
    _metric("gauge", "fleet_config_reload_success", "", "1 if the configuration file can be used."),
    _metric("counter", "fleet_config_reloads_total", "result", "Times the configuration was read anew: ok, failed."),
    _metric("gauge", "fleet_config_reload_timestamp_seconds", "", "When that succeeded last, epoch seconds."),
    _metric("counter", "fleet_history_dropped_total", "", "Finished requests that were left out of the statistics."),
    _metric("gauge", "fleet_store_up", "", "1 if what changes is kept on disk; absent: nothing shall be."),
    _metric("counter", "fleet_store_dropped_total", "", "Lines that the store had no room for."),
    _metric("gauge", "fleet_verdict", "level", "1 for the present verdict: ok, planned, unknown, warn, crit."),
    _metric("gauge", "fleet_alerts_firing", "rule severity", "Alerts that fire."),
    _metric("gauge", "fleet_dashboard_clients", "transport", "Live clients: polling, websocket, plain."),
    _metric("counter", "fleet_dashboard_skipped_total", "", "Updates that a slow live client did not get."),
    # ---- the machine
    _metric("gauge", "fleet_host_disk_ratio", "", "Disk in use."),
    _metric("gauge", "fleet_host_gpu_utilization_ratio", "gpu", "GPU in use."),
    _metric("gauge", "fleet_host_gpu_memory_used_bytes", "gpu", "Video memory in use."),
    _metric("gauge", "fleet_host_gpu_memory_total_bytes", "gpu", "Video memory there is."),
    _metric("gauge", "fleet_host_gpu_temperature_celsius", "gpu", "Temperature."),
)
"""In the order in which they are shown."""

BUCKETS: Final = {
    "ollama_proxy_request_duration_seconds": DURATION_BUCKETS,
    "fleet_time_to_first_token_seconds": FIRST_TOKEN_BUCKETS,
    "fleet_server_first_token_seconds": SERVER_FIRST_TOKEN_BUCKETS,
    "fleet_inter_token_seconds": INTER_TOKEN_BUCKETS,
    "fleet_queue_wait_seconds": WAIT_BUCKETS,
    "fleet_model_load_seconds": LOAD_BUCKETS,
}
"""The upper bounds of every histogram, but for the last, which is infinite."""

BY_NAME: Final = {metric.name: metric for metric in METRICS}
