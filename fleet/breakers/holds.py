"""Back-pressure of one pair: a server that says it has enough to do gets fewer requests at once for a while.

That is nobody's fault, so it is no failure and no cool-down. What was open beside the refused request is what the
server takes; whoever wants a place waits in line until one of those ends, or until a back-off has passed: then one more
is tried, then two more, then four, as long as none is refused. What is refused after the back-off doubles it.

Formula: back-off = 0.25 s x 2^refusals, 4 s at the most, or what the server asked for (30 s at the most). Units:
seconds on the caller's clock. Source: additive increase after a refusal, as in congestion control.

What it is wrong about: a server that is full of others' requests shows it only when it is asked, so up to four seconds
pass between its having room and our noticing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

FIRST: Final = 0.25
LONGEST: Final = 4.0
"""Seconds until one more is tried, at first and at the most."""
LONGEST_ASKED: Final = 30.0
"""Seconds for which a server's own word on when to come back is believed, at the most."""
FORGOTTEN: Final = 60.0
"""Seconds without a refusal after which nothing is held back any more."""
_MOST_ROUNDS: Final = 10


@dataclass(slots=True)
class Hold:
    """Of one pair. `limit`: how many of its requests may be open; `until`: when that is thought over."""

    limit: float = math.inf
    until: float = math.inf
    since: float = math.inf
    """When it began to refuse whatever was tried."""
    reserved: bool = False
    """Whether it is kept for a request that has to be alone."""
    _reserved_until: float = -math.inf
    _refused_at: float = -math.inf
    _backoff: float = FIRST
    _rounds: int = 0
    _tried: bool = True
    _step: int = 1

    def admits(self, opened: int) -> bool:
        """Whether one more may be sent beside so many."""
        return opened < self.limit and not self.reserved

    def reserve(self, until: float) -> None:
        """Keep the pair for a request that has to be alone there, until then at the most."""
        self.reserved, self._reserved_until = True, until

    @property
    def due(self) -> float:
        """When it has to be thought over."""
        return min(self.until, self._reserved_until) if self.reserved else self.until

    def refused(self, opened: int, asked: float, now: float) -> None:
        """The server had enough to do with so many others; `asked`: seconds after which it wants to see us again."""
        if self._tried:  # else it was sent together with the one refused before, which has been counted
            self._rounds = min(self._rounds + 1, _MOST_ROUNDS)
        self._tried = False
        self._backoff = min(FIRST * 2.0 ** (self._rounds - 1), LONGEST)
        before = self.until if math.isfinite(self.until) else -math.inf
        self.until = max(before, now + max(self._backoff, min(asked, LONGEST_ASKED)))
        self.since = min(self.since, now)
        self._refused_at = now
        self.limit, self._step = opened, 1

    def relaxed(self, now: float) -> bool:
        """Think it over; True if that lets more in than before."""
        freed = self.reserved and now >= self._reserved_until
        if freed:
            self.reserved = False
        if now < self.until or math.isinf(self.limit):
            return freed
        if self._step > 1:  # one more was tried, and taken
            self.since, self._rounds = math.inf, 0
        self._tried = True
        self.limit += self._step
        self._step *= 2
        self.until = now + self._backoff
        return True

    def over(self, now: float) -> bool:
        """Whether the past counts no more."""
        return now - self._refused_at >= FORGOTTEN and not self.reserved

    def wait(self, opened: int, now: float, *, alone: bool = False) -> float:
        """Seconds until one more may be sent: as long again as it has refused already, since nobody can tell.

        `alone`: for whom the pair is kept.
        """
        if opened < self.limit and (alone or not self.reserved):
            return 0.0
        return max(self.due - now, now - self.since)
