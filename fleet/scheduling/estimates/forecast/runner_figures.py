"""What is open on one server and at one of its runners, and the figures of the runner as they were worked out last."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from fleet.common.ids import Pair
from fleet.scheduling.estimates.averages.log_histogram import LogHistogram
from fleet.scheduling.estimates.forecast.terms import Footing, RequestProfile, Terms
from fleet.scheduling.estimates.runner_slots import RunnerSlots
from fleet.scheduling.estimates.wait import SERVICE

FRESH: Final = 10.0
"""Seconds for which figures of a pair are used as they are."""


@dataclass(slots=True, eq=False)
class ServerLeases:
    """Leases by number, and the integral of their number over time, for the mean batch of each."""

    leases: dict[int, OpenRequest] = field(default_factory=dict)
    version: int = 0
    busy: float = 0.0
    at: float = 0.0

    def move(self, now: float) -> None:
        self.busy += len(self.leases) * max(0.0, now - self.at)
        self.at = now
        self.version += 1


@dataclass(slots=True, eq=False)
class RunnerFigures:
    """One pair: what is open, and the figures as they were worked out last."""

    pair: Pair
    server: ServerLeases
    slots: RunnerSlots
    leases: dict[int, OpenRequest] = field(default_factory=dict)
    until: float = -math.inf
    teaches_at: float = -math.inf
    size: int | None = None
    limit: int = 1
    per_token: tuple[float, ...] = ()
    """Seconds of prefill by how many requests are open beside."""
    loading: tuple[float, float] = (0.0, 0.0)
    """Seconds of a load by tier."""
    alone: float = 0.0
    beside: float = 0.0
    most: float = 0.0
    footing: Footing = field(default_factory=Footing)
    service: LogHistogram = field(default_factory=lambda: LogHistogram(FRESH))
    mean: float = SERVICE
    waited: tuple[int, int, int, float] = (-1, 0, 0, 0.0)
    """Version of the server, who was ahead and beside, slots of the server: what the wait below holds for."""
    wait: float = 0.0
    wait_at: float = 0.0
    wait_until: float = -math.inf


@dataclass(slots=True, eq=False)
class OpenRequest:
    """A request that was sent. `batch`: how many were open with it; `busy`: the server's integral when it began."""

    runner: RunnerFigures
    request: RequestProfile
    terms: Terms
    sent: float
    batch: int
    busy: float
    began_load: bool
    spoke: float = math.inf


def seconds_left(lease: OpenRequest, now: float) -> float:
    """What is probably left of an open request, its load included."""
    terms, gone = lease.terms, now - lease.sent
    loading = max(0.0, terms.load - gone) if lease.spoke == math.inf else 0.0
    prior = max(terms.prefill + terms.decode, 0.1)
    return loading + lease.runner.service.remaining(max(0.0, gone - terms.load), prior, now)
