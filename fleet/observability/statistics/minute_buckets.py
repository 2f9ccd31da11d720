"""Sums over the last few minutes, minute by minute: little memory per thing that is watched, and nothing older.

What it is wrong about: a window of five minutes is the running one and the four before, so between four and five.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from fleet.observability.statistics.time_windows import Bucket

_MINUTE: Final = 60.0

B = TypeVar("B", bound=Bucket)


class Minutes(Generic[B]):
    """The buckets of the last `most` minutes. `now` is the caller's clock, in seconds, and never runs back."""

    __slots__ = ("_buckets", "_make", "_most")

    def __init__(self, make: Callable[[], B], most: int) -> None:
        self._make = make
        self._most = most
        self._buckets: deque[tuple[int, B]] = deque()

    def __bool__(self) -> bool:
        """Whether there may be anything."""
        return bool(self._buckets)

    def bucket(self, now: float) -> B:
        """Where to count what happens now."""
        minute = math.floor(now / _MINUTE)
        if not self._buckets or self._buckets[-1][0] < minute:
            self._buckets.append((minute, self._make()))
            self.settle(now)
        return self._buckets[-1][1]

    def merged(self, now: float) -> B:
        """All of them together, as a bucket of its own."""
        self.settle(now)
        whole = self._make()
        for _, bucket in self._buckets:
            whole.merge(bucket)
        return whole

    def settle(self, now: float) -> None:
        """Forget what is too old."""
        oldest = math.floor(now / _MINUTE) - self._most
        while self._buckets and self._buckets[0][0] <= oldest:
            self._buckets.popleft()
