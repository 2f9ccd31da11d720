"""Which servers could, and which can right now, serve each model. Kept up to date, never computed per request.

Three maps by model: `holders` (any server, even a dead one, lists it), `routable` (healthy, active, not banned, gate
not shut) and `ready` (routable, slot free, gate admits). A change of one server touches that server's models only.
"""

from __future__ import annotations

from collections.abc import Iterable

from fleet.ids import ANY_MODEL, ModelName, ServerId
from fleet.indexed import IndexedSet
from fleet.server import Health, ServerState

Servers = IndexedSet[ServerState]


class Index:
    """The three maps, and since when a model has had no routable server (`lonely_since`)."""

    def __init__(self, now: float) -> None:
        self.servers: dict[ServerId, ServerState] = {}
        self._holders: dict[ModelName, set[ServerId]] = {}
        self._routable: dict[ModelName, Servers] = {}
        self._ready: dict[ModelName, Servers] = {}
        self._entered: dict[ServerId, set[ModelName]] = {}
        self._full: set[ServerId] = set()
        self._started = now
        self._lonely: dict[ModelName, float] = {}

    def update(self, server: ServerState, now: float) -> None:
        """Take note of anything that may have changed about a server, or of a new one."""
        self.servers[server.id] = server
        models = {*server.models, ANY_MODEL}
        entered = self._entered.setdefault(server.id, set())
        for gone in entered - models:
            self._leave(server, gone, now)
        self._entered[server.id] = models
        self._note_full(server)
        for model in models:
            self._holders.setdefault(model, set()).add(server.id)
            self._place(server, model, now)

    def update_pair(self, server: ServerState, model: ModelName, now: float) -> None:
        """Take note of a moved gate or a ban of one model on one server."""
        self.update_slots(server)  # a slot may have been freed that nobody has told us of yet
        if model in self._entered.get(server.id, ()):
            self._place(server, model, now)

    def update_slots(self, server: ServerState) -> None:
        """Take note of a slot taken or freed; costs nothing unless the server became full or stopped being full."""
        was_full = server.id in self._full
        self._note_full(server)
        if was_full == (server.id in self._full):
            return
        for model in self._entered.get(server.id, ()):
            self._place_ready(server, model)

    def remove(self, server: ServerState, now: float) -> None:
        """Forget a server."""
        for model in self._entered.pop(server.id, set()):
            self._leave(server, model, now)
        self._full.discard(server.id)
        self.servers.pop(server.id, None)

    def ready(self, model: ModelName) -> Servers | tuple[()]:
        return self._ready.get(model, ())

    def routable(self, model: ModelName) -> Servers | tuple[()]:
        return self._routable.get(model, ())

    def is_ready(self, server: ServerState, model: ModelName) -> bool:
        return server in self.ready(model)

    def knows(self, model: ModelName) -> bool:
        """Whether any server, even a dead one, lists the model."""
        return model == ANY_MODEL or model in self._holders

    def holders(self, model: ModelName) -> set[ServerId]:
        return self._holders.get(model, set())

    def models_of(self, server: ServerId) -> Iterable[ModelName]:
        return self._entered.get(server, ())

    def accepts(self, model: ModelName, excluded: frozenset[ServerId]) -> bool:
        """Whether some routable server is not among the excluded ones."""
        routable = self.routable(model)
        return len(routable) > len(excluded) or any(server.id not in excluded for server in routable)

    def lonely_since(self, model: ModelName) -> float:
        """Since when no server could serve the model."""
        return self._lonely.get(model, self._started)

    def all_probed(self) -> bool:
        """Whether every server has had its first probe (until then, an unknown model may still turn up)."""
        return all(server.health is not Health.UNKNOWN for server in self.servers.values())

    def _place(self, server: ServerState, model: ModelName, now: float) -> None:
        members = self._routable.setdefault(model, IndexedSet())
        had = len(members)
        if server.routable(model):
            members.add(server)
        else:
            members.discard(server)
        if had and not members:
            self._lonely[model] = now
        self._place_ready(server, model)

    def _place_ready(self, server: ServerState, model: ModelName) -> None:
        members = self._ready.setdefault(model, IndexedSet())
        if server.ready(model):
            members.add(server)
        else:
            members.discard(server)

    def _leave(self, server: ServerState, model: ModelName, now: float) -> None:
        """The server no longer lists the model; a model that nobody lists leaves no trace."""
        self._ready.get(model, IndexedSet()).discard(server)
        self._routable.get(model, IndexedSet()).discard(server)
        holders = self._holders.get(model, set())
        holders.discard(server.id)
        if not self._routable.get(model):
            self._lonely[model] = now
        if not holders:
            for table in (self._holders, self._ready, self._routable, self._lonely):
                table.pop(model, None)

    def _note_full(self, server: ServerState) -> None:
        if server.ledger.free >= 1:
            self._full.discard(server.id)
        else:
            self._full.add(server.id)
