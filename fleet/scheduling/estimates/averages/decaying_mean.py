"""Means that forget with time: a sample weighs half after each half-life, however many came since.

Formula: weights 2^(-age / half-life); mean and variance by West's update (West 1979, CACM 22:9). `towards` adds the
prior as samples of their own, so that without traffic the mean drifts back to it: an idle server is unknown again.
Units: those of the samples. O(1) in time, five floats.

What it is wrong about: after a jump of what is measured it lies between before and after for one or two half-lives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from fleet.scheduling.estimates.averages.bounds import NO_TRUST, faded, sane

_MOST: Final = 1e12
_MOST_SPREAD: Final = 1.0
"""The largest variance of logarithms that shifts a mean: a factor of 1.65."""


@dataclass(slots=True)
class DecayingMean:
    """Any finite numbers. `weight`: how many fresh samples it is worth at `at`; `squares`: their squared deviations."""

    half_life: float
    weight: float = 0.0
    mean: float = 0.0
    squares: float = 0.0
    at: float = -math.inf

    def add(self, sample: float, now: float, weight: float = 1.0) -> None:
        """One sample, seen `now`. What is not finite is dropped."""
        if not (math.isfinite(sample) and math.isfinite(now) and 0.0 < weight < _MOST):
            return
        sample = min(max(sample, -_MOST), _MOST)
        self._age(now)
        self.weight += weight
        off = sample - self.mean
        self.mean += off * weight / self.weight
        self.squares += weight * off * (sample - self.mean)

    def weight_at(self, now: float) -> float:
        """How many fresh samples it is worth."""
        return self.weight * faded(now - self.at, self.half_life) if self.weight else 0.0

    def towards(self, prior: float, now: float, strength: float = 1.0) -> float:
        """The mean with `strength` samples of the prior added."""
        weight = self.weight_at(now)
        return (weight * self.mean + strength * prior) / (weight + strength)

    def variance(self, now: float, prior: float = 0.0, strength: float = 1.0) -> float:
        """The variance, with `strength` samples added that vary by `prior`: few samples alone do not make it large."""
        weight = self.weight_at(now)
        own = self.squares / self.weight if self.weight > NO_TRUST else 0.0
        return (weight * own + strength * prior) / (weight + strength)

    def to_plain(self, now: float) -> list[float]:
        """As it stands `now`, for `from_plain`."""
        weight = self.weight_at(now)
        return [weight, self.mean, self.squares * weight / self.weight] if weight > NO_TRUST else []

    @classmethod
    def from_plain(cls, data: object, half_life: float, now: float) -> DecayingMean:
        """What `to_plain` gave; unknown for anything else."""
        if isinstance(data, list) and len(data) == 3 and all(_is_number(each) for each in data):
            weight, mean, squares = (float(each) for each in data)
            if 0.0 < weight < _MOST and abs(mean) < _MOST and 0.0 <= squares < math.inf:
                return cls(half_life, weight, mean, squares, now)
        return cls(half_life)

    def _age(self, now: float) -> None:
        if self.weight:
            left = faded(now - self.at, self.half_life)
            self.weight *= left
            self.squares *= left
            if self.weight <= NO_TRUST:
                self.weight = self.mean = self.squares = 0.0
        self.at = max(self.at, now)


@dataclass(slots=True)
class LogMean:
    """Positive numbers that vary by factors: averaged as logarithms, clamped to `least` and `most`."""

    logs: DecayingMean
    least: float
    most: float

    @classmethod
    def fresh(cls, half_life: float, least: float, most: float) -> LogMean:
        return cls(DecayingMean(half_life), least, most)

    def add(self, sample: object, now: float, weight: float = 1.0) -> bool:
        """One sample; False (and nothing noted) for zero, negative numbers and what is no number."""
        value = sane(sample, self.least, self.most)
        if value is None or sample == 0:
            return False
        self.logs.add(math.log(value), now, weight)
        return True

    def typical(self, prior: float, now: float, strength: float = 1.0) -> float:
        """The geometric mean, with `strength` samples of the prior added."""
        return math.exp(self.logs.towards(math.log(prior), now, strength))

    def expected(self, prior: float, now: float, strength: float = 1.0, variance: float = 0.0) -> float:
        """The arithmetic mean that belongs to it: exp(mean + variance / 2), as for log-normal numbers.

        `prior` is a geometric mean, `variance` the variance of logarithms that belongs to it.
        """
        spread = min(self.logs.variance(now, variance, strength), _MOST_SPREAD)
        return min(self.typical(prior, now, strength) * math.exp(spread / 2), self.most)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
