"""All metrics at one moment, as plain numbers: what the event loop hands to the thread that writes them down."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from fleet.observability.metrics.definitions import BY_NAME, METRICS, Metric
from fleet.observability.metrics.instruments import Buckets
from fleet.observability.metrics.key_usage import OfKey
from fleet.observability.metrics.registry import MetricsRegistry
from fleet.observability.metrics.series import OfModel, OfPair, OfServer, RouteSeries

Labels = tuple[str, ...]
"""The values of a metric's labels, in the order of its table entry."""
Point = tuple[Labels, float]
Spread = tuple[Labels, Buckets]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. Histograms have spreads, all others points; nobody changes them."""

    metric: Metric
    points: Sequence[Point] = ()
    spreads: Sequence[Spread] = ()


class Exposed:
    """Families by name. Raises KeyError for a name that is not in the table."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}

    def points(self, name: str, points: Iterable[Point]) -> None:
        """The values of one metric, one per combination of labels."""
        self._families[name] = Family(BY_NAME[name], points=tuple(points))

    def value(self, name: str, value: float | None) -> None:
        """The value of a metric without labels; None: there is none."""
        self.points(name, () if value is None else (((), value),))

    def spreads(self, name: str, spreads: Iterable[Spread]) -> None:
        """The values of one histogram, one per combination of labels."""
        self._families[name] = Family(BY_NAME[name], spreads=tuple(spreads))

    def in_order(self) -> list[Family]:
        """Every metric of the table, in its order; those nobody had anything to say about are empty."""
        return [self._families.get(metric.name) or Family(metric) for metric in METRICS]


STATES: Final = ("closed", "half_open", "open")
"""The states of a breaker as labels; the place of each is its number."""


def count(exposed: Exposed, meter: MetricsRegistry) -> None:
    """All counters and histograms of a meter."""
    meter.settle()
    _routes(exposed, list(meter.routes.items()))
    _models(exposed, [((label,), model) for label, model in meter.models.items()])
    _servers(exposed, [((label,), server) for label, server in meter.servers.items()])
    _pairs(exposed, list(meter.pairs.items()))
    _keys(exposed, list(meter.keys.series.items()))
    exposed.points("fleet_failovers_total", (((cause,), number) for cause, number in meter.failovers.items()))
    exposed.points("fleet_queue_rejected_total", (((why,), number) for why, number in meter.rejected.items()))
    ratios = (((term,), ratio.shown()) for term, ratio in meter.predictions.items())
    exposed.spreads("fleet_prediction_error_ratio", ratios)
    exposed.points("fleet_rate_limited_total", (((name,), number) for name, number in meter.limits.items()))


def _routes(exposed: Exposed, routes: list[tuple[tuple[str, str, str], RouteSeries]]) -> None:
    statuses = (((*key, status), number) for key, route in routes for status, number in route.statuses.items())
    exposed.points("ollama_proxy_requests_total", statuses)
    exposed.spreads("ollama_proxy_request_duration_seconds", ((key, route.duration.shown()) for key, route in routes))


def _models(exposed: Exposed, models: list[tuple[Labels, OfModel]]) -> None:
    exposed.points("fleet_wasted_tokens_total", ((key, model.wasted) for key, model in models))
    unserved = (((*key, why), number) for key, model in models for why, number in model.unserved.items())
    exposed.points("fleet_unserved_total", unserved)
    exposed.spreads("fleet_time_to_first_token_seconds", ((key, model.first_token.shown()) for key, model in models))
    exposed.spreads("fleet_inter_token_seconds", ((key, model.inter_token.shown()) for key, model in models))
    exposed.spreads("fleet_queue_wait_seconds", ((key, model.wait.shown()) for key, model in models))
    exposed.spreads("fleet_model_load_seconds", ((key, model.load.shown()) for key, model in models))


def _servers(exposed: Exposed, servers: list[tuple[Labels, OfServer]]) -> None:
    attempts = (((*key, how), number) for key, server in servers for how, number in server.attempts.items())
    exposed.points("fleet_attempts_total", attempts)
    exposed.points("fleet_streams_total", ((key, server.streams) for key, server in servers))
    exposed.points("fleet_stream_stalls_total", ((key, server.stalls) for key, server in servers))
    exposed.spreads("fleet_server_first_token_seconds", ((key, server.first_token.shown()) for key, server in servers))


def _pairs(exposed: Exposed, pairs: list[tuple[tuple[str, str], OfPair]]) -> None:
    """A pair says nothing of requests, if it had none: most pairs have not.

    What rules watch starts at 0 with the first request: the increase from nothing to 1 is none to Prometheus.
    """
    outcomes = (((*key, how), number) for key, pair in pairs for how, number in pair.outcomes.items())
    exposed.points("fleet_requests_total", outcomes)
    served = [(key, pair) for key, pair in pairs if key[0] and pair.outcomes]
    exposed.points("fleet_prompt_tokens_total", ((key, pair.prompt) for key, pair in served))
    exposed.points("fleet_output_tokens_total", ((key, pair.output) for key, pair in served))
    loaded = [(key, pair) for key, pair in pairs if pair.loads or pair.evictions or (all(key) and pair.outcomes)]
    exposed.points("fleet_model_loads_total", ((key, pair.loads) for key, pair in loaded))
    exposed.points("fleet_model_reloads_total", ((key, pair.reloads) for key, pair in loaded))
    exposed.points("fleet_model_evictions_total", ((key, pair.evictions) for key, pair in loaded))
    moves = (((*key, to), number) for key, pair in pairs for to, number in _moves(key, pair))
    exposed.points("fleet_breaker_transitions_total", moves)


def _keys(exposed: Exposed, keys: list[tuple[str, OfKey]]) -> None:
    outcomes = (((name, how), number) for name, key in keys for how, number in key.outcomes.items())
    exposed.points("fleet_key_requests_total", outcomes)
    exposed.points("fleet_key_prompt_tokens_total", (((name,), key.prompt) for name, key in keys))
    exposed.points("fleet_key_output_tokens_total", (((name,), key.output) for name, key in keys))


def _moves(pair: Labels, seen: OfPair) -> Iterable[tuple[str, int]]:
    """The first one is to open; from then on, there are all."""
    if seen.moves:
        return [(to, seen.moves.get(to, 0)) for to in STATES]
    return [("open", 0)] if all(pair) and seen.outcomes else ()
