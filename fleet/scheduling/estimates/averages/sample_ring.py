"""The last few samples with their times, for medians and other quantiles that one absurd sample cannot move.

Formula: the weighted quantile of what is kept, weights 2^(-age / half-life); units those of the samples.
Adding is O(1), a quantile O(n log n) of a small n: for numbers that are worked out when something was learned. One that
was just worked out is given again until an eighth of the samples are new, or a fiftieth of the half-life is over.

What it is wrong about: a burst pushes all that came before out of the ring, so it sees no further back than `most`
samples, whatever the half-life.
"""

from __future__ import annotations

import math
from array import array

from fleet.scheduling.estimates.averages.bounds import NO_TRUST, faded


class SampleRing:
    """Bounded memory: 16 bytes a sample. Any finite numbers."""

    __slots__ = ("_half_life", "_last", "_most", "_new", "_next", "_times", "_values")

    def __init__(self, most: int, half_life: float) -> None:
        self._most = most
        self._half_life = half_life
        self._values = array("d")
        self._times = array("d")
        self._next = 0
        self._new = 0
        self._last: tuple[float, float, float | None, float] = (math.nan, 0.0, None, 0.0)
        """The last share that was asked for, when, its quantile, and the weight of all."""

    def __len__(self) -> int:
        return len(self._values)

    def add(self, sample: float, now: float) -> None:
        """One more; the oldest goes. What is not finite is dropped."""
        if not (math.isfinite(sample) and math.isfinite(now)):
            return
        self._new += 1
        if len(self._values) < self._most:
            self._values.append(sample)
            self._times.append(now)
        else:
            self._values[self._next] = sample
            self._times[self._next] = now
            self._next = (self._next + 1) % self._most

    def weight_at(self, now: float) -> float:
        """How many fresh samples it is worth."""
        return sum(faded(now - at, self._half_life) for at in self._times)

    def quantile(self, share: float, now: float) -> float | None:
        """The sample that `share` of the weight lies below; None if all are forgotten.

        For the median of an even number of equal weights that is the mean of the two in the middle.
        """
        return self.weighed(share, now)[0]

    def weighed(self, share: float, now: float) -> tuple[float | None, float]:
        """The quantile, and how many fresh samples all are worth."""
        asked, at, value, total = self._last
        if asked != share or 8 * self._new > len(self._values) or abs(now - at) > self._half_life / 50:
            value, total = self._work_out(share, now)
            self._last, self._new = (share, now, value, total), 0
        return value, total

    def _work_out(self, share: float, now: float) -> tuple[float | None, float]:
        rate = 1.0 / self._half_life
        aged = [
            (value, 2.0 ** min(0.0, (at - now) * rate)) for value, at in zip(self._values, self._times, strict=True)
        ]
        total = sum(weight for _, weight in aged)
        if total <= NO_TRUST:
            return None, 0.0
        aged.sort()
        wanted, below, slack = share * total, 0.0, 1e-12 * total
        for place, (value, weight) in enumerate(aged):
            below += weight
            if below > wanted + slack or place == len(aged) - 1:
                return value, total
            if below >= wanted - slack:
                return (value + aged[place + 1][0]) / 2, total
        return None, 0.0

    def to_plain(self, now: float) -> list[list[float]]:
        """Samples with their ages, the oldest first, for `from_plain`."""
        order = [*range(self._next, len(self._values)), *range(self._next)]
        return [[self._values[at], max(0.0, now - self._times[at])] for at in order]

    def load_plain(self, data: object, now: float, least: float, most: float) -> None:
        """Add what `to_plain` gave; what is no sample between `least` and `most` is left out."""
        for each in data[-self._most :] if isinstance(data, list) else ():
            if isinstance(each, list) and len(each) == 2 and all(type(number) in (int, float) for number in each):
                value, age = each
                if least <= value <= most and 0.0 <= age < math.inf:
                    self.add(float(value), now - age)
