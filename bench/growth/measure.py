"""Measures one reader: processor time for an input, and for one of twice the size."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import thread_time
from typing import Any, Final

MOST: Final = 2.5
"""The time for an input of twice the size, at most, as a multiple. Linear is 2; what is quadratic takes 4."""
_ROUNDS: Final = 3
_LONG_ENOUGH: Final = 0.002
"""Seconds that a measurement takes at least, by repetition; shorter ones are noise."""


@dataclass(frozen=True, slots=True)
class Case:
    """One reader with its worst input: `make(size)` builds it, `run(made)` reads it and swallows its refusal.

    `size` is near half of the largest that the product lets in, or large enough for what is fixed not to matter.
    """

    name: str
    size: int
    make: Callable[[int], Any]
    run: Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class Growth:
    """Seconds for an input of `size`, and for one of twice the size; for one of a quarter where that was needed."""

    name: str
    size: int
    once: float
    doubled: float
    quarter: float | None = None

    @property
    def ratio(self) -> float:
        """How much longer a doubling takes: the last one, or the mean of the last three."""
        if self.quarter is None:
            return self.doubled / self.once
        return float((self.doubled / self.quarter) ** (1 / 3))


def grown(case: Case, tries: int = 6) -> Growth:
    """Measure a case; again, up to `tries` times, as long as it seems to grow by more than `MOST`.

    Time is the processor's for this thread, the least of several rounds, so a busy machine only makes it slower. What
    still seems to grow faster may be no more than the edge of a cache or of an allocator, which one doubling crosses
    and the next does not: then the mean over three doublings decides, where a quadratic reader takes 64 times as long.
    """
    small, large = case.make(case.size), case.make(2 * case.size)
    with _undisturbed():
        repeats = max(1, round(_LONG_ENOUGH / max(_seconds(case.run, small, 1), 1e-7)))
        once, doubled = float("inf"), float("inf")
        for _ in range(tries):
            for _ in range(_ROUNDS):
                once = min(once, _seconds(case.run, small, repeats))
                doubled = min(doubled, _seconds(case.run, large, repeats))
            if doubled <= MOST * once:
                return Growth(case.name, case.size, once, doubled)
        quarter = min(_seconds(case.run, case.make(case.size // 4), 4 * repeats) for _ in range(_ROUNDS))
    return Growth(case.name, case.size, once, doubled, quarter)


def _seconds(run: Callable[[Any], object], made: Any, repeats: int) -> float:
    began = thread_time()
    for _ in range(repeats):
        run(made)
    return (thread_time() - began) / repeats


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without the garbage collector, whose rounds cost as much as the rest of the process is large."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
