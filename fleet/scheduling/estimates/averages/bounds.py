"""Which numbers may enter an average at all: servers are not trusted, and one infinity would stay for ever."""

from __future__ import annotations

import math
from typing import Final

NO_TRUST: Final = 1e-9
"""A weight below this is none: what is so old is forgotten."""


def sane(value: object, least: float, most: float) -> float | None:
    """A number within bounds: None for what is none, is negative or not finite; what is too large or small is clamped.

    Zero is clamped too: whether nothing at all makes sense is the caller's to say.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int):
        value = min(max(value, -1), 2**62)  # a larger one would not fit into a float
    if not 0.0 <= value < math.inf:
        return None
    return min(max(float(value), least), most)


def faded(seconds: float, half_life: float) -> float:
    """The share of a weight that is left after so long. A clock that went back takes nothing away and adds nothing."""
    return 1.0 if seconds <= 0.0 else 2.0 ** (-seconds / half_life)


def blended(value: float, weight: float, prior: float) -> float:
    """A quantile of positive numbers that is worth `weight` fresh samples: below half of one the prior takes over."""
    share = 2.0 * weight
    return value if share >= 1.0 else float(value**share * prior ** (1.0 - share))
