"""Loads, reloads and evictions: what probes saw come and go, and what requests waited for between two probes.

A load is counted once, however many saw it: the probe that finds a new model in memory, the requests that waited for
it. A reload is a load of a model that was in memory when the request came, and that asked for other runner options than
the one before. What it is wrong about: loads and evictions between two probes that no request of ours waited for, and a
reload that a probe saw half-way counts as an eviction and a load. A server's first inventory loads nothing, nor does
the first one after it was away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from fleet.common.lru_table import LruTable
from fleet.models.load_times import COLD
from fleet.observability.metrics.series import OfPair
from fleet.observability.statistics.request_batch import PlacedRequest

MOST_SERVERS: Final = 1000
_RUNS_NOTHING: Final = "/api/show"


class LoadAttempt(Protocol):
    """One attempt; times on the caller's clock."""

    @property
    def started(self) -> float: ...
    @property
    def ended(self) -> float: ...


class LoadingRequest(PlacedRequest, Protocol):
    """What a finished request says of itself; `runner` are the options it asked for."""

    @property
    def load_seconds(self) -> float | None: ...
    @property
    def runner(self) -> Mapping[str, object] | None: ...
    @property
    def tries(self) -> Sequence[LoadAttempt]: ...


@dataclass(slots=True, eq=False)
class _Memory:
    """One server's. `since` when a probe first saw each model that is in it; `loaded` when each was last loaded."""

    looked: float
    since: dict[str, float]
    loaded: dict[str, float] = field(default_factory=dict)
    runners: dict[str, Mapping[str, object] | None] = field(default_factory=dict)


class LoadWatch:
    """Bounded: by the servers looked at last, and what their latest inventories hold."""

    def __init__(self, of_pair: Callable[[str, str, float], OfPair]) -> None:
        self._of_pair = of_pair
        self._servers: LruTable[str, _Memory] = LruTable(MOST_SERVERS)

    def looked(self, server: str, resident: Collection[str], now: float) -> None:
        """A probe saw these models in a server's memory."""
        memory = self._servers.get(server)
        if memory is None:
            self._servers.put(server, _Memory(now, dict.fromkeys(resident, now)))
            return
        before, memory.since = memory.since, {model: memory.since.get(model, now) for model in resident}
        for model in memory.since.keys() - before.keys():
            if memory.loaded.get(model, -math.inf) < memory.looked:
                self._of_pair(server, model, now).loads += 1
                memory.loaded[model] = now
        for model in before.keys() - memory.since.keys():
            self._of_pair(server, model, now).evictions += 1
        memory.looked = now
        for table in (memory.loaded, memory.runners):
            for model in table.keys() - memory.since.keys():
                del table[model]

    def lost(self, server: str) -> None:
        """The server is away, or another machine: its memory is unknown."""
        self._servers.pop(server, None)

    def ended(self, ended: Sequence[LoadingRequest], now: float) -> None:
        """Requests have ended, in this order."""
        latest: dict[tuple[str, str], LoadingRequest] = {}
        for each in ended:
            if each.load_seconds is not None and each.load_seconds >= COLD and each.tries:
                self._waited(each, each.load_seconds, now)
            if each.tries and each.endpoint != _RUNS_NOTHING:
                latest[each.server, each.model] = each
        for (server, model), each in latest.items():
            memory = self._servers.get(server)
            if memory is not None and model in memory.since:
                memory.runners[model] = each.runner

    def _waited(self, ended: LoadingRequest, seconds: float, now: float) -> None:
        """A request waited for a load; unless that is known already, it is counted."""
        memory, last, model = self._servers.get(ended.server), ended.tries[-1], ended.model
        if memory is None or memory.loaded.get(model, -math.inf) >= last.started:
            return
        pair = self._of_pair(ended.server, model, now)
        pair.loads += 1
        memory.loaded[model] = min(last.started + seconds, last.ended)
        if memory.since.get(model, math.inf) < last.started and memory.runners.get(model, ended.runner) != ended.runner:
            pair.reloads += 1
