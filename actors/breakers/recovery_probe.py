"""Recovery tests for half-open breakers: never load a model by surprise, never hit a busy server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from actors.state.servers import ServerCell, Servers
from fleet.common.errors import BadAnswer, FirstByteTimeout, OutOfDescriptors, Phase
from fleet.common.ids import Pair
from fleet.models.inventory import by_name, parsed
from fleet.models.jobs import is_embedding
from fleet.protocol.typed_fields import name_of

_LONGEST: Final = 200


class ModelTester:
    """Asks an idle server for one token of a model that is in its memory already.

    `ps_timeout` says how many seconds it may take to list what is in memory; the configuration may change it.
    """

    def __init__(self, servers: Servers, ps_timeout: Callable[[], float]) -> None:
        self._servers = servers
        self._ps_timeout = ps_timeout

    async def test(self, pair: Pair, timeout: float) -> bool | None:
        """True: it works. None: not now (busy, not healthy, model not in memory, no descriptor to ask with).

        Raises BackendError: it does not.

        An answer that does not come in time is a failure too.
        """
        cell = self._servers.get(pair.server)
        if cell is None or not cell.state.usable or cell.leases or pair.model not in cell.state.resident:
            return None
        with trio.move_on_after(timeout):
            try:
                return await self._try(cell, pair, timeout)
            except OutOfDescriptors:  # ours are gone: no fault of the server's
                return None
        raise FirstByteTimeout(f"no answer within {timeout:g} s", Phase.HEADERS)

    async def _try(self, cell: ServerCell, pair: Pair, timeout: float) -> bool | None:
        row = cell.state.models.get(pair.model, {})
        name = name_of(row) or pair.model
        if pair.model not in by_name(await cell.client.ps(self._ps_timeout())):
            return None  # what the last probe saw has been unloaded since
        status, body = await cell.client.try_model(name, embedding=is_embedding(row), timeout=timeout)
        if status != 200:
            raise BadAnswer(f"answered {status}: {_words(body)}", Phase.HEADERS)
        return True


def _words(body: bytes) -> str:
    """The server's own error text, cut; our request holds nothing that it could repeat."""
    try:
        answer = parsed(body)
    except ValueError:
        answer = None
    said = answer.get("error") if isinstance(answer, dict) else None
    return said[:_LONGEST] if isinstance(said, str) and said else "no reason given"
