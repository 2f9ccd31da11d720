"""After a 101: bytes in both directions, until either side closes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from actors.trouble import BROKEN

if TYPE_CHECKING:
    from actors.link import Link
    from web.edge.intake import Intake

_Receive = Callable[[], Awaitable[bytes]]
_Send = Callable[[bytes], Awaitable[None]]


async def tunnel(intake: Intake, client: Link, inner: Link, begun: bytes) -> None:
    """Pass bytes on both ways; `begun` is what the inner side has said already. Returns at the first end."""
    if begun:
        await client.send_all(begun)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pump, intake.more, inner.send_all, nursery.cancel_scope)
        await _pump(inner.receive, client.send_all, nursery.cancel_scope)


async def _pump(receive: _Receive, send: _Send, done: trio.CancelScope) -> None:
    try:
        while data := await receive():
            await send(data)
    except BROKEN:
        pass
    done.cancel()
