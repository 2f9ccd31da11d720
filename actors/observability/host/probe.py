"""One part of the machine (its disk, its GPUs ...) and the worker thread that asks for it, never more than one."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from fleet.observability.host_sample import Measured

log = logging.getLogger("fleet.host")

Probe = Callable[[], Measured]
"""Blocking; called by one thread at a time. Raises anything at all when there is nothing to be had."""
InThread = Callable[[Callable[[], Any]], Awaitable[Any]]

LONGEST_PAUSE: Final = 600.0
"""Seconds after which even a part that has always failed is asked again."""


class Absent(Exception):
    """The machine does not have this."""


class Thread:
    """Runs blocking calls, one at a time. Cancelled: the caller goes on, and the thread is `busy` until it ends."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(1)

    @property
    def busy(self) -> bool:
        """Whether a call is under way, even one that nobody waits for any more."""
        return self._limiter.borrowed_tokens > 0

    async def __call__(self, call: Callable[[], Any]) -> Any:
        return await trio.to_thread.run_sync(call, limiter=self._limiter, abandon_on_cancel=True)


class Part:
    """A probe, and how it went lately. Times on Trio's clock, in seconds."""

    def __init__(self, name: str, probe: Probe, thread: Thread | None = None) -> None:
        self.name = name
        self._probe = probe
        self._thread = thread or Thread()
        self._due = -math.inf
        self._failures = 0
        self._told = False
        self._found: Measured = {}
        self._found_at = -math.inf
        self.answered = trio.Event()
        """Set while it is not being asked."""
        self.answered.set()

    @property
    def due(self) -> bool:
        """Whether to ask now: nobody does already, it is not resting after failures, and no call hangs."""
        return self.answered.is_set() and trio.current_time() >= self._due and not self._thread.busy

    def figures(self, longest: float) -> Measured:
        """What it said last, if that is not older than so many seconds; nothing if it has failed since."""
        return self._found if trio.current_time() - self._found_at <= longest else {}

    def start(self, nursery: trio.Nursery, interval: float, timeout: float) -> None:
        """Ask; what there is within `timeout` seconds becomes its figures. If that failed it rests, ever longer.

        Cancelled: the call goes on in its thread, and what it finds is dropped.
        """
        self.answered = trio.Event()
        nursery.start_soon(self._ask, interval, timeout)

    async def _ask(self, interval: float, timeout: float) -> None:
        try:
            with trio.fail_after(timeout):
                self._found = await self._thread(self._probe)
        except Exception as trouble:
            self._failed(trouble, interval, timeout)
        else:
            self._found_at = trio.current_time()
            self._due, self._failures, self._told = -math.inf, 0, bool(self._found) or self._told
        finally:
            self.answered.set()

    def _failed(self, trouble: Exception, interval: float, timeout: float) -> None:
        self._found = {}
        pause = min(interval * 2.0 ** min(self._failures, 30), max(LONGEST_PAUSE, interval))
        self._failures += 1
        self._due = trio.current_time() + pause
        hung = isinstance(trouble, trio.TooSlowError)
        why = f"no answer within {timeout:g} s" if hung else f"{type(trouble).__name__}: {trouble}"
        news = self._failures == 1 and (hung or self._told)  # what was never there is no news
        level = logging.WARNING if news else logging.DEBUG
        log.log(level, "no figures of the machine's %s: %s", self.name, why[:200])
