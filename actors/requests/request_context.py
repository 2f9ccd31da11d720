"""The parts of a fleet that its requests need on their way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleet.breakers.poison import PoisonTable
from fleet.common.ids import ModelName
from fleet.protocol.missing_endpoints import MissingRoutes

if TYPE_CHECKING:
    from actors.kit.clock import Clock
    from actors.state.config_ref import ConfigRef
    from actors.state.request_log import RequestLog
    from actors.state.scheduler_state import SchedulerState
    from actors.state.servers import Servers
    from fleet.observability.metrics.registry import MetricsRegistry
    from fleet.observability.tracing.trace_context import Trace
    from fleet.protocol.call import Call


@dataclass(frozen=True, slots=True, eq=False)
class RequestContext:
    """The same for all requests of a fleet; made where the fleet is built."""

    config: ConfigRef
    clock: Clock
    scheduler: SchedulerState
    servers: Servers
    request_log: RequestLog
    metrics: MetricsRegistry
    missing_routes: MissingRoutes
    """What servers that are too old do not have."""
    poison: PoisonTable
    """Requests that were there when runners died."""
    find_model: Callable[[ModelName], Awaitable[bool]]
    """Whether any server lists a model, after a look at them all if none did."""
    hop: bytes
    """This fleet's name in the header that betrays loops."""
    begin_trace: Callable[[Call], Trace] | None
    """On the data path: neither fails nor waits. None while nobody traces."""
