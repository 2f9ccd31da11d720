"""One client request, several servers: everybody is asked, one answer is given."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from actors.system import System
from fleet.common.errors import FleetError
from fleet.common.ids import ServerId
from fleet.protocol.call import Call, Downstream
from web.monitoring.http_counts import unexchanged
from web.ollama_api.read_your_writes import held

log = logging.getLogger("fleet.fanout")

TELLING: Final = 10.0
"""Seconds the other servers get to unload a model before the client is answered anyway."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What one server said; status 0 if it could not be asked."""

    server: ServerId
    status: int
    body: bytes

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    @property
    def missing(self) -> bool:
        """Whether it knows no such model; a 404 that is no JSON means that it knows no such route."""
        return self.status == 404 and self.body.lstrip().startswith(b"{")


Ask = Callable[["ServerId"], Awaitable[tuple[int, bytes]]]


async def ask_all(servers: Sequence[ServerId], ask: Ask) -> list[Reply]:
    """Ask every server at the same time; replies in the order of `servers`. Raises nothing of one server's making."""
    replies: dict[ServerId, Reply] = {}

    async def one(server: ServerId) -> None:
        try:
            replies[server] = Reply(server, *await ask(server))
        except FleetError as error:
            log.warning("%s could not be asked: %s", server, error.message)
            replies[server] = Reply(server, 0, error.message.encode())

    async with trio.open_nursery() as nursery:
        for server in servers:
            nursery.start_soon(one, server)
    return [replies[server] for server in servers]


async def unload(system: System, holders: Sequence[ServerId], call: Call, down: Downstream) -> None:
    """Unload on every holder: the first answers the client in its own words, after the others were told.

    In this order, because a client that has its answer may leave, and that cancels what is left to do.
    """
    first, *others = holders

    async def tell(server: ServerId) -> tuple[int, bytes]:
        return await system.client(server).unload(call.asked_model, embedding=call.embedding)

    metrics, now = system.statistics.metrics, system.clock.now
    with held(system, holders, down) as last, unexchanged(metrics, now, call.endpoint, last):
        with trio.move_on_after(TELLING):
            await ask_all(others, tell)
        await system.relay_to(first, call, last)
    about = {"model": call.model, "server": ",".join(holders), "request_id": call.request_id, "client": call.client}
    about |= {"by": call.by} if call.by else {}
    logging.getLogger("fleet.management").info("unload done", extra=about)
