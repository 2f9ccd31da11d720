"""Feeds the metrics: finished requests, off the hot path, and what breakers do. Says what the fleet consists of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from actors.kit.clock import Clock
from actors.state.config_ref import ConfigRef
from actors.state.messages import RequestRecord
from actors.state.servers import Servers
from fleet.breakers.values import BreakerState
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.observability.metrics.registry import MetricsRegistry
from fleet.observability.statistics.request_batch import RequestBatch

_FRESH: Final = 1.0
"""Seconds for which the list of all models serves: names that nobody serves must not cost a walk each."""
STATE_WORDS: Final = {BreakerState.CLOSED: "closed", BreakerState.HALF_OPEN: "half_open", BreakerState.OPEN: "open"}


class MetricsFeed:
    """Told of finished requests, batch by batch; has the registry count them, within the bounds that are configured."""

    def __init__(self, metrics: MetricsRegistry, config: ConfigRef, clock: Clock) -> None:
        self._metrics = metrics
        self._config = config
        self._clock = clock

    def note(self, batch: RequestBatch[RequestRecord]) -> None:
        """Requests have ended."""
        metrics, settings = self._metrics, self._config.current.metrics
        metrics.bound(settings.models, settings.pairs)
        metrics.keys.series.most = settings.callers
        metrics.exemplars = settings.exemplars
        metrics.note(batch, self._clock.now(), self._clock.wall())
        metrics.keys.note(batch)


def note_move(metrics: MetricsRegistry, pair: Pair, to: BreakerState, now: float) -> None:
    """A breaker has changed its state."""
    metrics.moved(pair.server, pair.model, STATE_WORDS[to], now)


class Listed:
    """The servers there are, and the models in their inventories (see `metrics.registry.KnownNames`)."""

    def __init__(self, servers: Servers, now: Callable[[], float]) -> None:
        self._servers = servers
        self._now = now
        self._models: frozenset[ModelName] = frozenset()
        self._at = -math.inf

    def server(self, server: str) -> bool:
        return ServerId(server) in self._servers

    def model(self, model: str) -> bool:
        now = self._now()
        if now - self._at >= _FRESH:
            self._at = now
            self._models = frozenset().union(*(cell.state.models for cell in self._servers.values()))
        return ModelName(model) in self._models

    def pair(self, server: str, model: str) -> bool:
        cell = self._servers.get(ServerId(server))
        return cell is not None and ModelName(model) in cell.state.models
