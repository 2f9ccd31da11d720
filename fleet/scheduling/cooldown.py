"""How long a pair that fails fast is passed over: who refuses in a millisecond always has a free slot.

What it is wrong about: it cannot tell a server that came back from one that did not, but by trying it. So the time is
short at first and doubles with each trial that fails; a success ends it. No pair is passed over if nobody else can
serve the model (see `fleet.scheduling.server_index`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

FAST: Final = 1.0
"""Seconds within which a failure is a fast one."""
ENOUGH: Final = 2
"""Fast failures in a row after which the pair is passed over."""
FIRST: Final = 1.0
LONGEST: Final = 60.0
"""Seconds for which it is passed over at first, and at the most."""
_FORGOTTEN: Final = 300.0
"""Seconds without a failure after which the past counts no more."""
_HALF_LIFE: Final = 15.0
"""Seconds after which a failure counts half with those who choose: as `moving_average` has it of shares of success."""
_MOST: Final = 10


@dataclass(slots=True)
class Cooling:
    """The memory of one pair. `strikes` are its fast failures in a row, which every policy holds against it."""

    strikes: int = 0
    rounds: int = 0
    since: float = -math.inf
    """When it was last passed over: what began before tells nothing new."""
    last: float = -math.inf

    def failed(self, started: float, now: float) -> float:
        """A fast failure of what began at `started`; seconds for which to pass the pair over from now, 0 if not."""
        if now - self.last > _FORGOTTEN:
            self.strikes = self.rounds = 0
        self.last = now
        self.strikes = min(self.strikes + 1, _MOST)
        if self.strikes < ENOUGH or started <= self.since:
            return 0.0
        self.since = now
        self.rounds = min(self.rounds + 1, _MOST)
        return min(FIRST * 2.0 ** (self.rounds - 1), LONGEST)

    def succeeded(self, started: float) -> bool:
        """A success; True if that ends a time of being passed over, or of being held against."""
        if not self.strikes or started <= self.since:
            return False
        self.strikes = self.rounds = 0
        return True

    def held(self, now: float) -> float:
        """How many failures are held against it by now, half as many after each half-life without another.

        Else a pair that others outdo would never be tried again, for it takes a success to end its strikes.
        """
        return self.strikes * 0.5 ** (max(now - self.last, 0.0) / _HALF_LIFE) if self.strikes else 0.0

    def rested(self) -> None:
        """Its time is over: it is as good as others until it fails once more, which then is enough."""
        self.strikes = min(self.strikes, ENOUGH - 1)
