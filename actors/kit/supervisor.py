"""Restart policy as data, and the one loop that applies it.

After OTP: an actor that crashes is started again with the state of its cell; at most `restarts` in `within` seconds,
then the supervisor gives up and the caller decides (a crash-looping server must not take its siblings along).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

log = logging.getLogger("fleet.supervisor")


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """At most `restarts` in `within` seconds; each restart waits `delay`, doubling up to `max_delay`."""

    restarts: int = 5
    within: float = 60.0
    delay: float = 0.01
    max_delay: float = 1.0


class RestartLimit(Exception):
    """An actor crashed too often; its supervisor gave up."""


@dataclass(slots=True)
class RestartBudget:
    """Counts crashes in a sliding window."""

    policy: RestartPolicy
    crashes: deque[float] = field(default_factory=deque)

    def spend(self, now: float) -> float | None:
        """Seconds to wait before the next start, or None when the budget is used up."""
        while self.crashes and self.crashes[0] <= now - self.policy.within:
            self.crashes.popleft()
        if len(self.crashes) >= self.policy.restarts:
            return None
        self.crashes.append(now)
        return min(self.policy.delay * 2.0 ** (len(self.crashes) - 1), self.policy.max_delay)


async def supervise(name: str, body: Callable[[], Awaitable[None]], policy: RestartPolicy | None = None) -> None:
    """Run `body` until it returns; start it again when it crashes. Raises `RestartLimit` when it crashes too often.

    Cancelled is not a crash. A group that mixes Cancelled with an error is on its way out and passes.
    """
    budget = RestartBudget(policy or RestartPolicy())
    while True:
        try:
            await body()
            return
        except Exception as crash:
            delay = budget.spend(trio.current_time())
            log.error("actor %s crashed", name, exc_info=crash, extra={"actor": name})
            if delay is None:
                raise RestartLimit(name) from crash
        await trio.sleep(delay)


async def keep_up(name: str, body: Callable[[], Awaitable[None]], *, pause: float = 30.0) -> None:
    """Supervise until `body` returns, which is its own wish; it is not run again.

    An actor that crashes too often rests for `pause` seconds, and everybody else goes on. Cancelled: as `supervise`.
    """
    while True:
        try:
            await supervise(name, body)
            return
        except RestartLimit:
            log.error("actor %s is given up for %g s", name, pause, extra={"actor": name})
        await trio.sleep(pause)
