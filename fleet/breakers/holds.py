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

    limit: int = 0
    until: float = -math.inf
    since: float = math.inf
    """When it began to refuse whatever was tried."""
    _refused_at: float = -math.inf
    _backoff: float = FIRST
    _rounds: int = 0
    _tried: bool = True
    _step: int = 1

    def admits(self, opened: int) -> bool:
        """Whether one more may be sent beside so many."""
        return opened < self.limit

    def refused(self, opened: int, asked: float, now: float) -> None:
        """The server had enough to do with so many others; `asked`: seconds after which it wants to see us again."""
        if self._tried:  # else it was sent together with the one refused before, which has been counted
            self._rounds = min(self._rounds + 1, _MOST_ROUNDS)
        self._tried = False
        self._backoff = min(FIRST * 2.0 ** (self._rounds - 1), LONGEST)
        self.until = max(self.until, now + max(self._backoff, min(asked, LONGEST_ASKED)))
        self.since = min(self.since, now)
        self._refused_at = now
        self.limit, self._step = opened, 1

    def relaxed(self, now: float) -> bool:
        """Think it over; True if that lets more in than before."""
        if now < self.until:
            return False
        if self._step > 1:  # one more was tried, and taken
            self.since, self._rounds = math.inf, 0
        self._tried = True
        self.limit += self._step
        self._step *= 2
        self.until = now + self._backoff
        return True

    def over(self, now: float) -> bool:
        """Whether the past counts no more."""
        return now - self._refused_at >= FORGOTTEN

    def wait(self, opened: int, now: float) -> float:
        """Seconds until one more may be sent: as long again as it has refused already, since nobody can tell."""
        return 0.0 if self.admits(opened) else max(self.until - now, now - self.since)
