"""How long things took, in bins whose edges grow by a tenth: any percentile, in little memory, and mergeable.

What it is wrong about: between a millisecond and a day a percentile lies within 5 % of the true one (nearest rank);
what is shorter than a millisecond counts as one, what is longer than a day as a day. Merging loses nothing more.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Final

ERROR: Final = 0.05
"""The relative error of a percentile."""
LONGEST: Final = 86_400_000.0
"""Milliseconds; a day."""

_GROWTH: Final = (1 + ERROR) / (1 - ERROR)
_PER_BIN: Final = 1 / math.log(_GROWTH)
BINS: Final = math.ceil(math.log(LONGEST) * _PER_BIN) + 1


def bin_of(value: float) -> int:
    """The bin of a value in milliseconds: 0 up to 1 ms, then (g^(n-1), g^n] with g = 1.105."""
    if not value > 1.0:
        return 0
    return BINS - 1 if value >= LONGEST else math.ceil(math.log(value) * _PER_BIN)


def value_of(place: int) -> float:
    """The value that is nearest, relatively, to all of a bin; milliseconds."""
    return 1.0 if place == 0 else float(2.0 * _GROWTH**place / (_GROWTH + 1.0))


class Sketch:
    """Counts from the lowest bin in use to the highest.

    A counter holds 4 thousand millions, enough for six hours at 190,000 a second; `wide` ones never overflow.
    """

    __slots__ = ("_counts", "_low")

    def __init__(self, *, wide: bool = False) -> None:
        self._low = 0
        self._counts: array[int] = array("Q" if wide else "I")

    def __len__(self) -> int:
        """How many counters are held."""
        return len(self._counts)

    def add(self, places: Sequence[int]) -> None:
        """Count one in each of these bins (see `bin_of`); there is at least one."""
        self._reach(max(places))
        low = min(places)
        low -= self._reach(low)
        counts = self._counts
        for place in places:
            counts[place - low] += 1

    def merge(self, other: Sketch) -> None:
        """Add all that another has counted."""
        theirs = other._counts
        if not theirs:
            return
        self._reach(other._low + len(theirs) - 1)
        first = self._reach(other._low)
        mine = self._counts
        for at, count in enumerate(theirs, first):
            if count:
                mine[at] += count

    def copy(self) -> Sketch:
        """The same counts, which then go their own way."""
        made = Sketch()
        made._low = self._low
        made._counts = self._counts[:]
        return made

    def percentile(self, share: float) -> float:
        """The value that `share` (0-1) of all do not exceed, by nearest rank; milliseconds, 0 of nothing."""
        rank = max(1, math.ceil(share * sum(self._counts) - 1e-9))
        seen = 0
        for place, count in enumerate(self._counts, self._low):
            seen += count
            if seen >= rank:
                return value_of(place)
        return 0.0

    def _reach(self, place: int) -> int:
        """Make room for a bin; returns where it is."""
        counts = self._counts
        if not counts:
            self._low = place
        if place < self._low:
            self._counts = array(counts.typecode, bytes(counts.itemsize * (self._low - place))) + counts
            self._low = place
        elif (missing := place - self._low + 1 - len(counts)) > 0:
            counts.frombytes(bytes(counts.itemsize * missing))
        return place - self._low
