"""The first dashboard: what users of the fleet feel (rate, errors, duration), and where to look next."""

from __future__ import annotations

from typing import Final

from fleet.breakers.failure_classes import HARMLESS_PATTERN
from fleet.observability.grafana import states as state
from fleet.observability.grafana.panels import (
    CRIT,
    OK,
    UNKNOWN,
    WARN,
    Json,
    Query,
    Row,
    SizedPanel,
    chosen,
    link,
    matching,
    percentiles,
    quantile,
    rate,
    stat,
    states,
    table,
    timeseries,
)

FAILED: Final = f'outcome!~"{HARMLESS_PATTERN}"'
"""Requests that the fleet or its servers failed, as alerts see it."""
OPEN: Final = 'state="open"'
_NOT_COUNTED: Final = (
    "What clients bring about themselves (they leave, they ask for what does not exist) does not count."
)
_TOKENS: Final = "suffix: tok/s"
_REQUESTS: Final = "ollama_proxy_requests_total"
_FIRST: Final = "fleet_time_to_first_token_seconds"


def error_ratio(*matchers: str, by: str = "") -> str:
    """The share of requests that failed: 0 while none does, nothing while there are no requests."""
    each = f" by ({by})" if by else ""
    failed, ended = rate("fleet_requests_total", FAILED, *matchers), rate("fleet_requests_total", *matchers)
    return f"(sum{each} ({failed}) or 0 * sum{each} ({ended})) / sum{each} ({ended})"


def rows() -> list[Row]:
    """Everything on it, from the top."""
    return [
        Row(4, (SizedPanel(24, _verdict()),)),
        Row(4, tuple(SizedPanel(3, panel) for panel in _numbers())),
        Row(8, (SizedPanel(12, _by_status()), SizedPanel(12, _errors())), "What users feel"),
        Row(8, (SizedPanel(12, _first_token()), SizedPanel(12, _duration()))),
        Row(8, (SizedPanel(12, _tokens()), SizedPanel(12, _load()))),
        Row(8, (SizedPanel(8, _oldest()), SizedPanel(8, _turned_away()), SizedPanel(8, _budget()))),
        Row(8, (SizedPanel(24, _servers()),), "Where to look"),
        Row(9, (SizedPanel(12, _slow()), SizedPanel(12, _alerts()))),
        Row(8, (SizedPanel(12, _breakers()), SizedPanel(12, _failovers()))),
    ]


def _verdict() -> Json:
    text = "The fleet's own verdict, the same as in its web page, `fleet status` and /health. One bar per fleet."
    return states("Verdict", text, state.verdict(), state.VERDICTS)


def _numbers() -> list[Json]:
    first = quantile(0.95, _FIRST)
    tokens = f"sum({rate('fleet_output_tokens_total')})"
    opened = f"sum({chosen('fleet_breakers', OPEN)})"
    oldest = f"max({chosen('fleet_queue_oldest_seconds')})"
    return [
        stat("Requests/s", "Requests that ended, per second.", "reqps", Query(f"sum({rate('fleet_requests_total')})")),
        stat("Errors", f"Share of requests that failed. {_NOT_COUNTED}", "percentunit", Query(error_ratio())),
        stat("First token, p95", "One request in twenty waits longer for its first token.", "s", Query(first)),
        stat("Tokens/s", "Tokens generated per second.", _TOKENS, Query(tokens)),
        stat("In flight", "Requests that hold a slot.", "none", Query(f"sum({chosen('fleet_in_flight')})")),
        stat("Waiting", "Requests that wait for a slot.", "none", Query(f"sum({chosen('fleet_queue_waiting')})")),
        stat("Oldest wait", "For how long the oldest request in line has waited.", "s", Query(oldest)),
        stat("Breakers open", "Pairs of server and model that get no requests.", "none", Query(opened)),
    ]


def _by_status() -> Json:
    classes = {"2xx": OK, "3xx": UNKNOWN, "4xx": WARN, "5xx": CRIT}
    queries = [Query(f"sum({rate(_REQUESTS, matching('status', f'{name[0]}..'))})", name) for name in classes]
    text = "All requests that ended, listings too, per second, by the class of the status that the client got."
    return timeseries("Requests by status", text, "reqps", queries, stacked=True, colours=classes)


def _errors() -> Json:
    each = f"sum by (outcome) ({rate('fleet_requests_total', FAILED)})"
    share = f"{each} / ignoring (outcome) group_left () sum({rate('fleet_requests_total')})"
    text = f"Share of requests that failed, and how. {_NOT_COUNTED}"
    queries = [Query(error_ratio(), "all"), Query(share, "{{outcome}}")]
    return timeseries("Error ratio", text, "percentunit", queries, colours={"all": CRIT})


def _first_token() -> Json:
    text = "From a request's arrival to the first token of its stream, waiting and loading included."
    return timeseries("Time to first token", text, "s", percentiles(_FIRST))


def _duration() -> Json:
    text = "From a request's arrival to the end of its answer. Only requests that a model worked on, or was to."
    queries = percentiles("ollama_proxy_request_duration_seconds", 'model!=""')
    return timeseries("Request duration", text, "s", queries)


def _tokens() -> Json:
    queries = [
        Query(f"sum({rate('fleet_prompt_tokens_total')})", "prompt"),
        Query(f"sum({rate('fleet_output_tokens_total')})", "generated"),
        Query(f"sum({rate('fleet_wasted_tokens_total')})", "generated for clients that left"),
    ]
    return timeseries("Tokens", "Tokens per second, added up when a request ends.", _TOKENS, queries)


def _load() -> Json:
    queries = [
        Query(f"sum({chosen('fleet_in_flight')})", "in flight"),
        Query(f"sum({chosen('fleet_server_slots')})", "slots"),
        Query(f"sum({chosen('fleet_queue_waiting')})", "waiting"),
    ]
    text = "Requests that hold a slot, the slots of all servers, and the requests that wait for one."
    return timeseries("In flight and waiting", text, "none", queries)


def _oldest() -> Json:
    queries = [
        Query(f"max({chosen('fleet_queue_oldest_seconds')})", "oldest in line now"),
        Query(quantile(0.95, "fleet_queue_wait_seconds"), "p95 of those who got a slot"),
    ]
    text = "How long requests wait for a slot. A paused queue shows here too."
    return timeseries("Wait for a slot", text, "s", queries)


def _turned_away() -> Json:
    queries = [
        Query(f"sum by (reason) ({rate('fleet_queue_rejected_total')})", "queue: {{reason}}"),
        Query(f"sum by (reason) ({rate('fleet_unserved_total')})", "no server: {{reason}}"),
        Query(f"sum by (listener) ({rate('fleet_rate_limited_total')})", "rate limit: {{listener}}"),
    ]
    text = "Requests that no server was given, per second, and why."
    return timeseries("Turned away", text, "reqps", queries)


def _budget() -> Json:
    windows = ("5m", "1h", "6h")
    queries = [Query(chosen(f"instance:fleet_request_errors:ratio_rate{window}"), window) for window in windows]
    text = "Error ratio over fixed spans of time, as alerts see it. Needs the recording rules of fleet-alerts.yml."
    return timeseries("Error ratio over longer spans", text, "percentunit", queries)


def _servers() -> Json:
    text = "One bar per server. Out of service: drained or in maintenance, by an operator."
    there = link("Look at this server", "fleet-server", server="${__field.labels.server}")
    return states("Servers", text, state.servers(), state.SERVERS, links=[there])


def _slow() -> Json:
    columns = [
        ("First token, p95", "s", f"topk(10, {quantile(0.95, 'fleet_server_first_token_seconds', by='server')})"),
        ("Median", "s", quantile(0.5, "fleet_server_first_token_seconds", by="server")),
        ("Requests/s", "reqps", f"sum by (server) ({rate('fleet_attempts_total')})"),
    ]
    text = "The servers that take longest from the grant of a slot to the first token, now."
    return table("Slowest servers", text, columns, {"server": "Server"})


def _alerts() -> Json:
    columns = [("Firing", "none", f"sum by (rule, severity) ({chosen('fleet_alerts_firing')}) > 0")]
    text = "Alerts that fire in the fleet itself; Prometheus evaluates the same rules from fleet-alerts.yml."
    return table("Alerts", text, columns, {"rule": "Alert", "severity": "Severity"})


def _breakers() -> Json:
    queries = [Query(f"sum by (state) ({chosen('fleet_breakers')})", "{{state}}")]
    text = "Circuit breakers that remember something, by state. Those that are open keep a model off a server."
    colours = {"open": CRIT, "half_open": WARN, "closed": OK}
    return timeseries("Breakers", text, "none", queries, colours=colours)


def _failovers() -> Json:
    queries = [Query(f"sum by (cause) ({rate('fleet_failovers_total')})", "{{cause}}")]
    text = (
        "Attempts that failed and were followed by another on another server, per second. Users did not notice these."
    )
    return timeseries("Failovers", text, "reqps", queries)
