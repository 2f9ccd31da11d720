"""How long a request would wait for a slot of a runner.

Formula: 0 while fewer than K are open (K: the runner's slots) and nobody is ahead; else the (open - K + 1)-th smallest
remaining time of those that run, and each that stands ahead takes the slot that is free first for a mean service time
(list scheduling). Remaining time: E[X - t | X > t] of the service times of the pair, if three are known, else of the
model, else of the fleet. Units: seconds. Source: how long leases were open, loads apart.

What it is wrong about: it takes all requests of a pair for alike, whatever their size; who stands ahead may leave or be
served elsewhere (then less); beyond sixteen ahead, work is spread evenly over the slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heapreplace
from typing import Final

from fleet.common.ids import ModelName, Pair
from fleet.common.lru_table import LruTable
from fleet.scheduling.estimates.averages.log_histogram import LogHistogram
from fleet.scheduling.estimates.averages.plain_rows import rows_of

SERVICE: Final = 10.0
"""Seconds that a request takes before anything is known."""
ENOUGH: Final = 3.0
"""Fresh samples from which on a histogram is used rather than a wider one."""
_EXACT: Final = 16
_HALF_LIFE: Final = 900.0
_PAIRS: Final = 4096
_MODELS: Final = 1024


def wait_seconds(remaining: Sequence[float], slots: int, ahead: int, service: float) -> float:
    """Seconds until a slot is free for one who comes now.

    `remaining`: what is left of each open request; `ahead`: who goes first; `service`: how long one of them takes.
    """
    slots = max(slots, 1)
    if len(remaining) + ahead < slots:
        return 0.0
    free = sorted(remaining)[max(0, len(remaining) - slots) :]
    free += [0.0] * (slots - len(free))
    heapify(free)
    for _ in range(min(ahead, _EXACT)):
        heapreplace(free, free[0] + service)
    return max(0.0, free[0]) + max(0, ahead - _EXACT) * service / slots


class ServiceTimes:
    """How long requests held their slots. Bounded memory: 4,096 pairs and 1,024 models, 8 MiB at the most."""

    def __init__(self) -> None:
        self._pairs: LruTable[Pair, LogHistogram] = LruTable(_PAIRS)
        self._models: LruTable[ModelName, LogHistogram] = LruTable(_MODELS)
        self._fleet = _fresh()

    def learn(self, pair: Pair, seconds: object, now: float) -> None:
        """A request that ended well held its slot for so long; without its load."""
        for histogram in (self._pairs.use(pair, _fresh), self._models.use(pair.model, _fresh), self._fleet):
            histogram.add(seconds, now)

    def best(self, pair: Pair, now: float) -> LogHistogram:
        """The narrowest histogram that knows enough."""
        for histogram in (self._pairs.get(pair), self._models.get(pair.model)):
            if histogram is not None and histogram.weight_at(now) >= ENOUGH:
                return histogram
        return self._fleet

    def to_plain(self, now: float, most: int) -> list[list[object]]:
        """Rows of model and histogram, the fleet's under no name."""
        rows: list[list[object]] = [[model, histogram.to_plain(now)] for model, histogram in self._models.items()]
        return [*rows[-most:], ["", self._fleet.to_plain(now)]]

    def load_plain(self, data: object, now: float) -> None:
        """Add what `to_plain` gave; absurd rows are left out."""
        for (model,), plain in rows_of(data, 1, _MODELS):
            histogram = self._models.use(ModelName(model), _fresh) if model else self._fleet
            histogram.load_plain(plain, now)


def _fresh() -> LogHistogram:
    return LogHistogram(_HALF_LIFE)
