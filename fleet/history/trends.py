"""Whether a figure rises or falls: the slope by Theil and Sen, and how sure that is by Mann and Kendall.

Theil (1950), Sen (1968): the median of the slopes of all pairs, which a quarter of wild points does not move. Mann
(1945), Kendall (1975): whether later points are larger more often than chance would have it; ties are corrected for.
What it is wrong about: points that depend on each other (hours of one day) look surer than they are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from statistics import median
from typing import Final, Literal, NamedTuple

FEWEST: Final = 8
"""Points from which on there is a trend."""
MOST: Final = 300
"""Points that are looked at, since all pairs are: the last ones."""
SURE: Final = 0.95
"""Confidence from which on a trend is called one."""

Direction = Literal["increasing", "decreasing", "stable"]


class TrendFound(NamedTuple):
    """`slope`: per second, in the unit of the values; `confidence`: 0 to 1 that there is a trend at all.

    Both are None under `FEWEST` points.
    """

    direction: Direction
    slope: float | None
    confidence: float | None
    points: int


def trend_of(points: Sequence[tuple[float, float]]) -> TrendFound:
    """The trend of moments (seconds, rising) and values."""
    points = points[-MOST:]
    if len(points) < FEWEST:
        return TrendFound("stable", None, None, len(points))
    slope = median([(value - before) / (at - since) for (since, before), (at, value) in combinations(points, 2)])
    confidence = _confidence([value for _, value in points])
    direction: Direction = "stable"
    if confidence >= SURE and slope:
        direction = "increasing" if slope > 0 else "decreasing"
    return TrendFound(direction, slope, confidence, len(points))


def _confidence(values: Sequence[float]) -> float:
    """1 minus the chance that values without a trend look like these or worse (two-sided, normal approximation)."""
    count = len(values)
    score = sum((later > sooner) - (later < sooner) for sooner, later in combinations(values, 2))
    ties = sum(n * (n - 1) * (2 * n + 5) for n in Counter(values).values())
    variance = (count * (count - 1) * (2 * count + 5) - ties) / 18.0
    if not score or variance <= 0.0:
        return 0.0
    return math.erf((abs(score) - 1) / math.sqrt(2.0 * variance))
