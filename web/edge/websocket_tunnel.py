"""After a 101: bytes in both directions, until either side closes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from actors.upstream.connection import Link
from actors.upstream.transport_errors import BROKEN
from web.edge.request_reader import Intake

_Receive = Callable[[], Awaitable[bytes]]
_Send = Callable[[bytes], Awaitable[None]]


async def tunnel(intake: Intake, client: Link, inner: Link, begun: bytes, patience: float) -> bool:
    """Pass bytes on both ways; `begun` is what the inner side has said already. Returns at the first end.

    True: the inner side ended it, and the client's link has taken all that it had said before. A client that does not
    take a piece within `patience` seconds has ended it.
    """
    complete = False

    async def tell(data: bytes) -> None:
        with trio.move_on_after(patience):
            await client.send_all(data)
            return
        raise trio.BrokenResourceError

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pump, intake.more, inner.send_all, nursery.cancel_scope)
        if begun:
            await tell(begun)
        if await _pump(inner.receive, tell, nursery.cancel_scope):
            complete = True
    return complete


async def _pump(receive: _Receive, send: _Send, done: trio.CancelScope) -> bool:
    """Pass on until the end; whether that was an orderly one."""
    try:
        while data := await receive():
            await send(data)
        return True
    except BROKEN:
        return False
    finally:
        done.cancel()
