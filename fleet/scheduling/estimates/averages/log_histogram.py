"""How long things take, as a histogram that forgets with time: what is left of one that has run for t, and quantiles.

Formula: bins at every half octave from a millisecond to about three hours, weights 2^(-age / half-life), the sum of
the samples beside each weight, so that means are exact. Remaining time E[X - t | X > t]: the weight beyond t, of the
bin that holds t the part above it; half a sample is mixed in that says "as long again" (Lindy), which is all that is
known of one that has outlived the others. Seconds. Adding is O(1), `remaining` O(1) after one O(bins) pass per sample.

Decay without touching every bin: a new sample weighs 2^(age of the histogram / half-life) instead, and all is scaled
back before that grows large (Cormode et al. 2009, "Forward decay").

What it is wrong about: it takes all requests of one kind for alike; of two kinds (chat and batch) on one runner it
knows only the mixture. Within the bin that holds t it assumes an even spread.
"""

from __future__ import annotations

import math
from array import array
from typing import Final

from fleet.scheduling.estimates.averages.bounds import NO_TRUST, faded, sane

SHORTEST: Final = 1e-3
PER_OCTAVE: Final = 2
BINS: Final = 48
LONGEST: Final = SHORTEST * 2 ** (BINS / PER_OCTAVE)
"""Seconds. Samples outside are clamped."""
_EDGES: Final = tuple(SHORTEST * 2 ** (at / PER_OCTAVE) for at in range(BINS + 1))
_SCALE_BACK: Final = 40.0
"""Half-lives after which all is scaled back."""
_LINDY: Final = 0.5
_ZEROS: Final = bytes(8 * (BINS + 1))


def bin_of(seconds: float) -> int:
    """The bin that holds `seconds`."""
    if seconds <= SHORTEST:
        return 0
    return min(int(PER_OCTAVE * math.log2(seconds / SHORTEST)), BINS - 1)


class LogHistogram:
    """Bounded memory: 1.6 KiB."""

    __slots__ = ("_beyond", "_beyond_sums", "_half_life", "_origin", "_stale", "_sums", "_weights")

    def __init__(self, half_life: float) -> None:
        self._half_life = half_life
        self._origin = 0.0
        """When a sample weighs 1."""
        self._weights = array("d", _ZEROS)
        self._sums = array("d", _ZEROS)
        self._beyond = array("d", _ZEROS)
        self._beyond_sums = array("d", _ZEROS)
        self._stale = False

    def add(self, seconds: object, now: float, weight: float = 1.0) -> None:
        """One sample; what is negative or no number is dropped."""
        value = sane(seconds, SHORTEST, LONGEST)
        if value is None or not math.isfinite(now):
            return
        scale = weight * self._scale(now)
        at = bin_of(value)
        self._weights[at] += scale
        self._sums[at] += scale * value
        self._stale = True

    def weight_at(self, now: float) -> float:
        """How many fresh samples it is worth."""
        self._sum_up()
        return self._beyond[0] * faded(now - self._origin, self._half_life)

    def mean(self, prior: float, now: float, strength: float = 1.0) -> float:
        """The mean, with `strength` samples of the prior added."""
        self._sum_up()
        left = faded(now - self._origin, self._half_life)
        return (self._beyond_sums[0] * left + strength * prior) / (self._beyond[0] * left + strength)

    def remaining(self, elapsed: float, prior: float, now: float) -> float:
        """Seconds that are probably left to one that has run for `elapsed`; never negative.

        `prior`: how long one takes when nothing is known.
        """
        self._sum_up()
        elapsed = min(max(elapsed, 0.0), LONGEST)
        at = bin_of(elapsed)
        upper = _EDGES[at + 1]
        above = max(0.0, (upper - elapsed) / (upper - _EDGES[at])) if elapsed > _EDGES[at] else 1.0
        left = faded(now - self._origin, self._half_life)
        here = self._weights[at] * above
        weight = (self._beyond[at + 1] + here) * left
        if above == 1.0:
            total = self._beyond_sums[at] * left
        else:
            total = (self._beyond_sums[at + 1] + here * (elapsed + upper) / 2) * left
        return max(0.0, (total - weight * elapsed + _LINDY * max(elapsed, prior)) / (weight + _LINDY))

    def quantile(self, share: float, prior: float, now: float) -> float:
        """The time that `share` of all stay below; `prior` if nothing is known."""
        if self.weight_at(now) <= NO_TRUST:
            return prior
        wanted = (1.0 - share) * self._beyond[0]
        at = next((at for at in range(BINS) if self._beyond[at + 1] <= wanted and self._weights[at] > 0), BINS - 1)
        within = (self._beyond[at] - wanted) / self._weights[at] if self._weights[at] else 0.0
        return float(_EDGES[at] * 2 ** (min(max(within, 0.0), 1.0) / PER_OCTAVE))

    def to_plain(self, now: float) -> list[list[float]]:
        """Bins that hold something: place, weight `now`, mean."""
        left = faded(now - self._origin, self._half_life)
        full = [at for at in range(BINS) if self._weights[at] * left > NO_TRUST]
        return [[at, self._weights[at] * left, self._sums[at] / self._weights[at]] for at in full]

    def load_plain(self, data: object, now: float) -> None:
        """Add what `to_plain` gave; what is no bin is left out."""
        for each in data[:BINS] if isinstance(data, list) else ():
            numbers = isinstance(each, list) and len(each) == 3 and all(type(one) in (int, float) for one in each)
            if numbers and 0.0 < each[1] <= 1e9:
                self.add(each[2], now, float(each[1]))

    def _scale(self, now: float) -> float:
        """What a sample weighs now, after scaling all back when that has grown too large."""
        grown = (now - self._origin) / self._half_life
        if not 0.0 <= grown <= _SCALE_BACK:
            left = faded(now - self._origin, self._half_life)
            for table in (self._weights, self._sums):
                for at in range(BINS):
                    table[at] = table[at] * left if table[at] * left > 1e-12 else 0.0
            self._origin = now
            return 1.0
        return math.exp2(grown)

    def _sum_up(self) -> None:
        if not self._stale:
            return
        weight = total = 0.0
        for at in range(BINS - 1, -1, -1):
            weight += self._weights[at]
            total += self._sums[at]
            self._beyond[at] = weight
            self._beyond_sums[at] = total
        self._stale = False
