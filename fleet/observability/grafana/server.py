"""The dashboard of servers: how busy each is, how full, what fails there; and the machine that the fleet runs on."""

from __future__ import annotations

from typing import Final

from fleet.observability.grafana import states as state
from fleet.observability.grafana.overview import FAILED
from fleet.observability.grafana.panels import (
    Json,
    Query,
    Row,
    SizedPanel,
    chosen,
    link,
    matching,
    quantile,
    rate,
    states,
    table,
    timeseries,
)

_SERVER: Final = matching("server", "$server")
_NAME: Final = "{{server}}"
_FIRST: Final = "fleet_server_first_token_seconds"


def rows() -> list[Row]:
    """Everything on it, from the top."""
    return [
        Row(7, (SizedPanel(16, _states()), SizedPanel(8, _table()))),
        Row(8, (SizedPanel(12, _in_flight()), SizedPanel(12, _used())), "Use"),
        Row(8, (SizedPanel(12, _share()), SizedPanel(12, _tokens()))),
        Row(8, (SizedPanel(12, _memory()), SizedPanel(12, _models()))),
        Row(8, (SizedPanel(8, _first_token()), SizedPanel(8, _probes()), SizedPanel(8, _predictions())), "Speed"),
        Row(8, (SizedPanel(12, _errors()), SizedPanel(12, _stalls())), "Errors"),
        Row(8, (SizedPanel(12, _loads()), SizedPanel(12, _breakers()))),
        Row(
            8,
            (SizedPanel(8, _machine()), SizedPanel(8, _gpus()), SizedPanel(8, _gpu_memory())),
            "The fleet's own machine",
        ),
        Row(8, (SizedPanel(12, _heat()), SizedPanel(12, _power()))),
    ]


def _per_server(metric: str, function: str = "max") -> str:
    return f"{function} by (server) ({chosen(metric, _SERVER)})"


def _states() -> Json:
    text = "One bar per server. Out of service: drained or in maintenance, by an operator."
    return states("State", text, state.servers(_SERVER), state.SERVERS)


def _table() -> Json:
    columns = [
        ("In flight", "none", _per_server("fleet_server_in_flight", "sum")),
        ("Slots", "none", _per_server("fleet_server_slots")),
        ("In memory", "none", _per_server("fleet_server_resident_models")),
        ("Installed", "none", _per_server("fleet_server_models")),
        ("Draining", "s", _per_server("fleet_server_drain_seconds")),
    ]
    text = "Requests, slots and models of each server, now; for how long it has been draining, if it does."
    return table("Now", text, columns, {"server": "Server"})


def _in_flight() -> Json:
    queries = [
        Query(_per_server("fleet_server_in_flight", "sum"), f"{_NAME} in flight"),
        Query(_per_server("fleet_server_slots"), f"{_NAME} slots"),
    ]
    return timeseries("In flight and slots", "Requests it works on, and how many it may get.", "none", queries)


def _used() -> Json:
    ratio = f"{_per_server('fleet_server_in_flight', 'sum')} / {_per_server('fleet_server_slots')}"
    text = "Requests in flight per slot: at 100 % the next request waits or goes elsewhere."
    return timeseries("Slots in use", text, "percentunit", [Query(ratio, _NAME)], most=1)


def _share() -> Json:
    each = f"sum by (server) ({rate('fleet_attempts_total', _SERVER)})"
    whole = f"sum({rate('fleet_attempts_total')})"
    text = "Which server requests were sent to: the share of all attempts of the fleet that went to it."
    query = Query(f"{each} / ignoring (server) group_left () {whole}", _NAME)
    return timeseries("Share of decisions", text, "percentunit", [query], stacked=True, most=1)


def _tokens() -> Json:
    queries = [
        Query(f"sum by (server) ({rate('fleet_output_tokens_total', _SERVER)})", f"{_NAME} generated"),
        Query(f"sum by (server) ({rate('fleet_prompt_tokens_total', _SERVER)})", f"{_NAME} prompt"),
    ]
    return timeseries("Tokens", "Tokens per second, added up when a request ends.", "suffix: tok/s", queries)


def _memory() -> Json:
    text = "Video memory that models in memory take, as the server reports it. It does not say how much there is."
    query = Query(_per_server("fleet_server_vram_used_bytes"), _NAME)
    return timeseries("Video memory in use", text, "bytes", [query])


def _models() -> Json:
    queries = [
        Query(_per_server("fleet_server_resident_models"), f"{_NAME} in memory"),
        Query(_per_server("fleet_server_models"), f"{_NAME} installed"),
    ]
    return timeseries("Models", "Models that it has, and those in memory.", "none", queries)


def _first_token() -> Json:
    queries = [Query(quantile(q, _FIRST, _SERVER, by="server"), f"{_NAME} p{q * 100:g}") for q in (0.5, 0.95)]
    text = "From the grant of a slot to the first token, loads included."
    return timeseries("Time to first token", text, "s", queries)


def _probes() -> Json:
    text = "Duration of the last health probe that it answered. It rises before a server fails."
    return timeseries("Probe latency", text, "s", [Query(_per_server("fleet_server_probe_seconds"), _NAME)])


def _predictions() -> Json:
    text = "What came over what was predicted, the median of all servers; 1 is right. Only of a policy that predicts."
    query = Query(quantile(0.5, "fleet_prediction_error_ratio", by="term"), "{{term}}")
    return timeseries("Predictions", text, "none", [query])


def _errors() -> Json:
    query = Query(
        f"sum by (server, outcome) ({rate('fleet_attempts_total', _SERVER, FAILED)})", f"{_NAME} {{{{outcome}}}}"
    )
    text = "Attempts that failed here, per second, and how; the fleet may have tried another server then."
    return timeseries("Failed attempts by kind", text, "reqps", [query])


def _stalls() -> Json:
    stalls = f"sum by (server) ({rate('fleet_stream_stalls_total', _SERVER)})"
    streams = f"sum by (server) ({rate('fleet_streams_total', _SERVER)})"
    text = "Share of streams that were ended because nothing came any more."
    return timeseries("Stalled streams", text, "percentunit", [Query(f"{stalls} / {streams}", _NAME)])


def _loads() -> Json:
    queries = [
        Query(f"sum by (server) ({rate(f'fleet_model_{what}_total', _SERVER)})", f"{_NAME} {what}")
        for what in ("loads", "reloads", "evictions")
    ]
    text = "Models that came into memory, were loaded anew, or went out of it, per second. Many of each: thrashing."
    return timeseries("Loads and evictions", text, "cps", queries)


def _breakers() -> Json:
    text = "One bar per model with a breaker that remembers something. Absent means closed."
    there = link("Look at this model", "fleet-model", model="${__field.labels.model}")
    return states("Breakers", text, state.breakers(_SERVER), state.BREAKERS, links=[there])


def _machine() -> Json:
    queries = [
        Query(f"max({chosen('ollama_proxy_system_cpu_percent')}) / 100", "CPU"),
        Query(f"max({chosen('ollama_proxy_system_memory_percent')}) / 100", "memory"),
        Query(f"max({chosen('fleet_host_disk_ratio')})", "disk"),
    ]
    text = "The machine that the fleet itself runs on; servers elsewhere are not seen here."
    return timeseries("CPU, memory, disk", text, "percentunit", queries, most=1)


def _per_gpu(metric: str) -> str:
    return f"max by (instance, gpu) ({chosen(metric)})"


def _gpus() -> Json:
    query = Query(_per_gpu("fleet_host_gpu_utilization_ratio"), "GPU {{gpu}}")
    return timeseries("GPU in use", "Each GPU of the fleet's own machine.", "percentunit", [query], most=1)


def _gpu_memory() -> Json:
    queries = [
        Query(_per_gpu("fleet_host_gpu_memory_used_bytes"), "GPU {{gpu}} in use"),
        Query(_per_gpu("fleet_host_gpu_memory_total_bytes"), "GPU {{gpu}} there is"),
    ]
    return timeseries("GPU memory", "Each GPU of the fleet's own machine.", "bytes", queries)


def _heat() -> Json:
    query = Query(_per_gpu("fleet_host_gpu_temperature_celsius"), "GPU {{gpu}}")
    return timeseries("GPU temperature", "Each GPU of the fleet's own machine.", "celsius", [query])


def _power() -> Json:
    query = Query(f"sum by (component) ({chosen('ollama_proxy_power_watts')})", "{{component}}")
    return timeseries("Power", "Drawn by the fleet's own machine, where it can be read.", "watt", [query], stacked=True)
