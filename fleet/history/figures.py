"""Figures of requests by what became of them. One definition of each, for every route that shows it.

An error is what statistics count as one (`failure_classes`): a request that got no answer, whoever is to blame, unless
its client left. Times are from arrival to end, of every outcome.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from fleet.breakers.failure_classes import LEFT, NO_ERRORS
from fleet.history.questions import SumsGroup
from fleet.history.rollups import Rollup

Names = tuple[str, ...]
OUTCOME: Final = "outcome"


@dataclass(slots=True)
class RequestFigures:
    """Requests added up. `left`: their clients went away; they are neither answered nor errors."""

    sums: Rollup = field(default_factory=Rollup)
    errors: int = 0
    left: int = 0

    def add(self, outcome: str, sums: Rollup) -> None:
        """More of them, which ended so."""
        self.sums.merge(sums)
        self.errors += 0 if outcome in NO_ERRORS else sums.requests
        self.left += sums.requests if outcome in LEFT else 0

    @property
    def requests(self) -> int:
        """All of them."""
        return self.sums.requests

    @property
    def answered(self) -> int:
        """Those whose clients got what they asked for."""
        return self.requests - self.errors - self.left

    @property
    def error_rate(self) -> float:
        """Errors by requests, 0 to 1; 0 of nothing."""
        return self.errors / self.requests if self.requests else 0.0

    @property
    def average(self) -> float:
        """Mean seconds; 0 of nothing."""
        return self.sums.total / self.requests if self.requests else 0.0

    def percentile(self, share: float) -> float | None:
        """Seconds; see `Rollup.percentile`."""
        return self.sums.percentile(share)


def figures_by(groups: Iterable[SumsGroup], *places: int) -> dict[Names, RequestFigures]:
    """Figures for each combination of the names at these places. The last name of each group is its outcome."""
    found: dict[Names, RequestFigures] = {}
    for group in groups:
        key = tuple([group.names[place] for place in places])
        found.setdefault(key, RequestFigures()).add(group.names[-1], group.sums)
    return found


def figures_over_time(groups: Iterable[SumsGroup]) -> dict[int, RequestFigures]:
    """Figures for each bucket, in order; buckets without requests are absent. The last name is the outcome."""
    found: dict[int, RequestFigures] = {}
    for group in sorted(groups, key=lambda each: each.bucket):
        found.setdefault(group.bucket, RequestFigures()).add(group.names[-1], group.sums)
    return found


def figures_of(groups: Iterable[SumsGroup]) -> RequestFigures:
    """Figures of all of them."""
    return figures_by(groups).get((), RequestFigures())
