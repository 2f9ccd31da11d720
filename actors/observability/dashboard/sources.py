"""What the dashboard shows: the parts of the fleet that it reads, handed in by who builds the fleet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.breakers.registry import BreakerRegistry
    from actors.jobs.job_board import JobBoard
    from actors.observability.ai_status import StatusWriter
    from actors.observability.alert_monitor import Monitor
    from actors.observability.dashboard.live_requests import LiveRequests
    from actors.observability.host.sampler import HostWatch
    from actors.observability.watched_fleet import WatchedFleet


@dataclass(frozen=True, slots=True, eq=False)
class FeedSources:
    """For reading only. `started` is when the fleet was built, on Trio's clock."""

    fleet: WatchedFleet
    breakers: BreakerRegistry
    host: HostWatch
    monitor: Monitor
    status_writer: StatusWriter
    jobs: JobBoard
    live: LiveRequests
    started: float
