"""Which models to load where: those that are asked for often, and are in too few servers' memory for it.

The formula. A model is asked for *often* from `OFTEN` requests in the last hour on. Its *load* is the number of its
requests that run at once on average (Little's law): the rate of requests, that of the last hour or of the last five
minutes, whichever is higher, times the seconds that one holds its slot. It is in memory on enough servers when its load
is at most `SHARE` of their slots together. Where it is not, servers that hold the model and could load it are suggested
until it is; where it is in no server's memory, at least one.

What it is wrong about: slots are shared with other models, and whether the model fits beside them is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fleet.common.ids import ModelName, ServerId

OFTEN: Final = 5
"""Requests in the last hour."""
SHARE: Final = 0.7
HOUR: Final = 3600.0
LATELY: Final = 300.0


@dataclass(frozen=True, slots=True)
class Place:
    """One server that can serve the model now, or could if it loaded it."""

    server: ServerId
    slots: float


@dataclass(frozen=True, slots=True)
class ModelUse:
    """How things stand with one model: requests in the last hour and in the last `LATELY` seconds, seconds of one.

    `loaded`: usable servers that have it in memory. `loadable`: usable ones that hold it and have not, best first.
    """

    model: ModelName
    hour: int
    lately: int
    seconds: float | None
    loaded: Sequence[Place]
    loadable: Sequence[Place]

    @property
    def load(self) -> float:
        """Requests that run at once, on average; 0 while nothing is known of how long one takes."""
        return max(self.hour / HOUR, self.lately / LATELY) * (self.seconds or 0.0)


@dataclass(frozen=True, slots=True)
class Advice:
    """A model that should be loaded on the `suggested` servers, and why."""

    standing: ModelUse
    reason: str
    suggested: tuple[ServerId, ...]


def advise(standing: ModelUse) -> Advice | None:
    """Whether to load the model on more servers; None if not, or if there is nowhere to load it."""
    if standing.hour < OFTEN or not standing.loadable:
        return None
    slots = sum(place.slots for place in standing.loaded)
    if standing.loaded and standing.load <= SHARE * slots:
        return None
    suggested = []
    for place in standing.loadable:
        suggested.append(place.server)
        slots += place.slots
        if standing.load <= SHARE * slots:
            break
    return Advice(standing, _reason(standing), tuple(suggested))


def _reason(standing: ModelUse) -> str:
    often = f"asked for {standing.hour} times in the last hour"
    if not standing.loaded:
        return f"{often}, and in no usable server's memory"
    slots, servers = sum(place.slots for place in standing.loaded), len(standing.loaded)
    who = "the one server that has" if servers == 1 else f"the {servers} servers that have"
    where = f"the {slots:g} slots of {who} it in memory"
    return f"{often}; about {standing.load:.1f} requests run at once, which is more than {SHARE:.0%} of {where}"
