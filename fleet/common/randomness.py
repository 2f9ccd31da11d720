"""What the fleet asks of a source of randomness. Whoever calls brings one: nothing here rolls dice of its own."""

from __future__ import annotations

from typing import Protocol


class Chance(Protocol):
    """A source of numbers in [0, 1), the part of `random.Random` that we need."""

    def random(self) -> float: ...


class Dice(Protocol):
    """A source of whole numbers of so many random bits, the part of `random.Random` that makes names."""

    def getrandbits(self, k: int, /) -> int: ...
