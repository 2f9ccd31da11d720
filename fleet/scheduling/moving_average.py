"""An exponentially weighted average that counts samples, not seconds.

What it is wrong about: a server that was slow an hour ago and idle since still looks slow, since nothing new has been
seen of it. That is bearable where an idle server also scores well on load, and it costs two floats.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fleet.scheduling.cooldown import Cooling


@dataclass(slots=True)
class Ewma:
    """`value` is None until the first sample, which is taken as it is."""

    alpha: float = 0.2
    value: float | None = None

    def add(self, sample: float) -> None:
        self.value = sample if self.value is None else self.value + self.alpha * (sample - self.value)


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
        return cls(Ewma(), Ewma(), Ewma(alpha=0.1))
