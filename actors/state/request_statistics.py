"""What finished requests tell, of all kinds: the stream of them, and everything that is added up from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.state.request_log import RequestLog
from actors.state.totals import Totals
from fleet.models.load_times import LoadTimes
from fleet.models.runner_options import Demand
from fleet.observability.metrics.registry import MetricsRegistry


@dataclass(frozen=True, slots=True, eq=False)
class RequestStatistics:
    """The owner of the stream and of its sums. Who wants the latest waits for `request_log.catch_up` first."""

    request_log: RequestLog
    totals: Totals
    metrics: MetricsRegistry = field(default_factory=MetricsRegistry)
    """What Prometheus counts."""
    demand: Demand = field(default_factory=Demand)
    load_times: LoadTimes = field(default_factory=LoadTimes)
