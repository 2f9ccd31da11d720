"""Somebody who uses a server beside the fleet, of whom a proxy sees nothing but what it costs."""

from __future__ import annotations

import math
from functools import partial

from fleet.simulator.server import Busy, SimServer
from fleet.simulator.work import OVER, SimulatedJob, Work

_PATIENCE = 1.0
"""Seconds after which it asks again when the server is too busy, or has failed it."""


class ForeignClient:
    """Keeps so many requests going on one server, each asked when the one before is over, between two times.

    It lives on the server's own timers, so it needs no driver.
    """

    def __init__(self, server: SimServer, work: Work, streams: int, since: float, until: float = math.inf) -> None:
        self._server = server
        self._work = work
        self._until = until
        self.asked = 0
        for _ in range(streams):
            server.call_at(since, self._ask)

    def _ask(self, now: float) -> None:
        if now >= self._until:
            return
        jobs: list[SimulatedJob] = []
        try:
            jobs.append(self._server.submit(self._work, now, partial(self._moved, jobs)))
        except Busy:
            self._server.call_at(now + _PATIENCE, self._ask)
            return
        self.asked += 1
        self._moved(jobs)  # it may be over already

    def _moved(self, jobs: list[SimulatedJob]) -> None:
        """Told within the server's step: the next request waits for a timer, lest it meets a server half-way."""
        if jobs and jobs[0].stage in OVER:
            job = jobs.pop()
            self._server.call_at(job.finished_at + (0.0 if job.failure is None else _PATIENCE), self._ask)
