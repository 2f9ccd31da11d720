"""Which servers could serve each model, and which have a free slot. Kept up to date, never computed per request.

By model: `holders` (any server, even a dead one, lists it), `routable` (healthy, active, not barred, gate not shut) and
`spares` (would be routable, but cool down: passed over unless no routable server is acceptable).
Across models: `free`, the servers with a free slot, as far as the dispatcher has heard. Ready is what is in both; a
draw walks the smaller of the two and stops at the bound. A slot taken or freed costs O(1), whatever a server holds.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain, islice
from typing import Final

from fleet.common.ids import ANY_MODEL, ModelName, Pair, ServerId
from fleet.common.randomness import Chance
from fleet.scheduling.indexed_set import IndexedSet
from fleet.scheduling.server_state import Health, ServerState

_UNSEEN_GRACE: Final = 60.0
"""Seconds for which a new server that has never answered may still turn out to hold an unknown model."""

_NONE: Final[IndexedSet[ServerState]] = IndexedSet()
"""Nobody. Never written."""


class ServerIndex:
    """The maps, and since when a model has had no routable server (`unroutable_since`)."""

    def __init__(self, now: float) -> None:
        self.servers: dict[ServerId, ServerState] = {}
        self.held: dict[ServerId, ServerState] = {}
        """Those that have said to have enough to do, of late."""
        self._holders: dict[ModelName, set[ServerId]] = {}
        self._routable: dict[ModelName, IndexedSet[ServerState]] = {}
        self._spares: dict[ModelName, IndexedSet[ServerState]] = {}
        self._warm: dict[ModelName, IndexedSet[ServerState]] = {}
        self._warmed: dict[ServerId, set[ModelName]] = {}
        self._stirred: set[ServerId] = set()
        self._lost: set[ModelName] = set()
        self._free: IndexedSet[ServerState] = IndexedSet()
        self._entered: dict[ServerId, set[ModelName]] = {}
        self._started = now
        self._lonely: dict[ModelName, float] = {}

    def update(self, server: ServerState, now: float) -> None:
        """Take note of anything that may have changed about a server, or of a new one."""
        self.servers[server.id] = server
        self.note_holds(server)
        models = {*server.models, ANY_MODEL}
        for gone in self._entered.setdefault(server.id, set()) - models:
            self._leave(server, gone, now)
        self._entered[server.id] = models
        self.update_slots(server)
        for model in models:
            self._holders.setdefault(model, set()).add(server.id)
            self._place(server, model, now)
        self._update_warm(server)

    def warming(self, server: ServerState, model: ModelName) -> None:
        """Take note of a request that makes the server load the model, if it has not."""
        if model not in self._warmed.get(server.id, ()) and model != ANY_MODEL:
            self._warmed.setdefault(server.id, set()).add(model)
            self._warm.setdefault(model, IndexedSet()).add(server)

    def _update_warm(self, server: ServerState) -> None:
        """Those loaded by the last look, and those that our own requests load."""
        old, new = self._warmed.get(server.id, set()), {*server.resident, *server.ledger.models()} - {ANY_MODEL}
        for model in old - new:
            self._cool(server, model)
        for model in new - old:
            self._warm.setdefault(model, IndexedSet()).add(server)
        if new:
            self._warmed[server.id] = new
        else:
            self._warmed.pop(server.id, None)

    def _cool(self, server: ServerState, model: ModelName) -> None:
        self._warm[model].discard(server)
        if not self._warm[model]:
            del self._warm[model]

    def update_pair(self, server: ServerState, model: ModelName, now: float) -> None:
        """Take note of a moved gate or a ban of one model on one server."""
        if model in self._entered.get(server.id, ()):
            self._place(server, model, now)

    def note_holds(self, server: ServerState) -> None:
        """Take note of a server that holds models back, or does no more."""
        if server.holds:
            self.held[server.id] = server
        else:
            self.held.pop(server.id, None)

    def update_slots(self, server: ServerState) -> None:
        """Take note of a slot taken or freed."""
        ledger = server.ledger
        if ledger.capacity - len(ledger.numbers) < 1:
            self._free.discard(server)
        elif server not in self._free.places:
            self._free.add(server)

    def remove(self, server: ServerState, now: float) -> None:
        """Forget a server."""
        for model in self._entered.pop(server.id, set()):
            self._leave(server, model, now)
        self._free.discard(server)
        for model in self._warmed.pop(server.id, ()):
            self._cool(server, model)
        self.servers.pop(server.id, None)
        self.held.pop(server.id, None)

    def draw(
        self, model: ModelName, most: int, chance: Chance, excluded: frozenset[ServerId] = frozenset()
    ) -> list[ServerState]:
        """Up to `most` ready servers, from a random place on."""
        routable = self._routable.get(model, _NONE)
        few, many = routable, self._free
        if len(few.places) > len(many.places):
            few, many = many, few
        wanted = many.places
        drawn: list[ServerState] = []
        for server in few.from_anywhere(chance):
            # Asked of the server itself too: what its actor or a breaker has just changed may not be announced yet.
            if server in wanted and (not excluded or server.id not in excluded) and server.ready(model):
                drawn.append(server)
                if len(drawn) == most:
                    break
        if not drawn and self._spares and self.needs_spares(model, excluded):
            drawn = [server for server in self._spares[model] if self._may_stand_in(server, model, excluded)][:most]
        return drawn

    def acceptable(
        self, model: ModelName, excluded: frozenset[ServerId], most: int, chance: Chance
    ) -> list[ServerState]:
        """Up to `most` servers that could serve the model, busy or not: those that have it loaded first."""
        routable, warm = self.routable(model), self._warm.get(model, _NONE)
        if len(routable) <= most:
            found = [server for server in routable if server.id not in excluded]
        else:
            first = (server for server in warm.from_anywhere(chance) if server in routable)
            then = (server for server in routable.from_anywhere(chance) if server not in warm)
            found = list(islice((server for server in chain(first, then) if server.id not in excluded), most))
        if not found and self._spares and self.needs_spares(model, excluded):
            found = [server for server in self._spares[model] if server.id not in excluded][:most]
        return found

    def needs_spares(self, model: ModelName, excluded: frozenset[ServerId]) -> bool:
        """Whether those that are passed over are all that is left for this model."""
        return model in self._spares and all(server.id in excluded for server in self.routable(model))

    def stirred(self) -> tuple[ServerId, ...]:
        """Servers that may have become the last resort of somebody who waits, since this was last asked."""
        if not self._stirred:
            return ()
        stirred = tuple(self._stirred)
        self._stirred.clear()
        return stirred

    def stranded(self) -> list[list[Pair]]:
        """Of each model that nobody can serve who is shut out of it, as far as that is news since this was asked.

        Nobody as long as a server has never been probed: it may be another that is left.
        """
        if not self._lost or any(server.health is Health.UNKNOWN for server in self.servers.values()):
            return []
        lost, self._lost = self._lost, set()
        return [pairs for model in sorted(lost) if (pairs := self._shut_out(model))]

    def _shut_out(self, model: ModelName) -> list[Pair]:
        if self.routable(model) or model in self._spares:
            return []
        holders = (self.servers[server] for server in sorted(self.holders(model)))
        return [Pair(server.id, model) for server in holders if server.shut_out(model)]

    def routable(self, model: ModelName) -> IndexedSet[ServerState]:
        return self._routable.get(model, _NONE)

    def knows(self, model: ModelName) -> bool:
        """Whether any server, even a dead one, lists the model."""
        return model == ANY_MODEL or model in self._holders

    def holders(self, model: ModelName) -> set[ServerId]:
        return self._holders.get(model, set())

    def models_of(self, server: ServerId) -> Collection[ModelName]:
        return self._entered.get(server, ())

    def accepts(self, model: ModelName, excluded: frozenset[ServerId]) -> bool:
        """Whether some server that could serve the model is not among the excluded ones."""
        routable = self.routable(model)
        if len(routable) > len(excluded) or any(server.id not in excluded for server in routable):
            return True
        return any(server.id not in excluded for server in self._spares.get(model, _NONE))

    def unroutable_since(self, model: ModelName) -> float:
        """Since when no server could serve the model."""
        return self._lonely.get(model, self._started)

    def complete(self, now: float) -> bool:
        """Whether an unknown model is really unknown: every server has shown its inventory, or had time enough."""
        return all(server.seen or now - server.added >= _UNSEEN_GRACE for server in self.servers.values())

    def _place(self, server: ServerState, model: ModelName, now: float) -> None:
        members = self._routable.setdefault(model, IndexedSet())
        had = len(members)
        if server.routable(model):
            members.add(server)
        else:
            members.discard(server)
        if server.cooling or self._spares:
            self._note_spare(server, model, spare=server.spare(model))
        if not members and (had or server.gates):
            self._lost.add(model)
        if had and not members and model not in self._spares and not self._was_in_vain(server, model):
            self._lonely[model] = now

    def _was_in_vain(self, server: ServerState, model: ModelName) -> bool:
        """Whether the one that could serve the model until now was only tried, for want of others, and failed."""
        return model in self._lonely and model in server.gates and server.gates[model].in_vain

    def _note_spare(self, server: ServerState, model: ModelName, *, spare: bool) -> None:
        """Keep the set of those passed over, and of those among them that may be needed now."""
        if spare:
            self._spares.setdefault(model, IndexedSet()).add(server)
        elif model in self._spares:
            self._spares[model].discard(server)
            if not self._spares[model]:
                del self._spares[model]
        if model in self._spares:
            self._stirred.update(other.id for other in self._spares[model])

    def _may_stand_in(self, server: ServerState, model: ModelName, excluded: frozenset[ServerId]) -> bool:
        return server.id not in excluded and server in self._free and server.spare_ready(model)

    def _leave(self, server: ServerState, model: ModelName, now: float) -> None:
        """The server no longer lists the model; a model that nobody lists leaves no trace."""
        self._routable.get(model, _NONE).discard(server)
        if self._spares:
            self._note_spare(server, model, spare=False)
        holders = self._holders.get(model, set())
        holders.discard(server.id)
        if not self._routable.get(model) and model not in self._spares:
            self._lonely[model] = now
            self._lost.add(model)
        if not holders:
            for table in (self._holders, self._routable, self._lonely):
                table.pop(model, None)
