"""The parts of a fleet that the tasks of its servers need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from actors.state.lease import Outcomes
from fleet.common.ids import ServerId

if TYPE_CHECKING:
    from actors.kit.clock import Clock
    from actors.state.config_ref import ConfigRef
    from actors.state.scheduler_state import SchedulerState
    from actors.state.servers import Servers
    from actors.storage.journal import Journal
    from fleet.breakers.recovery_log import RecoveryLog
    from fleet.observability.metrics.model_loads import LoadWatch
    from fleet.protocol.missing_endpoints import MissingRoutes


class ServerBreakers(Outcomes, Protocol):
    """The breakers, as far as servers concern them."""

    def forget_server(self, server: ServerId) -> None:
        """It is gone, or is another machine now."""

    def returned(self, server: ServerId) -> None:
        """It was down and is back."""


@dataclass(frozen=True, slots=True, eq=False)
class ServerContext:
    """The same for all servers of a fleet; made where the fleet is built."""

    config: ConfigRef
    clock: Clock
    scheduler: SchedulerState
    servers: Servers
    breakers: ServerBreakers
    journal: Journal
    model_loads: LoadWatch
    """Counts what servers load and evict."""
    missing_routes: MissingRoutes
    recovery_log: RecoveryLog
