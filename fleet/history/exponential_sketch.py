"""How long things took, in bins that grow by the eighth root of two: any percentile, mergeable without loss.

These are the bins of Prometheus' native histograms at schema 3 and of OpenTelemetry's exponential ones at scale 3: bin
i holds (2^((i-1)/8), 2^(i/8)]. Units: seconds. The bin of a value comes from `frexp` and a table of eight significands,
because `ceil(log2(v) * 8)` rounds wrongly at the powers.

What it is wrong about: a percentile lies within 4.5 % of the true one (nearest rank) between a microsecond and twelve
days; what is shorter counts as nothing, what is longer as twelve days.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

ERROR: Final = 2.0 ** (1 / 16) - 1.0
"""The relative error of a percentile."""
SHORTEST: Final = 2.0**-20
LONGEST: Final = 2.0**20
PER_DOUBLING: Final = 8
MOST_BINS: Final = 40 * PER_DOUBLING + 1
MOST_BYTES: Final = 16 * MOST_BINS
"""An encoded sketch is never longer."""
_LOWEST: Final = -20 * PER_DOUBLING
_SIGNIFICANDS: Final = tuple(2.0 ** (step / PER_DOUBLING - 1.0) for step in range(PER_DOUBLING))
_MOST_COUNT: Final = 2**62


class Damaged(ValueError):
    """These bytes are no sketch."""


def bin_of(seconds: float) -> int:
    """The bin of a duration above `SHORTEST`."""
    if seconds >= LONGEST:
        return 20 * PER_DOUBLING
    significand, exponent = math.frexp(seconds)
    return (exponent - 1) * PER_DOUBLING + bisect_left(_SIGNIFICANDS, significand)


def middle_of(place: int) -> float:
    """The duration that is nearest, relatively, to all of a bin; seconds."""
    return float(2.0 ** ((place - 0.5) / PER_DOUBLING))


class ExponentialSketch:
    """Counts by bin, at most 321 of them, and of what was too short to have one."""

    __slots__ = ("_counts", "nothing")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.nothing = 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ExponentialSketch):
            return NotImplemented
        return self.nothing == other.nothing and self._counts == other._counts

    __hash__ = None  # type: ignore[assignment]

    @property
    def count(self) -> int:
        """How many durations were added."""
        return self.nothing + sum(self._counts.values())

    def add(self, seconds: float) -> None:
        """Count one duration; what is no number counts as nothing."""
        if seconds > SHORTEST:
            place = bin_of(seconds)
            self._counts[place] = self._counts.get(place, 0) + 1
        else:
            self.nothing += 1

    def merge(self, other: ExponentialSketch) -> None:
        """Add all that another has counted."""
        self.nothing += other.nothing
        for place, count in other._counts.items():
            self._counts[place] = self._counts.get(place, 0) + count

    def percentile(self, share: float) -> float | None:
        """The duration that `share` (0 to 1) of all do not exceed, by nearest rank; None of nothing."""
        count = self.count
        if not count:
            return None
        rank = max(1, math.ceil(share * count - 1e-9))
        seen = self.nothing
        if seen >= rank:
            return 0.0
        for place in sorted(self._counts):
            seen += self._counts[place]
            if seen >= rank:
                return middle_of(place)
        raise AssertionError("the ranks end with the last bin")

    def encode(self) -> bytes:
        """As bytes: what was nothing, then for each bin in use its distance from the one before, and its count."""
        out = bytearray()
        _put(out, self.nothing)
        before = _LOWEST - 1
        for place in sorted(self._counts):
            _put(out, place - before)
            _put(out, self._counts[place])
            before = place
        return bytes(out)

    @classmethod
    def decode(cls, data: bytes) -> ExponentialSketch:
        """The sketch that was encoded so; no bytes are an empty one. Raises Damaged."""
        made = cls()
        made.merge_encoded(data)
        return made

    def merge_encoded(self, data: bytes) -> None:
        """Add all that another has counted, which was encoded. Raises Damaged; then what was added is not known.

        Sums of a month are thousands of these, so it is written to be quick.
        """
        if len(data) > MOST_BYTES:
            raise Damaged("a sketch is shorter than that")
        numbers = _numbers(data)
        if not numbers:
            return
        if len(numbers) % 2 == 0:
            raise Damaged("a bin has no count")
        self.nothing += numbers[0]
        place, counts = _LOWEST - 1, self._counts
        for gap, count in zip(numbers[1::2], numbers[2::2], strict=True):
            place += gap
            if gap < 1 or count < 1:
                raise Damaged("its bins are out of order")
            counts[place] = counts.get(place, 0) + count
        if place > 20 * PER_DOUBLING:
            raise Damaged("its bins are out of order")

    @classmethod
    def merged(cls, many: Iterable[ExponentialSketch]) -> ExponentialSketch:
        """All of them together."""
        made = cls()
        for each in many:
            made.merge(each)
        return made


def _put(out: bytearray, number: int) -> None:
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _numbers(data: bytes) -> Sequence[int]:
    if data.isascii():
        return data  # each of them is below 128, and a byte of its own
    numbers: list[int] = []
    number = shift = 0
    for byte in data:
        if byte < 0x80:
            numbers.append(number | byte << shift)
            number = shift = 0
            continue
        number |= (byte & 0x7F) << shift
        shift += 7
        if shift > 63:
            raise Damaged("a number is too long")
    if shift:
        raise Damaged("it ends within a number")
    if max(numbers) > _MOST_COUNT:
        raise Damaged("a number is too large")
    return numbers
