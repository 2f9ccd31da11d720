"""Sums over the last minute, hour, week: buckets that are fine while they are young and coarse when they are old.

Everything is in exactly one bucket. A bucket that has come of age is merged into a wider one; after a week, or after
as long as anybody asks for, it is dropped. Buckets are made only when there is something to count.

What it is wrong about: the far edge. A window begins with the whole of the bucket that lies across its edge, so it may
reach back further than was asked for: up to 5 s beyond a minute, 20 s beyond five, a minute beyond fifteen, five
beyond an hour, an hour beyond a day, six beyond a week (in between, up to one bucket of that age). It says where it
begins; sums are exact from there on, and rates are taken over that time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, Protocol, Self, TypeVar

LEVELS: Final = (
    (5.0, 60.0),
    (20.0, 300.0),
    (60.0, 900.0),
    (300.0, 3_600.0),
    (900.0, 21_600.0),
    (3_600.0, 86_400.0),
    (21_600.0, 604_800.0),
)
"""How wide buckets are, up to which age; seconds. Every width divides the next."""
LONGEST: Final = LEVELS[-1][1]
Levels = Sequence[tuple[float, float]]
_YOUNGEST: Final = (0.0, *(age for _, age in LEVELS))

MOST_BUCKETS: Final = sum(
    math.ceil((age - younger) / width) + 1 for (width, age), younger in zip(LEVELS, _YOUNGEST, strict=False)
)
"""How many buckets a series can have at once."""


def levels_to(longest: float) -> Levels:
    """Those for windows of at most so many seconds."""
    return tuple(level for level in LEVELS if level[1] <= longest)


_UNITS: Final = {"m": 60, "h": 3_600, "d": 86_400}
_SPAN: Final = re.compile(r"([1-9][0-9]{0,4})([mhd])", re.ASCII)


def span_of(text: str) -> float | None:
    """Seconds of `15m`, `6h`, `7d`; None for anything else, and for more than seven days."""
    match = _SPAN.fullmatch(text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else math.inf
    return seconds if seconds <= LONGEST else None


class Bucket(Protocol):
    """What a bucket can do."""

    def merge(self, other: Self) -> None: ...

    def copy(self) -> Self: ...


B = TypeVar("B", bound=Bucket)


class _Slot(Generic[B]):
    """A bucket, where it begins and how far it reaches by now."""

    __slots__ = ("bucket", "end", "start")

    def __init__(self, start: float, end: float, bucket: B) -> None:
        self.start = start
        self.end = end
        self.bucket = bucket


class Series(Generic[B]):
    """The buckets of one thing. `now` is the caller's clock, in seconds, and never runs back.

    `levels` are as `LEVELS`, or fewer and coarser where there are many series or nobody asks for long windows.
    """

    __slots__ = ("_ends", "_levels", "_make", "_open", "_plan")

    def __init__(self, make: Callable[[], B], levels: Levels = LEVELS) -> None:
        self._make = make
        self._plan = levels
        self._levels: list[list[_Slot[B]]] = [[] for _ in levels]
        self._open: B | None = None
        self._ends = -math.inf

    def __len__(self) -> int:
        return sum(len(level) for level in self._levels)

    def bucket(self, now: float) -> B:
        """Where to count what happens now."""
        if now < self._ends and self._open is not None:
            return self._open
        self.settle(now)
        width = self._plan[0][0]
        start = now // width * width
        slot = _Slot(start, start + width, self._make())
        self._levels[0].append(slot)
        self._open, self._ends = slot.bucket, slot.end
        return slot.bucket

    def window(self, now: float, span: float, into: B) -> float:
        """Merge the last `span` seconds into an empty bucket; returns where they begin."""
        ((start, _),) = self.windows(now, (span,), into)
        return start

    def windows(self, now: float, spans: Sequence[float], into: B) -> list[tuple[float, B]]:
        """The sums over several spans (rising), each with where it begins; `into` is empty, and the last of them."""
        self.settle(now)
        found: list[tuple[float, B]] = []
        slots = self._newest_first()
        slot = next(slots, None)
        start = now
        for span in spans:
            while slot is not None and slot.end > now - span:
                into.merge(slot.bucket)
                start = slot.start
                slot = next(slots, None)
            found.append((min(start, now - span), into.copy() if len(found) + 1 < len(spans) else into))
        return found

    def settle(self, now: float) -> None:
        """Pass on what has come of age."""
        for number, (_, age) in enumerate(self._plan):
            level = self._levels[number]
            while level and level[0].end <= now - age:
                slot = level.pop(0)
                if number + 1 < len(self._plan):
                    self._pass_on(slot, number + 1)

    def _pass_on(self, slot: _Slot[B], number: int) -> None:
        width, level = self._plan[number][0], self._levels[number]
        if level and level[-1].start // width == slot.start // width:
            level[-1].bucket.merge(slot.bucket)
            level[-1].end = slot.end
        else:
            level.append(slot)

    def _newest_first(self) -> Iterator[_Slot[B]]:
        for level in self._levels:
            yield from reversed(level)
