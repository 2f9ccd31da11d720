"""Exponentially weighted averages that count samples while they come, and forget with time when none do.

A sample weighs `alpha`, as many as came before it: so a busy pair is known by its last few requests. But what is old
weighs less: half after each half-life without a sample. Else a server that failed once, or was slow an hour ago, would
be passed over for ever, since only traffic could show that it is well again, and it gets none. What is forgotten is
replaced by what the reader holds for typical of the unknown, so that the unknown is tried.

What it is wrong about: a server that is slow for good is tried again each few half-lives, at one request's cost. And a
pair that is asked once an hour is always new.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from fleet.scheduling.cooldown import Cooling

FRESH: Final = 1.0
"""Seconds for which a sample loses nothing: a busy pair costs no arithmetic."""
PACE_HALF_LIFE: Final = 300.0
"""Seconds. How fast a machine is changes seldom; what a request had to wait for there does."""
SUCCESS_HALF_LIFE: Final = 15.0
"""Seconds. Failures have causes that end: a process is started again, memory is free again."""


@dataclass(slots=True)
class Ewma:
    """`value` is None until the first sample, which is taken as it is; `at`: when the last one came.

    With a `prior`, forgetting draws towards it; without, what is forgotten leaves its weight to the next sample.
    """

    alpha: float = 0.2
    value: float | None = None
    half_life: float = math.inf
    prior: float | None = None
    at: float = 0.0

    def add(self, sample: float, now: float = 0.0) -> None:
        """One more. `now` may be left out if there is no half-life."""
        if self.value is None:
            self.value = sample
        elif now - self.at <= FRESH:
            self.value += self.alpha * (sample - self.value)
        elif self.prior is not None:
            faded = self.towards(self.prior, now)
            self.value = faded + self.alpha * (sample - faded)
        else:
            self.value += max(self.alpha, 1.0 - self.weight(now)) * (sample - self.value)
        self.at = now

    def weight(self, now: float) -> float:
        """How much of it is not forgotten, 0 to 1."""
        age = now - self.at
        return 1.0 if age <= FRESH else 0.5 ** (age / self.half_life)

    def towards(self, typical: float, now: float) -> float:
        """The average, and as far as it is forgotten or never was known, what is typical."""
        return typical if self.value is None else typical + (self.value - typical) * self.weight(now)


@dataclass(slots=True)
class PairStats:
    """What the scoring remembers of one model on one server. Seconds, tokens per second, share of successes.

    Only successes enter the times: a server that fails fast must not look fast.
    """

    first_byte: Ewma
    speed: Ewma
    success: Ewma
    cooling: Cooling = field(default_factory=Cooling)

    @classmethod
    def fresh(cls) -> PairStats:
        return cls(
            Ewma(half_life=PACE_HALF_LIFE),
            Ewma(half_life=PACE_HALF_LIFE),
            Ewma(alpha=0.1, half_life=SUCCESS_HALF_LIFE, prior=1.0),
        )
