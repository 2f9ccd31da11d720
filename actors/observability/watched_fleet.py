"""The parts of a fleet that are read by those who watch it: the monitor, the status text, the dashboard."""

from __future__ import annotations

from dataclasses import dataclass

from actors.kit.clock import Clock
from actors.state.config_ref import ConfigRef
from actors.state.request_statistics import RequestStatistics
from actors.state.scheduler_state import SchedulerState
from actors.state.servers import Servers
from actors.storage.journal import Journal


@dataclass(frozen=True, slots=True, eq=False)
class WatchedFleet:
    """For reading only."""

    config: ConfigRef
    clock: Clock
    scheduler: SchedulerState
    servers: Servers
    statistics: RequestStatistics
    journal: Journal

    @property
    def open_requests(self) -> int:
        """How many requests wait or run."""
        return len(self.scheduler.tickets) + self.servers.in_flight
