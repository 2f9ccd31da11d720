"""How full the fleet was, and how full it is likely to be: from the seconds for which slots were held.

Saturation is slot-seconds by the slots that there are now: what it is wrong about are servers that came or went since.
A forecast is the mean of the same hours of past weeks, where there are any, else of past days, else the last hour.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

HOUR: Final = 3_600
DAY: Final = 86_400
WEEK: Final = 604_800
HIGH: Final = 0.8
"""Saturation from which on more servers are recommended."""
LOW: Final = 0.2
_ENOUGH: Final = 4
"""Weeks, or days, from which on a forecast is as sure as it gets."""

Recommendation = Literal["scale-up", "scale-down", "maintain"]


class Forecast(NamedTuple):
    """Saturation, 0 to 1 and beyond; None without any past. `samples`: hours that it was made of."""

    saturation: float | None
    samples: int

    @property
    def confidence(self) -> float:
        """0 to 1: how many samples there are of those that there could be; no probability."""
        return min(1.0, self.samples / _ENOUGH)

    @property
    def recommendation(self) -> Recommendation:
        """What to do about it."""
        if self.saturation is None or LOW <= self.saturation <= HIGH:
            return "maintain"
        return "scale-up" if self.saturation > HIGH else "scale-down"


def forecast(hours: Mapping[int, float], slots: float, hour: int, now: float) -> Forecast:
    """For the hour that begins then. `hours`: slot-seconds by the beginning of their hour; those of none are absent."""
    if not hours or slots <= 0.0:
        return Forecast(None, 0)
    first, last = min(hours), int(now) // HOUR * HOUR - HOUR
    for period in (WEEK, DAY):
        past = [at for at in range(hour - period, hour - (_ENOUGH + 1) * period, -period) if first <= at <= last]
        if past:
            held = sum(hours.get(at, 0.0) for at in past)
            return Forecast(held / (len(past) * HOUR * slots), len(past))
    return Forecast(hours.get(last, 0.0) / (HOUR * slots), 1) if first <= last else Forecast(None, 0)


def peak(hours: Mapping[int, float], slots: float, now: float) -> Forecast:
    """The fullest of the next 24 hours."""
    begin = int(now) // HOUR * HOUR + HOUR
    found = [forecast(hours, slots, begin + ahead * HOUR, now) for ahead in range(24)]
    return max(found, key=lambda each: -1.0 if each.saturation is None else each.saturation)
