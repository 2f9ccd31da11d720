"""Questions about the running fleet. Every answer is a snapshot of the moment; nothing here changes anything."""

from __future__ import annotations

import trio

from actors.state.fleet_state import FleetCell
from actors.state.queue_views import MOST_ITEMS, QueueView, queue_view
from actors.state.servers import ServerCell, Servers
from actors.upstream.control_client import OllamaClient
from fleet.common.errors import NoServer, ServerNotFound
from fleet.common.ids import ModelName, ServerId
from fleet.config import Config
from fleet.models.merged_catalog import ServerCatalog
from fleet.scheduling.server_state import Health, ServerState


class FleetQueries:
    """What the handle on the fleet can tell."""

    fleet: FleetCell
    started: float

    @property
    def config(self) -> Config:
        """The settings in effect."""
        return self.fleet.config.current

    @property
    def servers(self) -> Servers:
        return self.fleet.servers

    @property
    def draining(self) -> bool:
        return self.fleet.servers.draining

    @property
    def uptime(self) -> float:
        return trio.current_time() - self.started

    @property
    def in_flight(self) -> int:
        return self.fleet.servers.in_flight

    def cell(self, server: ServerId) -> ServerCell:
        """One server; raises ServerNotFound."""
        cell = self.fleet.servers.get(server)
        if cell is None:
            raise ServerNotFound(f"server '{server}' not found")
        return cell

    def client(self, server: ServerId) -> OllamaClient:
        return self.cell(server).client

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

    async def find(self, model: ModelName) -> bool:
        """Whether any server lists the model; if none does, after a look at them all. See `servers.model_lookup`."""
        return await self.fleet.model_lookup.find(model)

    def known(self, model: ModelName) -> bool:
        """Whether any server, even a dead one, lists the model."""
        return self.fleet.servers.known(model)

    def any_server(self) -> ServerId:
        """The usable server with the most free slots; raises NoServer."""
        return self.placement(ModelName(""), 1)[0]

    def builder(self) -> ServerId:
        """The one server for blobs and create: the configured one, else the first usable by id, so that all agree."""
        wanted = self.config.placement.builder
        usable = [wanted] if wanted is not None else sorted(state.id for state in self._states() if state.usable)
        if not usable or not self.cell(usable[0]).state.usable:
            raise NoServer("no server can build models now", retry_after=5.0)
        return usable[0]

    def placement(self, model: ModelName, copies: int) -> list[ServerId]:
        """Where to put a model that nobody holds: the emptiest usable servers; raises NoServer."""
        usable = [state for state in self._states() if state.usable]
        if not usable:
            raise NoServer("no server is usable now", retry_after=5.0)
        usable.sort(key=lambda state: (-state.spec.priority, len(state.models), -state.ledger.free, state.id))
        return [state.id for state in usable[:copies]]

    def queue_view(self, most: int = MOST_ITEMS) -> QueueView:
        """The queue as it is now, with at most so many of those who wait by name."""
        return queue_view(self.fleet, most)

    def _states(self) -> list[ServerState]:
        return [cell.state for cell in self.fleet.servers.values()]
