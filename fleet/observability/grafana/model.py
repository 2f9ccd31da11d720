"""The dashboard of models: how many servers have each, how fast it answers, what its loads cost."""

from __future__ import annotations

from typing import Final

from fleet.observability.grafana.overview import error_ratio
from fleet.observability.grafana.panels import (
    RATE,
    Json,
    Query,
    Row,
    SizedPanel,
    chosen,
    heatmap,
    matching,
    percentiles,
    quantile,
    rate,
    table,
    timeseries,
)

_MODEL: Final = matching("model", "$model")
_NAME: Final = "{{model}}"
_FIRST: Final = "fleet_time_to_first_token_seconds"
_SERVED: Final = 'server!=""'
_HERE: Final = "their figures are of all their models together"


def rows() -> list[Row]:
    """Everything on it, from the top."""
    return [
        Row(8, (SizedPanel(12, _replicas()), SizedPanel(12, _requests()))),
        Row(8, (SizedPanel(12, _first_token()), SizedPanel(12, _between())), "Speed"),
        Row(8, (SizedPanel(12, _spread()), SizedPanel(12, _duration()))),
        Row(8, (SizedPanel(12, _by_server()), SizedPanel(12, _where()))),
        Row(8, (SizedPanel(12, _wait()), SizedPanel(12, _unserved())), "Trouble"),
        Row(8, (SizedPanel(12, _errors()), SizedPanel(12, _breakers()))),
        Row(8, (SizedPanel(12, _cold()), SizedPanel(12, _load_time())), "Loads"),
        Row(8, (SizedPanel(12, _warm()), SizedPanel(12, _tokens()))),
    ]


def _per_model(metric: str) -> str:
    return f"max by (model) ({chosen(metric, _MODEL)})"


def _replicas() -> Json:
    queries = [
        Query(_per_model(f"fleet_model_{what}"), f"{_NAME} {word}")
        for what, word in (("installed", "installed"), ("resident", "in memory"), ("routable", "can be used"))
    ]
    text = "Servers that have it, have it in memory, and could be given a request for it right now."
    return timeseries("Replicas", text, "none", queries)


def _requests() -> Json:
    query = Query(f"sum by (model) ({rate('fleet_requests_total', _MODEL)})", _NAME)
    return timeseries("Requests", "Requests that ended, per second.", "reqps", [query], stacked=True)


def _first_token() -> Json:
    text = "From a request's arrival to the first token of its stream, waiting and loading included."
    return timeseries("Time to first token", text, "s", percentiles(_FIRST, _MODEL))


def _between() -> Json:
    text = "Mean time between two tokens of a stream; its inverse is the speed that a reader sees."
    return timeseries("Time per token", text, "s", percentiles("fleet_inter_token_seconds", _MODEL))


def _spread() -> Json:
    query = Query(f"sum by (le) (increase({chosen(f'{_FIRST}_bucket', _MODEL)}[{RATE}]))", "{{le}}", format="heatmap")
    return heatmap("First tokens, spread", "How many streams took how long to their first token.", "s", query)


def _duration() -> Json:
    text = "From a request's arrival to the end of its answer."
    return timeseries("Request duration", text, "s", percentiles("ollama_proxy_request_duration_seconds", _MODEL))


def _by_server() -> Json:
    served = f"sum by (server) ({rate('fleet_requests_total', _MODEL)}) > 0"
    first = quantile(0.95, "fleet_server_first_token_seconds", by="server")
    query = Query(f"{first} and on (server) {served}", "{{server}} p95")
    text = f"From the grant of a slot to the first token, on the servers that serve the chosen models; {_HERE}."
    return timeseries("Time to first token by server", text, "s", [query])


def _where() -> Json:
    query = Query(f"sum by (server) ({rate('fleet_requests_total', _MODEL, _SERVED)})", "{{server}}")
    text = "Which servers answer requests for the chosen models, requests per second."
    return timeseries("Requests by server", text, "reqps", [query], stacked=True)


def _wait() -> Json:
    text = "How long requests waited for a slot, over all attempts."
    return timeseries("Wait for a slot", text, "s", percentiles("fleet_queue_wait_seconds", _MODEL))


def _unserved() -> Json:
    query = Query(f"sum by (model, reason) ({rate('fleet_unserved_total', _MODEL)})", f"{_NAME} {{{{reason}}}}")
    return timeseries("Not served", "Requests that no server was found for, per second.", "reqps", [query])


def _errors() -> Json:
    text = "Share of requests that failed; what clients bring about themselves does not count."
    return timeseries("Error ratio", text, "percentunit", [Query(error_ratio(_MODEL, by="model"), _NAME)])


def _breakers() -> Json:
    opened = f"max by (server, model) ({chosen('fleet_breaker_state', _MODEL)})"
    columns = [("State", "none", opened)]
    text = "Breakers that remember something: 0 closed, 1 half open, 2 open."
    return table("Breakers", text, columns, {"model": "Model", "server": "Server"})


def _cold() -> Json:
    queries = [
        Query(f"sum by (model) ({rate(f'fleet_model_{what}_total', _MODEL)})", f"{_NAME} {what}")
        for what in ("loads", "reloads", "evictions")
    ]
    text = "Times it came into memory, was loaded anew, or went out of memory, per second, over all servers."
    return timeseries("Cold starts and evictions", text, "cps", queries)


def _load_time() -> Json:
    text = "Load times that requests waited for."
    return timeseries("Load time", text, "s", percentiles("fleet_model_load_seconds", _MODEL))


def _warm() -> Json:
    spent = f"sum by (model) (increase({chosen('fleet_model_load_seconds_sum', _MODEL)}[$__range]))"
    loads = f"sum by (model) (increase({chosen('fleet_model_load_seconds_count', _MODEL)}[$__range]))"
    columns = [
        ("Spent on loads", "s", f"topk(10, {spent} > 0)"),
        ("Loads waited for", "none", loads),
        ("In memory on", "none", _per_model("fleet_model_resident")),
        ("Installed on", "none", _per_model("fleet_model_installed")),
    ]
    text = "Models whose loads cost clients most time in the chosen span: to warm these up helps most."
    return table("Worth warming up", text, columns, {"model": "Model"})


def _tokens() -> Json:
    queries = [
        Query(f"sum by (model) ({rate(f'fleet_{what}_tokens_total', _MODEL)})", f"{_NAME} {word}")
        for what, word in (("output", "generated"), ("prompt", "prompt"), ("wasted", "for clients that left"))
    ]
    return timeseries("Tokens", "Tokens per second, added up when a request ends.", "suffix: tok/s", queries)
