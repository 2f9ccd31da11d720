"""How often one client may ask: its budget per minute, refilled evenly, in memory that no number of clients can fill.

The generic cell rate algorithm in whole nanoseconds. All that is known of a client is when its budget will be full
again; a limit of 60 is 60 requests at once and then one a second. Times are of any one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from typing import Final, NamedTuple

SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND
_LIFE: Final = MINUTE + SECOND
"""No budget takes longer to be full again, whatever the limit; what was written before that is worth nothing."""
MOST_CLIENTS: Final = 65_536
"""Clients remembered by one table."""


class Rate(NamedTuple):
    """`limit` requests a minute; `interval` nanoseconds bring one back, `burst` nanoseconds all of them."""

    limit: int
    interval: int
    burst: int


@lru_cache(maxsize=16)
def per_minute(limit: int) -> Rate:
    """The rate of `limit` (at least 1) a minute; rounded so that never more than that come back in one."""
    interval = -(-MINUTE // limit)
    return Rate(limit, interval, interval * limit)


class RateVerdict(NamedTuple):
    """What became of one request. `remaining`: how many more could follow at once.

    `reset_epoch_seconds`: when the whole budget is there again. `retry_after`: seconds until the next request is
    allowed, 0.0 unless this one was refused.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_epoch_seconds: int
    retry_after: float


class Budgets:
    """When each client's budget is full again, for the clients of the last one to two minutes.

    Two generations: what is written goes into the young one; after a minute the old one, in which every budget is
    full again, is dropped as a whole. Nothing is ever searched or swept, and nobody waits for it.

    When half of `most` clients have written within one minute the old generation is dropped early: some get their
    budget back too soon, and nobody is refused for what others did. To win one budget in that way takes requests from
    at least half of `most` other addresses, which would have as many budgets of their own: it never pays.
    """

    __slots__ = ("_half", "_old", "_since", "_young")

    def __init__(self, most: int = MOST_CLIENTS) -> None:
        self._half = most // 2
        self._young: dict[Hashable, int] = {}
        self._old: dict[Hashable, int] = {}
        self._since: int | None = None

    def __len__(self) -> int:
        """Entries in memory; at most `most`."""
        return len(self._young) + len(self._old)

    def ask(self, client: Hashable, rate: Rate, now: int, wall: int) -> RateVerdict:
        """Take one request out of a budget, if it is there. `now` and `wall` (since the epoch) in nanoseconds.

        A refused request costs nothing. A rate that has changed holds at once: what part of its budget a client has
        used stays the same.
        """
        if self._since is None or now - self._since >= _LIFE:
            self._turn(now)
        young = self._young
        full = young.get(client)
        if full is None:
            full = self._old.get(client, now)
        limit, interval, burst = rate
        used = interval if full <= now else full - now + interval
        if used > burst:
            return RateVerdict(False, limit, 0, -(-(wall + full - now) // SECOND), (used - burst) / SECOND)
        if len(young) >= self._half and client not in young:
            self._turn(now)
            young = self._young
        young[client] = now + used
        return RateVerdict(True, limit, (burst - used) // interval, -(-(wall + used) // SECOND), 0.0)

    def _turn(self, now: int) -> None:
        stale = self._since is not None and now - self._since >= 2 * _LIFE
        self._old = {} if stale else self._young
        self._young = {}
        self._since = now


class Limiter:
    """The budgets of one listener's clients: of keys, which an operator has handed out, and of addresses.

    They are apart, because anybody may have many addresses: those can never push a key out of its table.
    """

    __slots__ = ("addresses", "keys")

    def __init__(self, most: int = MOST_CLIENTS) -> None:
        self.keys = Budgets(most)
        self.addresses = Budgets(most)
