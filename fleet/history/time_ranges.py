"""Ranges of time, and the fewest buckets of sums that make them up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from fleet.history.rollups import KEPT, MINUTE, TIERS

_UNITS: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
LONGEST: Final = 5 * 366 * 86_400
"""Seconds that a range may have."""


class TimeSpan(NamedTuple):
    """Seconds since 1970, `until` not included."""

    since: int
    until: int

    @property
    def seconds(self) -> int:
        """How long it is."""
        return self.until - self.since


class TierPart(NamedTuple):
    """Whole buckets of one tier that lie side by side."""

    tier: int
    since: int
    until: int


def length_of(text: str) -> int:
    """Seconds of a length as people write it: 90m, 24h, 7d, 2w. Raises ValueError."""
    unit = _UNITS.get(text[-1:], 0)
    if not unit or not text[:-1].isdecimal() or len(text) > 8:
        raise ValueError("must be a number with m, h, d or w behind it, as in 90m, 24h or 7d")
    seconds = int(text[:-1]) * unit
    if not 0 < seconds <= LONGEST:
        raise ValueError("must be a minute at least, and five years at the most")
    return seconds


def aligned(since: float, until: float, now: float) -> TimeSpan:
    """The range in whole buckets of the finest tier that is still there at its beginning, so a little longer."""
    tier = finest_tier(since, now)
    return TimeSpan(int(since // tier * tier), int(-(-until // MINUTE) * MINUTE))


STEPS: Final = (60, 300, 900, 3600, 21_600, 86_400, 604_800)
"""Seconds between the points of a figure over time, if nobody wants others."""


def step_for(span: TimeSpan, now: float, most: int) -> int:
    """The shortest of `STEPS` that makes `most` points or fewer of a range, and whose buckets are still there."""
    finest = finest_tier(span.since, now)
    fitting = [step for step in STEPS if step % finest == 0 and span.seconds <= step * most]
    return fitting[0] if fitting else STEPS[-1]


def finest_tier(since: float, now: float) -> int:
    """The tier with the shortest buckets that are still there at that moment."""
    return next((tier for tier, seconds in zip(TIERS, KEPT, strict=True) if since >= now - seconds), TIERS[-1])


def cover(span: TimeSpan, rolled: Mapping[int, int], step: int = TIERS[-1]) -> list[TierPart]:
    """Buckets that make up the range: coarse ones in its middle, fine ones at its ends.

    `rolled`: up to when each tier but the finest contains the finer one. `step`: none of them may lie in two of these.
    """
    fitting = [tier for tier in TIERS if step % tier == 0]
    parts: list[TierPart] = []
    _cover(span, rolled, fitting, parts)
    return sorted(parts, key=lambda part: part.since)


def _cover(span: TimeSpan, rolled: Mapping[int, int], tiers: Sequence[int], parts: list[TierPart]) -> None:
    if span.until <= span.since:
        return
    tier = tiers[-1]
    if tier == TIERS[0]:
        parts.append(TierPart(tier, *span))
        return
    since = -(-span.since // tier) * tier
    until = min(span.until, rolled.get(tier, 0)) // tier * tier
    if until <= since:
        _cover(span, rolled, tiers[:-1], parts)
        return
    parts.append(TierPart(tier, since, until))
    _cover(TimeSpan(span.since, since), rolled, tiers[:-1], parts)
    _cover(TimeSpan(until, span.until), rolled, tiers[:-1], parts)
