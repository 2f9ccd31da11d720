"""When each shipped alert fires and when it does not.

Several fleets in each case: `bad` must fire, the others must not. A series is `name{labels}` to promtool's short
form of its values, one a minute: `5x20` stays 5, `0+2x20` rises by 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

Series = Mapping[str, str]
_ENDED: Final = "fleet_requests_total"


@dataclass(frozen=True)
class Case:
    """Minutes: at `fires` the alert says `says` about the bad fleet, at `quiet` (if it has a hold) nobody is told."""

    alert: str
    fires: int
    says: str
    bad: Series
    others: tuple[Series, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    quiet: int | None = None


_SECONDS: Final = ("1", "5", "10")


def _histogram(
    name: str, labels: str, minutes: int, low: int, high: int, edges: tuple[str, str, str] = _SECONDS
) -> dict[str, str]:
    """Per minute: `low` observations up to the first edge, `high` between the second and the third."""
    more = f"{labels}," if labels else ""
    counts = dict(zip((*edges, "+Inf"), (low, low, low + high, low + high), strict=True))
    buckets = {f'{name}_bucket{{{more}le="{le}"}}': f"0+{count}x{minutes}" for le, count in counts.items()}
    return {**buckets, f"{name}_count{{{labels}}}": f"0+{low + high}x{minutes}"}


def _servers(minutes: int, slow: int, quick: int = 10, edges: tuple[str, str, str] = _SECONDS) -> dict[str, str]:
    """Three servers: requests per minute of one that is slow, and of each of the others."""
    name, loads = "fleet_server_first_token_seconds", {"a": (quick, 0), "b": (quick, 0), "c": (0, slow)}
    found: dict[str, str] = {}
    for server, (low, high) in loads.items():
        found |= _histogram(name, f'server="{server}"', minutes, low, high, edges)
    return found


def _ended(minutes: int, **outcomes: float) -> dict[str, str]:
    """Requests per minute, by how they ended."""
    return {_outcome(word): f"0+{each:g}x{minutes}" for word, each in outcomes.items()}


def _outcome(word: str) -> str:
    return f'{_ENDED}{{server="a",model="m",outcome="{word}"}}'


_PAIR: Final = '{server="a",model="m"}'
_TTFT: Final = "fleet_first_token_p95_seconds"
_STREAMED: Final = "fleet_time_to_first_token_seconds_count"
CASES: Final = (
    Case(
        "FleetNoServers",
        2,
        "None of the servers of bad:8001 is both healthy and in service.",
        {'fleet_servers{state="ok"}': "0x9", 'fleet_servers{state="down"}': "2x9"},
        (
            {'fleet_servers{state="ok"}': "1x9", 'fleet_servers{state="down"}': "2x9"},
            {'fleet_servers{state="ok"}': "0x9", 'fleet_servers{state="down"}': "0x9"},
        ),
        quiet=0,
    ),
    Case(
        "FleetManyServersDown",
        3,
        "50% of the servers in service of bad:8001 are down.",
        {'fleet_servers{state="ok"}': "5x9", 'fleet_servers{state="down"}': "5x9"},
        (
            {'fleet_servers{state="ok"}': "9x9", 'fleet_servers{state="down"}': "2x9"},
            {'fleet_servers{state="ok"}': "1x9", 'fleet_servers{state="down"}': "1x9"},
        ),
        quiet=1,
    ),
    Case(
        "FleetServerDown",
        4,
        "a answers no probes.",
        {'fleet_server_up{server="a"}': "0x9", 'fleet_server_in_service{server="a"}': "1x9"},
        (
            {'fleet_server_up{server="a"}': "0x9", 'fleet_server_in_service{server="a"}': "0x9"},
            {'fleet_server_up{server="a"}': "1 0 1 0 1 0 1", 'fleet_server_in_service{server="a"}': "1x9"},
        ),
        labels={"server": "a"},
        quiet=2,
    ),
    Case(
        "FleetModelUnservable",
        4,
        "m is asked for, and no server can be given a request for it.",
        {'fleet_model_routable{model="m"}': "0x9", 'fleet_requests_total{model="m",outcome="no_server"}': "0+1x9"},
        (
            {'fleet_model_routable{model="m"}': "1x9", 'fleet_requests_total{model="m",outcome="no_server"}': "0+1x9"},
            {'fleet_model_routable{model="m"}': "0x9", 'fleet_requests_total{model="m",outcome="no_server"}': "7x9"},
        ),
        labels={"model": "m"},
        quiet=1,
    ),
    Case(
        "FleetDrainStuck",
        1,
        "a has been draining for 33m 20s.",
        {'fleet_server_drain_seconds{server="a"}': "2000x9"},
        ({'fleet_server_drain_seconds{server="a"}': "1800x9"},),
        labels={"server": "a"},
    ),
    Case(
        "FleetErrorBudgetBurnFast",
        80,
        "20% of the requests to bad:8001 fail.",
        _ended(90, completed=80, backend_broke=20),
        (
            _ended(90, completed=100, backend_broke=1, model_not_found=50, client_left=50, refused_404=50),
            _ended(90, completed=1, backend_broke=1),
            {**_ended(90, completed=100), _outcome("backend_broke"): "0x75 0+20x9"},
            {**_ended(90, completed=100), _outcome("backend_broke"): "0+20x70 1400x20"},
        ),
        quiet=1,
    ),
    Case(
        "FleetErrorBudgetBurnSlow",
        400,
        "3% of the requests to bad:8001 fail, for half an hour now.",
        _ended(410, completed=97, backend_broke=3),
        (
            _ended(410, completed=99, backend_broke=1),
            _ended(410, completed=0.4, backend_broke=0.1),
            {**_ended(410, completed=100), _outcome("backend_broke"): "0x370 0+10x30"},
            {**_ended(410, completed=100), _outcome("backend_broke"): "0+10x340 3400x60"},
        ),
        quiet=14,
    ),
    Case(
        "FleetTTFTHigh",
        20,
        "The 95th percentile of the first-token time of bad:8001 is 9.75s.",
        {_TTFT: "9.75+0x30", f'{_STREAMED}{{model="m"}}': "0+9x30"},
        (
            {_TTFT: "4.9+0x30", f'{_STREAMED}{{model="m"}}': "0+9x30"},
            {_TTFT: "9.75+0x30", f'{_STREAMED}{{model="m"}}': "0+1x30"},
        ),
        quiet=9,
    ),
    Case(
        "FleetServerSlow",
        30,
        "c takes 10.3 times as long to its first token as the median.",
        _servers(40, slow=10),
        (
            _servers(40, slow=0),
            _servers(40, slow=1),
            _servers(40, slow=10, quick=1),
            _servers(40, slow=10, edges=("0.05", "0.25", "0.5")),
        ),
        labels={"server": "c"},
        quiet=9,
    ),
    Case(
        "FleetStreamStalls",
        30,
        "10% of the streams of bad:8001 fell silent and were ended.",
        {'fleet_streams_total{server="a"}': "0+10x40", 'fleet_stream_stalls_total{server="a"}': "0+1x40"},
        (
            {'fleet_streams_total{server="a"}': "0+1000x40", 'fleet_stream_stalls_total{server="a"}': "0+1x40"},
            {'fleet_streams_total{server="a"}': "0+1x40", 'fleet_stream_stalls_total{server="a"}': "0x15 1x25"},
        ),
        quiet=9,
    ),
    Case(
        "FleetQueueBacklog",
        6,
        "The oldest request in line of bad:8001 has waited 45s.",
        {"fleet_queue_oldest_seconds": "45x9", "fleet_queue_paused": "0x9"},
        (
            {"fleet_queue_oldest_seconds": "45x9", "fleet_queue_paused": "1x9"},
            {"fleet_queue_oldest_seconds": "45 5 45 5 45 5 45 5 45", "fleet_queue_paused": "0x9"},
        ),
        quiet=4,
    ),
    Case(
        "FleetQueueRejecting",
        5,
        "bad:8001 refused 3 requests in 5 minutes because of its queue.",
        {'fleet_queue_rejected_total{reason="full"}': "0 0 3x9"},
        ({'fleet_queue_rejected_total{reason="full"}': "9x9"},),
        quiet=1,
    ),
    Case(
        "FleetQueuePaused",
        16,
        "The queue of bad:8001 is paused: everybody waits.",
        {"fleet_queue_paused": "1x20"},
        ({"fleet_queue_paused": "0x20"},),
        quiet=14,
    ),
    Case(
        "FleetBreakerOpen",
        11,
        "The breaker of m on a is not closed.",
        {f"fleet_breaker_state{_PAIR}": "2 2 1 2 2 1 2 2 1 2 2 1 2"},
        (
            {f"fleet_breaker_state{_PAIR}": "0x20"},
            {f"fleet_breaker_state{_PAIR}": "2 2 2 1 0 2 2 2 1 0 2 2 2"},
        ),
        labels={"server": "a", "model": "m"},
        quiet=9,
    ),
    Case(
        "FleetBreakerFlapping",
        40,
        "The breaker of m on a moved 60 times in 30m.",
        {
            'fleet_breaker_transitions_total{server="a",model="m",to="open"}': "0+1x40",
            'fleet_breaker_transitions_total{server="a",model="m",to="half_open"}': "0+1x40",
        },
        (
            {'fleet_breaker_transitions_total{server="a",model="m",to="open"}': "0x20 4x20"},
            {'fleet_breaker_transitions_total{server="a",model="other",to="open"}': "0+1x40"},
        ),
        labels={"server": "a", "model": "m"},
    ),
    Case(
        "FleetThrash",
        40,
        "m was loaded 30 times in half an hour on a.",
        {f"fleet_model_loads_total{_PAIR}": "0+1x40"},
        (
            {f"fleet_model_loads_total{_PAIR}": "0x20 6x20"},
            {'fleet_model_loads_total{server="a",model="other"}': "0+1x40"},
        ),
        labels={"server": "a", "model": "m"},
    ),
    Case(
        "FleetCPUHigh",
        11,
        "97% of the CPU of bad:8001 is in use.",
        {"ollama_proxy_system_cpu_percent": "97x20"},
        (
            {"ollama_proxy_system_cpu_percent": "95x20"},
            {"ollama_proxy_system_cpu_percent": "99 9 99 9 99 9 99 9 99 9 99 9"},
        ),
        quiet=9,
    ),
    Case(
        "FleetMemoryHigh",
        11,
        "96% of the memory of bad:8001 is in use.",
        {"ollama_proxy_system_memory_percent": "96x20"},
        ({"ollama_proxy_system_memory_percent": "94x20"},),
        quiet=9,
    ),
    Case(
        "FleetDiskFull",
        11,
        "95% of the disk of bad:8001 is in use.",
        {"fleet_host_disk_ratio": "0.95x20"},
        ({"fleet_host_disk_ratio": "0.89x20"},),
        quiet=9,
    ),
    Case(
        "FleetVRAMNearFull",
        16,
        "97% of the memory of GPU 0 of bad:8001 is in use.",
        {'fleet_host_gpu_memory_used_bytes{gpu="0"}': "97x20", 'fleet_host_gpu_memory_total_bytes{gpu="0"}': "100x20"},
        (
            {
                'fleet_host_gpu_memory_used_bytes{gpu="0"}': "90x20",
                'fleet_host_gpu_memory_total_bytes{gpu="0"}': "100x20",
            },
        ),
        labels={"gpu": "0"},
        quiet=14,
    ),
    Case(
        "FleetConfigReloadFailed",
        6,
        "bad:8001 goes on with the last good configuration: its file cannot be used.",
        {"fleet_config_reload_success": "0x20"},
        (
            {"fleet_config_reload_success": "1x20"},
            {"fleet_config_reload_success": "0 0 1 0 0 1 0 0"},
        ),
        quiet=4,
    ),
    Case(
        "FleetStoreDegraded",
        2,
        "The store of bad:8001 cannot be written; bans, drains and totals would not survive a restart.",
        {"fleet_store_up": "0x20"},
        ({"fleet_store_up": "1x20"},),
        quiet=0,
    ),
    Case(
        "FleetHistoryDropped",
        10,
        "10 finished requests of bad:8001 were left out of the statistics.",
        {"fleet_history_dropped_total": "0+1x20"},
        ({"fleet_history_dropped_total": "7x20"},),
    ),
    Case(
        "FleetDashboardSlowClients",
        25,
        "Slow dashboards of bad:8001 missed 100 updates in ten minutes.",
        {"fleet_dashboard_skipped_total": "0+10x30"},
        ({"fleet_dashboard_skipped_total": "0+5x30"},),
        quiet=9,
    ),
)
