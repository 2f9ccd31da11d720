"""What time it is, and the dice: the one place where a clock of the machine's is read.

(Time-outs are Trio's business, and so is `trio.current_time` where one is worked out.)
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

import trio

from fleet.common.times import ClockReading

stopwatch: Final = time.perf_counter
"""Seconds of real time, for who measures work: they go by where `Clock.now` is virtual, too."""


class Clock:
    """Two clocks, which need not run alike: `now` never runs back, `wall` is the time of day and may be set.

    Seconds. `now` and `wall` are attributes, not methods: `now` is asked several times per request, and this is the
    shortest way to `trio.current_time`. Made within Trio's run, unless `now` is given.
    """

    __slots__ = ("chance", "now", "wall")

    def __init__(
        self,
        seed: int | None = None,
        *,
        now: Callable[[], float] | None = None,
        wall: Callable[[], float] | None = None,
    ) -> None:
        self.now: Callable[[], float] = now or trio.lowlevel.current_clock().current_time
        self.wall: Callable[[], float] = wall or time.time
        self.chance = random.Random(seed)
        """The dice of everything that shall not happen in step, or not be foreseen. Not for secrets."""

    def nanoseconds(self) -> tuple[int, int]:
        """`now` and `wall` in whole nanoseconds, for who counts in those."""
        return int(self.now() * 1e9), int(self.wall() * 1e9)

    def reading(self) -> ClockReading:
        """Both, once: for an answer in which many moments stand."""
        return ClockReading(self.now(), self.wall())

    def epoch(self, moment: float) -> float:
        """Seconds since 1970 of a moment on our clock, for what is kept or shown."""
        return self.wall() - (self.now() - moment)

    def moment(self, epoch: float) -> float:
        """The moment on our clock of seconds since 1970; may lie before our clock began."""
        return self.now() - (self.wall() - epoch)


def process_clock(seed: int | None = None) -> Clock:
    """For what runs where Trio does not: a command, a thread."""
    return Clock(seed, now=time.monotonic)
