"""What holds for the request bodies of a fleet: how long they may take, and how much memory all may have together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from fleet.common.errors import BodyBudget


class Budget:
    """Bytes of request bodies that may be in memory at one time, all requests together."""

    def __init__(self, limit: float = math.inf) -> None:
        self.limit = limit
        self.used = 0

    def take(self, size: int) -> None:
        """Account for bytes. Raises BodyBudget when there is no room; nothing is taken then."""
        if self.used + size > self.limit:
            raise BodyBudget("too many large requests at once", details="see limits.buffered_bytes", retry_after=1.0)
        self.used += size

    def give_back(self, size: int) -> None:
        """They are gone."""
        self.used -= size


@dataclass(frozen=True, slots=True)
class BodyTerms:
    """What holds for every body of a fleet: seconds of silence, seconds in all, and the memory they share."""

    idle: float = math.inf
    total: float = math.inf
    budget: Budget = field(default_factory=Budget)
