"""What it costs, in seconds, that a pair may fail: so that who fails fast never looks fast (Prequal's sinkhole rule).

Formula: P(fail) x (time lost + next best). P(fail): the share of failures, weights halving each minute, two successes
mixed in; time lost: the mean of how long failures took, weights halving each quarter of an hour, one of a second mixed
in. Units: seconds. Source: how requests ended; failures never enter any other estimate.

What it is wrong about: failures in one burst count as so many, though they may have one cause.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from fleet.common.ids import Pair
from fleet.common.lru_table import LruTable
from fleet.scheduling.estimates.averages.bounds import sane
from fleet.scheduling.estimates.averages.decaying_mean import DecayingMean

LOST: Final = 1.0
"""Seconds that a failure takes before anything is known."""
_LONGEST: Final = 600.0
_SUCCESSES: Final = 2.0
_CHANCE_HALF_LIFE: Final = 60.0
_LOST_HALF_LIFE: Final = 900.0
_PAIRS: Final = 8192


@dataclass(slots=True)
class _Failures:
    share: DecayingMean = field(default_factory=lambda: DecayingMean(_CHANCE_HALF_LIFE))
    lost: DecayingMean = field(default_factory=lambda: DecayingMean(_LOST_HALF_LIFE))


class FailureCost:
    """Bounded memory: 8,192 pairs. Not kept over a restart: a minute later it would be forgotten anyway."""

    def __init__(self) -> None:
        self._pairs: LruTable[Pair, _Failures] = LruTable(_PAIRS)

    def chance(self, pair: Pair, now: float) -> float:
        """P(fail), under 1."""
        known = self._pairs.get(pair)
        return 0.0 if known is None else known.share.towards(0.0, now, _SUCCESSES)

    def lost(self, pair: Pair, now: float) -> float:
        """Seconds until a failure shows."""
        known = self._pairs.get(pair)
        return LOST if known is None else known.lost.towards(LOST, now)

    def seconds(self, pair: Pair, next_best: float, now: float) -> float:
        """What to add to the score. `next_best`: seconds that the request then takes elsewhere."""
        return self.chance(pair, now) * (self.lost(pair, now) + max(next_best, 0.0))

    def learn(self, pair: Pair, now: float, failed_after: object = None) -> None:
        """A request ended well (None), or failed after so many seconds."""
        if failed_after is None and pair not in self._pairs:
            return  # who never fails needs no memory
        known = self._pairs.use(pair, _Failures)
        known.share.add(0.0 if failed_after is None else 1.0, now)
        if (lost := sane(failed_after, 0.0, _LONGEST)) is not None:
            known.lost.add(lost, now)
