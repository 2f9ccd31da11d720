"""The conditions of the rules as PromQL, with the operator's thresholds. Only metrics of `metrics.definitions`.

Gauges are looked at over two minutes, so that one failed scrape ends nothing. Nothing but the labels that are named is
summed away: several fleets in one Prometheus are judged one by one.
"""

from __future__ import annotations

from typing import Final

from fleet.breakers.failure_classes import HARMLESS_PATTERN
from fleet.config.schema.observability import AlertsSection

BURN_FAST: Final = 14.4
BURN_SLOW: Final = 6.0
"""How many times faster than allowed errors come; `alerts.error_rate` is what the fast one means."""
MANY_ENDED: Final = 5
"""Times `alerts.error_requests` that must have ended well before a fault counts as gone."""
MANY: Final = 0.3
"""Share of the servers in service that are many."""
LEAST_DOWN: Final = 2
LEAST_STALLS: Final = 3
LEAST_STREAMS: Final = 10
"""Streams in 5 minutes before their first-token time says anything."""
FEWEST_SERVERS: Final = 3
"""Servers with enough requests before one of them is slower than the others."""
LEAST_SLOW: Final = 0.5
"""Seconds; whoever has the first token sooner is not slow, whatever the others do."""
SLOW_SHARE: Final = BURN_SLOW / BURN_FAST
SKIPPED: Final = 60
"""Updates in 10 minutes that slow dashboards did not get."""


_NAMED: Final = 'model!="other"'
"""Not what has no series of its own: that is of many models together."""


def number(value: float) -> str:
    """As PromQL reads it, without needless digits."""
    return f"{value:.10g}"


def fleet_down(alerts: AlertsSection) -> str:
    """Nobody answers scrapes."""
    return 'absent(up{job="fleet"} == 1)'


def no_servers(alerts: AlertsSection) -> str:
    """There are servers, and none is fit for work."""
    usable = 'sum without (state) (max_over_time(fleet_servers{state="ok"}[2m])) == 0'
    return f"{usable} and sum without (state) (fleet_servers) > 0"


def many_down(alerts: AlertsSection) -> str:
    """The share of those in service that are down."""
    down = 'sum without (state) (min_over_time(fleet_servers{state="down"}[2m]))'
    serving = 'sum without (state) (max_over_time(fleet_servers{state=~"ok|down|unknown"}[2m]))'
    return f"{down} / {serving} > {number(MANY)} and {down} >= {LEAST_DOWN}"


def server_down(alerts: AlertsSection) -> str:
    """It answers no probes, and nobody took it out of service."""
    return "max_over_time(fleet_server_up[2m]) == 0 and fleet_server_in_service == 1"


def model_unservable(alerts: AlertsSection) -> str:
    """Asked for lately, and no server could be given a request for it."""
    asked = 'sum without (server, outcome) (increase(fleet_requests_total{model!="other"}[5m])) > 0'
    return f"max_over_time(fleet_model_routable[2m]) == 0 and {asked}"


def _failing(window: str) -> str:
    failed = (
        f'sum without (server, model, outcome) (rate(fleet_requests_total{{outcome!~"{HARMLESS_PATTERN}"}}[{window}]))'
    )
    return f"{failed} / {_requests('rate', window)}"


def _requests(function: str, window: str) -> str:
    return f"sum without (server, model, outcome) ({function}(fleet_requests_total[{window}]))"


def _is_over(window: str, share: float, least: int) -> str:
    """So many requests have ended in a younger window, and so few of them badly, that the fault must be gone."""
    few = f"{_failing(window)} <= {number(share / 2)}"
    return f"({few} and {_requests('increase', window)} >= {MANY_ENDED * least})"


def burn_fast(alerts: AlertsSection) -> str:
    """Too many errors in the last minutes, and not only there; until the fault is gone."""
    limit, least = alerts.error_rate, alerts.error_requests
    enough = f"{_requests('increase', '5m')} >= {least}"
    burns = f"{_failing('5m')} > {number(limit)} and {_failing('1h')} > {number(limit)} and {enough}"
    return f"{burns} unless {_is_over('2m', limit, least)}"


def burn_slow(alerts: AlertsSection) -> str:
    """The same, slower, for longer."""
    limit, least = alerts.error_rate * SLOW_SHARE, alerts.error_requests
    enough = f"{_requests('increase', '30m')} >= {least}"
    burns = f"{_failing('30m')} > {number(limit)} and {_failing('6h')} > {number(limit)} and {enough}"
    return f"{burns} unless {_is_over('5m', limit, least)}"


def first_token_high(alerts: AlertsSection) -> str:
    """Of the whole fleet, over five minutes with traffic."""
    traffic = f"sum without (model) (increase(fleet_time_to_first_token_seconds_count[5m])) >= {LEAST_STREAMS}"
    return f"fleet_first_token_p95_seconds > {number(alerts.first_token)} and {traffic}"


def server_slow(alerts: AlertsSection) -> str:
    """One server's 95th percentile against the median of all servers' that had enough requests."""
    family = "fleet_server_first_token_seconds"
    busy = f"increase({family}_count[15m]) >= {alerts.slow_requests}"
    high = f"(histogram_quantile(0.95, rate({family}_bucket[15m])) and {busy})"
    median = f"(quantile without (server) (0.5, {high}) and count without (server) ({high}) >= {FEWEST_SERVERS})"
    ratio = f"({high} > {number(LEAST_SLOW)}) / ignoring (server) group_left () {median}"
    return f"{ratio} > {number(alerts.slow_ratio)}"


def queue_backlog(alerts: AlertsSection) -> str:
    """Somebody waits for long, and not because an operator wants it."""
    oldest = f"min_over_time(fleet_queue_oldest_seconds[2m]) > {number(alerts.queue_wait)}"
    return f"{oldest} unless fleet_queue_paused == 1"


def queue_rejecting(alerts: AlertsSection) -> str:
    """Requests are refused because the queue has no room or no time for them."""
    return "sum without (reason) (increase(fleet_queue_rejected_total[5m])) > 0"


def queue_paused(alerts: AlertsSection) -> str:
    """Everybody waits."""
    return "min_over_time(fleet_queue_paused[2m]) == 1"


def breaker_open(alerts: AlertsSection) -> str:
    """Open or half open: a breaker that tries in vain is both by turns."""
    return "min_over_time(fleet_breaker_state[2m]) > 0"


def breaker_flapping(alerts: AlertsSection) -> str:
    """It cannot make up its mind."""
    return f"sum without (to) (increase(fleet_breaker_transitions_total{{{_NAMED}}}[30m])) > {alerts.breaker_flaps}"


def stream_stalls(alerts: AlertsSection) -> str:
    """Stalls per stream, if there are more than one or two."""
    stalls = "sum without (server) (increase(fleet_stream_stalls_total[15m]))"
    streams = "sum without (server) (increase(fleet_streams_total[15m]))"
    return f"{stalls} / {streams} > {number(alerts.stall_share)} and {stalls} >= {LEAST_STALLS}"


def thrash(alerts: AlertsSection) -> str:
    """One model comes and goes on one server."""
    return f"increase(fleet_model_loads_total{{{_NAMED}}}[30m]) > {alerts.thrash_loads}"


def cpu(alerts: AlertsSection) -> str:
    """Of the fleet's own machine."""
    return f"min_over_time(ollama_proxy_system_cpu_percent[2m]) / 100 > {number(alerts.cpu)}"


def memory(alerts: AlertsSection) -> str:
    """Of the fleet's own machine."""
    return f"min_over_time(ollama_proxy_system_memory_percent[2m]) / 100 > {number(alerts.memory)}"


def disk(alerts: AlertsSection) -> str:
    """Of the fleet's own machine."""
    return f"min_over_time(fleet_host_disk_ratio[2m]) > {number(alerts.disk)}"


def vram(alerts: AlertsSection) -> str:
    """Of one GPU of the fleet's own machine."""
    used = "min_over_time(fleet_host_gpu_memory_used_bytes[2m])"
    return f"{used} / fleet_host_gpu_memory_total_bytes > {number(alerts.vram)}"


def drain_stuck(alerts: AlertsSection) -> str:
    """Requests do not end."""
    return f"fleet_server_drain_seconds > {number(alerts.drain)}"


def reload_failed(alerts: AlertsSection) -> str:
    """The file says something that cannot be used."""
    return "max_over_time(fleet_config_reload_success[5m]) == 0"


def store_degraded(alerts: AlertsSection) -> str:
    """What changes is not on disk."""
    return "max_over_time(fleet_store_up[2m]) == 0"


def history_dropped(alerts: AlertsSection) -> str:
    """The statistics lack something."""
    return "increase(fleet_history_dropped_total[10m]) > 0"


def slow_clients(alerts: AlertsSection) -> str:
    """Live dashboards that do not keep up."""
    return f"increase(fleet_dashboard_skipped_total[10m]) > {SKIPPED}"
