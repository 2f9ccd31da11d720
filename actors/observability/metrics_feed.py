"""Feeds the meter: every finished request, off the hot path, and what breakers do. Says what the fleet consists of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from actors.state.fleet_state import FleetCell
from actors.state.messages import RequestRecord
from actors.state.servers import Servers
from fleet.breakers.values import BreakerState
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.observability.metrics.registry import MetricsRegistry
from fleet.observability.statistics.request_batch import RequestBatch

_FRESH: Final = 1.0
"""Seconds for which the list of all models serves: names that nobody serves must not cost a walk each."""
STATE_WORDS: Final = {BreakerState.CLOSED: "closed", BreakerState.HALF_OPEN: "half_open", BreakerState.OPEN: "open"}


def measure(fleet: FleetCell) -> None:
    """Let the fleet's meter hear of every request that ends from now on."""
    fleet.statistics.request_log.listeners.append(lambda batch: _note(fleet, batch))


def note_move(meter: MetricsRegistry, pair: Pair, to: BreakerState, now: float) -> None:
    """A breaker has changed its state."""
    meter.moved(pair.server, pair.model, STATE_WORDS[to], now)


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


def _note(fleet: FleetCell, batch: RequestBatch[RequestRecord]) -> None:
    meter, settings = fleet.statistics.metrics, fleet.config.current.metrics
    meter.bound(settings.models, settings.pairs)
    meter.keys.series.most = settings.callers
    meter.exemplars = settings.exemplars
    meter.note(batch, fleet.clock.now(), fleet.clock.wall())
    meter.keys.note(batch)
