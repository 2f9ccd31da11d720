"""How fast work is finished, and how often failover may be tried."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

_KEEP: Final = 32
"""Completions from which the pace is taken."""


@dataclass(slots=True)
class ServiceRate:
    """Completions per second over the last few completions.

    What it is wrong about: it reports the pace of the past; when work stops, the pace sinks only as time passes.
    """

    _ends: deque[float] = field(default_factory=lambda: deque(maxlen=_KEEP))

    def note(self, now: float) -> None:
        self._ends.append(now)

    def per_second(self, now: float) -> float:
        """0 while fewer than two completions are known."""
        if len(self._ends) < 2:
            return 0.0
        return len(self._ends) / max(now - self._ends[0], 1e-3)

    def wait_for(self, count: float, now: float) -> float | None:
        """Seconds until `count` more completions at this pace; None when the pace is unknown."""
        rate = self.per_second(now)
        return count / rate if rate else None


@dataclass(slots=True)
class RetryBudget:
    """Failover may be `ratio` of live traffic, plus `floor`: it keeps a failing fleet from multiplying its own load.

    Live traffic is what began in the last `window` seconds plus what is open now, so that a server that dies with long
    requests on it does not use the budget up. Two buckets of half a window each stand in for a sliding window.
    """

    ratio: float
    floor: int
    window: float = 10.0
    _start: float = 0.0
    _requests: list[int] = field(default_factory=lambda: [0, 0])
    _retries: list[int] = field(default_factory=lambda: [0, 0])

    def request(self, now: float) -> None:
        self._roll(now)
        self._requests[0] += 1

    def spend(self, now: float, live: int) -> bool:
        """Take one retry, `live` requests being open; False when the budget is used up."""
        self._roll(now)
        if sum(self._retries) >= self.floor + self.ratio * (sum(self._requests) + live):
            return False
        self._retries[0] += 1
        return True

    def refund(self) -> None:
        """A retry that was taken found no server to try."""
        self._retries[0] = max(0, self._retries[0] - 1)

    def _roll(self, now: float) -> None:
        steps = int((now - self._start) / (self.window / 2))
        if steps <= 0:
            return
        self._start += steps * (self.window / 2)
        for counts in (self._requests, self._retries):
            counts[1] = counts[0] if steps == 1 else 0
            counts[0] = 0
