"""Looks for models that no server lists: somebody may have pulled or made one on a server behind our back.

Such a model would be unknown until the next round of probes. So who asks for one makes the fleet look once, at every
healthy server whose inventory is older than a second, side by side. However many ask for however many names, a server
is looked at once a second at the most, a name is looked for once a second at the most, and nobody waits longer than
two seconds. Requests for models that are known never come here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from fleet.common.ids import ANY_MODEL
from fleet.common.lru_table import LruTable
from fleet.scheduling.server_state import Health

if TYPE_CHECKING:
    from actors.state.servers import ServerCell, Servers
    from fleet.common.ids import ModelName

_WITHIN: Final = 2.0
"""Seconds that anybody waits for a look; a server that is slower is believed later."""
_AGE: Final = 1.0
"""Seconds for which an inventory, and the news that a name is unknown, are fresh."""
_MOST_SERVERS: Final = 256
"""Looked at side by side, those first that were looked at longest ago."""
_MOST_NAMES: Final = 256
"""Looked for at one time, and as many remembered in vain; who asks for more is told at once what is known."""


class InventoryLookup:
    """The loop that looks, and what is asked of it. Any task may ask."""

    def __init__(self, servers: Servers, now: Callable[[], float]) -> None:
        self._servers = servers
        self._now = now
        self._wanted = trio.Event()
        self._sought: dict[ModelName, trio.Event] = {}
        self._missed: LruTable[ModelName, float] = LruTable(_MOST_NAMES)
        self._fresh_until = -math.inf
        """Before that no inventory is old enough; found out by the last walk over the servers."""

    async def find(self, model: ModelName) -> bool:
        """Whether any server lists the model; looks once if none did, which takes `_WITHIN` seconds at the most.

        All who ask for it meanwhile wait for the same look. Cancelled: the look goes on for the others.
        """
        if model == ANY_MODEL or self._servers.known(model):
            return model != ANY_MODEL
        answered = self._sought[model] if model in self._sought else self._seek(model)
        if answered is not None:
            with trio.move_on_after(_WITHIN):
                await answered.wait()
        return self._servers.known(model)

    async def run(self) -> None:
        """Look whenever somebody asks, until cancelled. After a crash: who waited is told what is known."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            names = tuple(self._sought)
            try:
                with trio.move_on_after(_WITHIN) as scope:
                    await self._look(names, scope)
            finally:
                self._settle(names)
            if self._sought:  # they came during the look: there may be servers that are due by now
                self._wanted.set()

    def _seek(self, model: ModelName) -> trio.Event | None:
        """Have it looked for; None if that makes no sense now."""
        now = self._now()
        if self._servers.draining or now - self._missed.get(model, -math.inf) < _AGE:
            return None
        if len(self._sought) >= _MOST_NAMES or not (self._wanted.is_set() or self._sought or self._due(now)):
            return None
        answered = self._sought[model] = trio.Event()
        self._wanted.set()
        return answered

    async def _look(self, names: tuple[ModelName, ...], scope: trio.CancelScope) -> None:
        """Ask every server that is due; ends early when all names are found."""

        async def ask(cell: ServerCell) -> None:
            probed = cell.probed
            cell.probe_now.set()
            await probed.wait()
            for name in [each for each in self._sought if each in cell.state.models]:
                self._sought.pop(name).set()
            if self._sought.keys().isdisjoint(names):
                scope.cancel()

        async with trio.open_nursery() as nursery:
            for cell in self._due(self._now()):
                nursery.start_soon(ask, cell)

    def _due(self, now: float) -> list[ServerCell]:
        """Healthy servers whose inventory is too old. The others' own rounds say when they are back."""
        if now < self._fresh_until:
            return []
        healthy = [cell for cell in self._servers.values() if cell.state.health is Health.HEALTHY]
        due = sorted((cell for cell in healthy if now - cell.looked >= _AGE), key=lambda cell: cell.looked)
        if not due:
            self._fresh_until = min((cell.looked for cell in healthy), default=now) + _AGE
        return due[:_MOST_SERVERS]

    def _settle(self, names: tuple[ModelName, ...]) -> None:
        """Answer all who asked before the look began and whose model it did not find."""
        now = self._now()
        for name in names:
            answered = self._sought.pop(name, None)
            if answered is not None:
                self._missed.put(name, now)
                answered.set()
