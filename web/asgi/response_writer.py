"""The way back to one client over ASGI: `fleet.protocol.call.Downstream` in terms of `send`."""

from __future__ import annotations

import math
from typing import Any, cast

import h11
import trio
from hypercorn.typing import ASGISendCallable

from fleet.protocol.call import ClientGone, Headers
from web.asgi.request_body import HeldBody


class AsgiDownstream:
    """Start, write, finish; then `close` lets the server have the end of the message.

    `finish` only notes that the answer is whole, so that the end goes out after the request body was dealt with.
    Any of them raises ClientGone once the client cannot be reached. An answer that is cut short (never finished, or
    shorter than its Content-Length) is closed without its end, so that the client can tell.
    """

    def __init__(self, send: ASGISendCallable, body: HeldBody, *, head_only: bool = False) -> None:
        self._send = send
        self._body = body
        self._head_only = head_only
        self._left: int | None = None
        self._cut = False
        self._putting = trio.CancelScope()
        self.started = False
        self.finished = False

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head. A long body that is still coming in at this point ends the connection afterwards."""
        fields = list(headers)
        lengths = [int(value) for name, value in fields if name == b"content-length" and value.isdigit()]
        self._left = lengths[0] if lengths and not self._head_only and status not in (204, 304) else None
        if not self._body.nearly_here and not any(name == b"connection" for name, _ in fields):
            fields.append((b"connection", b"close"))
        self.started = True
        await self._put({"type": "http.response.start", "status": status, "headers": fields})

    async def write(self, data: bytes, raw: bytes = b"") -> None:
        """Send a piece; what exceeds the announced length is dropped (an error record has no place there)."""
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        if data:
            await self._put({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, last: bytes = b"", raw: bytes = b"", patience: float = math.inf) -> None:
        """Send the last piece; the answer is whole."""
        with trio.move_on_after(patience):
            if last:
                await self.write(last)
            self.finished = not self._left
        await trio.lowlevel.checkpoint()

    def cut(self) -> None:
        """The answer is cut: its end will not be sent, and the connection closes instead."""
        self.finished = False
        self._cut = True
        self._putting.cancel()

    async def close(self) -> None:
        """Send the end, if there was one to send."""
        if self.finished:
            await self._put({"type": "http.response.body", "body": b"", "more_body": False})

    async def _put(self, message: dict[str, Any]) -> None:
        if self._cut:
            raise ClientGone
        try:
            with trio.CancelScope() as self._putting:
                await self._send(cast(Any, message))
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, h11.LocalProtocolError) as gone:
            raise ClientGone from gone
        if self._putting.cancelled_caught:
            raise ClientGone
