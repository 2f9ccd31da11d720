"""Questions about the running fleet. Every answer is a snapshot of the moment; nothing here changes anything."""

from __future__ import annotations

from collections.abc import Iterator

from actors.kit.clock import Clock
from actors.state.config_ref import ConfigRef
from actors.state.decision_views import DecisionView, decision_views
from actors.state.queue_views import MOST_ITEMS, QueueView, queue_view
from actors.state.scheduler_state import SchedulerState
from actors.state.servers import Servers
from fleet.common.errors import NoServer
from fleet.common.ids import ModelName, RequestId, ServerId
from fleet.models.merged_catalog import ServerCatalog
from fleet.scheduling.server_state import Health, ServerState


class FleetQueries:
    """Asked by the front end. Of models, what the servers' last inventories say."""

    def __init__(self, config: ConfigRef, clock: Clock, scheduler: SchedulerState, servers: Servers) -> None:
        self._config = config
        self._clock = clock
        self._scheduler = scheduler
        self._servers = servers

    def catalogs(self) -> list[ServerCatalog]:
        """Last known inventories, healthy or not."""
        return [
            ServerCatalog(
                server=state.id,
                healthy=state.health is Health.HEALTHY,
                tags=list(state.models.values()),
                ps=list(state.resident.values()),
                version=state.version,
            )
            for state in self._states()
        ]

    def holders(self, model: ModelName) -> list[ServerId]:
        """Usable servers that hold the model: loaded ones first, then the least busy."""
        holding = [state for state in self._states() if state.usable and model in state.models]
        holding.sort(key=lambda state: (model not in state.resident, -state.ledger.free))
        return [state.id for state in holding]

    def reachable_holders(self, model: ModelName) -> list[ServerId]:
        """Healthy servers that hold the model, whatever the operator said of them (drained ones included)."""
        return [s.id for s in self._states() if s.health is Health.HEALTHY and model in s.models]

    def unreachable_holders(self, model: ModelName) -> list[ServerId]:
        """Servers that listed the model when they last answered."""
        return [s.id for s in self._states() if s.health is not Health.HEALTHY and model in s.models]

    def known(self, model: ModelName) -> bool:
        """Whether any server, even a dead one, lists the model."""
        return self._servers.known(model)

    def any_server(self) -> ServerId:
        """The usable server with the most free slots; raises NoServer."""
        return self.placement(ModelName(""), 1)[0]

    def builder(self) -> ServerId:
        """The one server for blobs and create: the configured one, else the first usable by id, so that all agree."""
        wanted = self._config.current.placement.builder
        usable = [wanted] if wanted is not None else sorted(state.id for state in self._states() if state.usable)
        if not usable or not self._servers.cell(usable[0]).state.usable:
            raise NoServer("no server can build models now", retry_after=5.0)
        return usable[0]

    def placement(self, model: ModelName, copies: int) -> list[ServerId]:
        """Where to put a model that nobody holds: the emptiest usable servers; raises NoServer."""
        usable = [state for state in self._states() if state.usable]
        if not usable:
            raise NoServer("no server is usable now", retry_after=5.0)
        usable.sort(key=lambda state: (-state.spec.priority, len(state.models), -state.ledger.free, state.id))
        return [state.id for state in usable[:copies]]

    @property
    def open_requests(self) -> int:
        """How many requests wait or run."""
        return len(self._scheduler.tickets) + self._servers.in_flight

    def queue_view(self, most: int = MOST_ITEMS) -> QueueView:
        """The queue as it is now, with at most so many of those who wait by name."""
        return queue_view(self._config.current, self._clock, self._scheduler, most)

    def decisions(
        self, *, server: ServerId | None = None, model: ModelName | None = None, request: RequestId | None = None
    ) -> Iterator[DecisionView]:
        """The last decisions, the newest first; only those of a server, a model or a request."""
        return decision_views(self._clock, self._scheduler, server=server, model=model, request=request)

    def _states(self) -> list[ServerState]:
        return [cell.state for cell in self._servers.values()]
