"""Which breaker gives way when those of a model are all open: the last server of a model is never shut for good.

Shutting a pair out helps as long as others serve its model. When nobody else is left, waiting out a period of minutes
only makes an outage of what may be over already: two clients with a request that crashes its runner can shut every
server, all of which are healthy. So the best of them is tried at once, as load balancers ignore the health of their
hosts below a panic threshold (Envoy). Bounded: a half-open breaker counts as somebody who is left, so that one trial of
one server is out at a time, and `Breaker.rescue_at` keeps trials that fail apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from fleet.breakers.state_machine import Breaker


def last_resort(breakers: Iterable[Breaker], now: float) -> Breaker | None:
    """Of those that are all that is left of a model: whom to call `rescue` on; None if all were forced, or are told.

    Who may be tried first; of several, who has failed least since it worked, then who has worked last.
    """
    best = min(breakers, key=lambda breaker: _rank(breaker, now), default=None)
    return best if best is not None and best.rescue_at < best.gate.retry_at else None


def _rank(breaker: Breaker, now: float) -> tuple[float, int, float]:
    worked = -math.inf if breaker.last_success is None else breaker.last_success
    return max(breaker.rescue_at, now), breaker.failed_rescues + breaker.failed_recoveries, -worked
