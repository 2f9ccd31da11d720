"""Sums of finished requests over minutes, quarters of an hour, hours and days, by who, where, what and how it ended.

A request belongs to the bucket in which it ended, which is the one that its row's number names: so sums equal rows,
and a bucket is complete as soon as a row of a later one is written. Percentiles come from merged sketches only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from fleet.history.exponential_sketch import ExponentialSketch
from fleet.history.request_row import RequestRow, ended_at

MINUTE: Final = 60
TIERS: Final = (MINUTE, 900, 3600, 86_400)
"""Seconds of a bucket, the finest first; each is a multiple of the one before. UTC, so that a day is a day."""

_DAY: Final = 86_400.0
KEPT: Final = (2 * _DAY, 30 * _DAY, 365 * _DAY, 5 * 365 * _DAY)
"""For how many seconds the buckets of each of `TIERS` are kept."""
ALL: Final = ""
"""Stands for all endpoints, or all clients, in a sum that does not tell them apart: no name is empty."""


class RollupKey(NamedTuple):
    """What is summed up together. `bucket`: its beginning, seconds since 1970."""

    bucket: int
    server: str
    model: str
    endpoint: str
    client: str
    outcome: str
    """As the request's; what it counts as: `request_row.outcome_class`."""

    def within(self, tier: int) -> RollupKey:
        """The bucket of a coarser tier in which this one lies."""
        return self._replace(bucket=self.bucket // tier * tier)

    def summary(self, tier: int) -> RollupKey:
        """The same for all endpoints and clients together, of which there are many, and who seldom matter."""
        return RollupKey(self.bucket // tier * tier, self.server, self.model, ALL, ALL, self.outcome)


@dataclass(slots=True, eq=True)
class Rollup:
    """Seconds and tokens of the requests of one key. `longest` and `shortest` are total times."""

    requests: int = 0
    attempts: int = 0
    cold: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    total: float = 0.0
    slot: float = 0.0
    load: float = 0.0
    wait: float = 0.0
    wasted: float = 0.0
    shortest: float = float("inf")
    longest: float = 0.0
    totals: ExponentialSketch = field(default_factory=ExponentialSketch)
    first_tokens: ExponentialSketch = field(default_factory=ExponentialSketch)
    """Of streams whose first token came."""
    waits: ExponentialSketch = field(default_factory=ExponentialSketch)

    def add(self, row: RequestRow) -> None:
        """One more request."""
        self.requests += 1
        self.attempts += row.tries
        self.cold += row.cold
        self.prompt_tokens += row.prompt_tokens or 0
        self.output_tokens += row.output_tokens or 0
        self.total += row.total
        self.slot += row.slot
        self.load += row.load or 0.0
        self.wait += row.queue
        self.wasted += row.wasted
        self.shortest = min(self.shortest, row.total)
        self.longest = max(self.longest, row.total)
        self.totals.add(row.total)
        self.waits.add(row.queue)
        if row.stream and row.first_byte is not None:
            self.first_tokens.add(row.first_byte)

    def merge(self, other: Rollup) -> None:
        """All requests of another."""
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.shortest = min(self.shortest, other.shortest)
        self.longest = max(self.longest, other.longest)
        for name in SKETCHES:
            getattr(self, name).merge(getattr(other, name))

    def percentile(self, share: float) -> float | None:
        """The total time that `share` (0 to 1) of the requests do not exceed, never beyond what was seen; seconds.

        None under `FEWEST` requests: it would be the time of one of them.
        """
        if self.totals.count < FEWEST:
            return None
        found = self.totals.percentile(share)
        return None if found is None else min(max(found, self.shortest), self.longest)


FEWEST: Final = 20
"""Requests from which on a percentile is told."""
COUNTS: Final = ("requests", "attempts", "cold", "prompt_tokens", "output_tokens")
SECONDS: Final = ("total", "slot", "load", "wait", "wasted")
SUMS: Final = (*COUNTS, *SECONDS)
SKETCHES: Final = ("totals", "first_tokens", "waits")

Rollups = dict[RollupKey, Rollup]


def key_of(number: int, row: RequestRow) -> RollupKey:
    """The minute, and what else the request is summed up by. `number`: of the row."""
    bucket = int(ended_at(number)) // MINUTE * MINUTE
    return RollupKey(bucket, row.server, row.model, row.endpoint, row.client, row.outcome)


def add_rows(rollups: Rollups, rows: Iterable[tuple[int, RequestRow]]) -> set[RollupKey]:
    """Count rows with their numbers; returns the keys that have changed."""
    changed: set[RollupKey] = set()
    for number, row in rows:
        key = key_of(number, row)
        found = rollups.get(key)
        if found is None:
            found = rollups[key] = Rollup()
        found.add(row)
        changed.add(key)
    return changed


def merge_into(
    coarse: Rollups, fine: Mapping[RollupKey, Rollup], tier: int, *, summary: bool = False
) -> set[RollupKey]:
    """Add finer sums to those of a tier, or to its summaries; returns the keys that have changed."""
    changed: set[RollupKey] = set()
    for key, rollup in fine.items():
        wide = key.summary(tier) if summary else key.within(tier)
        coarse.setdefault(wide, Rollup()).merge(rollup)
        changed.add(wide)
    return changed
