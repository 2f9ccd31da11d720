"""What outlives a crash: made in the supervisor's frame, handed to every incarnation of an actor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from actors.kit.clock import Clock
from actors.state.scheduler_state import SchedulerState
from actors.state.servers import Servers
from actors.storage.journal import Journal
from fleet.breakers.outcomes import Signal
from fleet.breakers.recovery_log import RecoveryLog
from fleet.common.ids import ModelName, Pair
from fleet.protocol.missing_endpoints import MissingRoutes

if TYPE_CHECKING:
    from actors.state.config_ref import ConfigRef
    from actors.state.request_statistics import RequestStatistics
    from fleet.observability.tracing.trace_context import Trace
    from fleet.protocol.call import Call


class Outcomes(Protocol):
    """Who is told how each attempt ended (the breaker registry)."""

    def record(
        self, pair: Pair, signal: Signal, kind: str, generation: int = 0, *, gives_back: bool = True
    ) -> None: ...

    def alive(self, pair: Pair) -> None: ...


class ModelLookup(Protocol):
    """Who looks for models that no server lists."""

    async def find(self, model: ModelName) -> bool:
        """Whether any server lists the model, after a look at them all if none did."""
        ...


class RequestTracer(Protocol):
    """Who gives traces to requests."""

    def begin(self, call: Call) -> Trace:
        """A request begins. On the data path: neither fails nor waits."""
        ...


@dataclass(slots=True, eq=False)
class FleetCell:
    """The whole fleet, as the dispatcher, the leases and the exchanges see it."""

    config: ConfigRef
    clock: Clock
    scheduler: SchedulerState
    breakers: Outcomes
    statistics: RequestStatistics
    servers: Servers
    model_lookup: ModelLookup
    journal: Journal = field(default_factory=Journal)
    recovery_log: RecoveryLog = field(default_factory=RecoveryLog)
    """What was tried to bring servers back, and what breakers did."""
    hop: bytes = b""
    """This fleet's name in the header that betrays loops."""
    missing_routes: MissingRoutes = field(default_factory=MissingRoutes)
    """What servers that are too old do not have."""
    tracer: RequestTracer | None = None
    """Who traces requests; None while that is off."""

    @property
    def live(self) -> int:
        """How many requests wait for a slot or hold one. Asked at every retry, so not added up."""
        return len(self.scheduler.tickets) + self.scheduler.memory.total.in_use

    @property
    def open_requests(self) -> int:
        """How many requests are open: those that `live` counts, and those that need no slot."""
        return len(self.scheduler.tickets) + self.servers.in_flight
