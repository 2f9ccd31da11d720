"""What a meter is made of: histograms with examples, a pace over the last minute, tables with room for so many."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator, Sequence, Set
from itertools import accumulate, chain
from typing import Final, Generic, NamedTuple, TypeVar

MINUTE: Final = 60.0
_STEP: Final = 5.0
_STEPS: Final = 12


class Example(NamedTuple):
    """One request that fell into a bucket, and when it ended (seconds since 1970)."""

    request_id: str
    value: float
    at: float


Buckets = tuple[tuple[int, ...], float, tuple[Example | None, ...]]
"""A histogram at one moment: cumulative counts (the last one is of all), the sum, an example of each bucket."""


class Histogram:
    """Counts of values by bucket. A value belongs to the first bound that is not below it."""

    __slots__ = ("_bounds", "_counts", "_examples", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._examples: list[Example | None] = [None] * len(self._counts)
        self._sum = 0.0

    def observe(self, values: Sequence[float], ids: Sequence[str] = (), at: float = 0.0) -> None:
        """Count some values; with `ids`, as many, the last of each bucket becomes its example."""
        bounds, counts = self._bounds, self._counts
        places = [bisect_left(bounds, value) for value in values]
        for place in places:
            counts[place] += 1
        self._sum += sum(values)
        if ids:
            for place, number in {place: number for number, place in enumerate(places)}.items():
                self._examples[place] = Example(ids[number], values[number], at)

    def shown(self) -> Buckets:
        """As it is now; nobody changes what this returns."""
        return tuple(accumulate(self._counts)), self._sum, tuple(self._examples)


class MinuteRate:
    """How much came in the last minute, in steps of five seconds. `now` never runs back."""

    __slots__ = ("_began", "_step", "_steps")

    def __init__(self, now: float) -> None:
        self._began = now
        self._step = int(now // _STEP)
        self._steps = [0.0] * (_STEPS + 1)

    def add(self, now: float, amount: float) -> None:
        """Count so much."""
        self._advance(now)
        self._steps[-1] += amount

    def per_second(self, now: float) -> float:
        """The mean over the last minute, or since it began (at least a second)."""
        self._advance(now)
        span = min(MINUTE + now % _STEP, now - self._began)
        return sum(self._steps) / max(span, 1.0)

    def _advance(self, now: float) -> None:
        passed = min(int(now // _STEP) - self._step, len(self._steps))
        if passed > 0:
            self._step = int(now // _STEP)
            self._steps = [*self._steps[passed:], *[0.0] * passed]


K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Table(Generic[K, V]):
    """Series by what they are about. The first `most` keys have one of their own; the others share (see `shared`)."""

    def __init__(self, make: Callable[[], V], gone: Callable[[K], bool]) -> None:
        self.most = 0
        self._make = make
        self._gone = gone
        self._own: dict[K, V] = {}
        self._shared: dict[K, V] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._own

    def has(self, keys: Set[K]) -> bool:
        """Whether each of these has a series of its own."""
        return keys <= self._own.keys()

    def __iter__(self) -> Iterator[K]:
        return iter(self._own)

    def own(self, key: K) -> V | None:
        """The series of this key, made if there is room; else None."""
        found = self._own.get(key)
        if found is None and len(self._own) < self.most:
            found = self._own[key] = self._make()
        return found

    def shared(self, key: K) -> V:
        """The series that several share; there are few such keys."""
        found = self._shared.get(key)
        if found is None:
            found = self._shared[key] = self._make()
        return found

    def items(self) -> Iterator[tuple[K, V]]:
        """All series."""
        return chain(self._own.items(), self._shared.items())

    def sweep(self) -> None:
        """Forget what is gone."""
        for table in (self._own, self._shared):
            for key in [key for key in table if self._gone(key)]:
                del table[key]
