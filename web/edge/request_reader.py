"""What a client sends, in order: heads and bodies out of one connection, nothing read ahead that nobody asked for.

Waiting costs a cancel scope only where something has begun and must end in time; who waits for a next request for too
long is ended from outside (`Edge.sweep`).
"""

from __future__ import annotations

import io
import re
from typing import Final

import trio

from actors.upstream.connection import Link
from actors.upstream.transport_errors import BROKEN
from fleet.common.errors import BadRequest, RequestTimeout, TooLarge
from fleet.http1.body_framing import Chunked, Framing, Length, WireError
from web.edge.request_head import NOT_HTTP, BadHead, Heads, RequestHead
from web.http.body_limits import BodyTerms

_END: Final = b"\r\n\r\n"
_OPENING = re.compile(rb"[A-Z\r]")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
SHORT: Final = 2**20
"""The rest of a body of at most this many bytes is read and thrown away rather than closing the connection."""
LINGER: Final = 2.0
"""Seconds for which we listen to the rest of a body nobody wants, so that its sender gets to read our answer."""


class Intake:
    """One connection's incoming side. `busy` is False only while nothing of a next request has come."""

    def __init__(self, link: Link, heads: Heads, head_bytes: int, head_seconds: float) -> None:
        self._link = link
        self._heads = heads
        self._head_bytes = head_bytes
        self._head_seconds = head_seconds
        self._data = b""
        self.busy = True

    async def head(self) -> tuple[RequestHead, int | None] | None:
        """The next head and its Content-Length; None when the client has closed. Raises `BadHead`, also for slowness.

        A connection that breaks raises what the link raises.
        """
        if not self._data:
            self.busy = False
            self._data = await self._link.receive()
            self.busy = True
            if not self._data:
                return None
        else:  # or a client that pipelines what we refuse at once would keep the event loop to itself
            await trio.lowlevel.checkpoint()
        if self._data.startswith(b"\r\n"):  # RFC 9112 2.2: an empty line in front is overlooked
            self._data = self._data[2:]
        end = self._data.find(_END, 0, self._head_bytes)
        if end < 0:
            end = await self._slow_head()
            if end < 0:
                return None
        data, self._data = self._data[: end + 4], self._data[end + 4 :]
        return self._heads.read(data)

    async def _slow_head(self) -> int:
        """The rest of a head that has begun; where it ends, negative if the client closed instead."""
        data = bytearray(self._data)
        with trio.move_on_after(self._head_seconds):
            while True:
                if data and not _OPENING.match(data):  # TLS on a plain port: its client waits for us to say something
                    raise BadHead(400, NOT_HTTP)
                looked = max(0, len(data) - 3)
                if len(data) >= self._head_bytes:
                    raise BadHead(431, "the request head is larger than limits.header_bytes allows")
                piece = await self._link.receive()
                if not piece:
                    return -1
                data += piece
                if (end := data.find(_END, looked, self._head_bytes)) >= 0:
                    self._data = bytes(data)
                    return end
        raise BadHead(408, "the request head did not come in within timeouts.head")

    def take(self, length: int) -> bytes | None:
        """A body that is here already, whole; else None, and nothing is taken."""
        if len(self._data) < length:
            return None
        body, self._data = self._data[:length], self._data[length:]
        return body

    async def more(self) -> bytes:
        """What has come, or comes next; empty when the client has closed."""
        if self._data:
            data, self._data = self._data, b""
            return data
        return await self._link.receive()

    def give_back(self, data: bytes) -> None:
        """These bytes belong to the next request."""
        self._data = data

    async def invite(self) -> None:
        """Say `100 Continue`, unless the body has come without it."""
        if not self._data:
            await self._link.send_all(_CONTINUE)


class Body:
    """One request body: read whole, or piece by piece with the client held back in between, or thrown away."""

    def __init__(self, intake: Intake, head: RequestHead, length: int | None, terms: BodyTerms) -> None:
        self._intake = intake
        self._terms = terms
        self.length = length
        self._held = 0
        self._invitable = head.expecting
        self._late = False
        self._chunked = head.chunked
        self._framing: Framing | None = None
        self.complete = self.empty = not (length or head.chunked)
        """Whether the last byte has been read; whether there is no body at all, said by the head alone."""

    @property
    def nearly_here(self) -> bool:
        """Whether the rest is not worth closing the connection over."""
        if self.complete:
            return True
        return not (self._invitable or self._late) and self.length is not None and self.length <= SHORT

    async def whole(self, limit: int) -> bytes:
        """All of it. Raises TooLarge, RequestTimeout, BodyBudget, BadRequest (bad chunks), EOFError (client closed)."""
        length = self.length
        if length is not None:
            if length > limit:
                raise TooLarge("the request body is larger than limits.body_bytes allows")
            if (body := self._intake.take(length)) is not None:
                self.complete = True
                self._count(length)
                return body
        whole = io.BytesIO()  # gives its bytes away without another copy, which a join of all pieces would make
        with trio.move_on_after(self._terms.total):
            async for piece in self:
                self._count(len(piece))
                if self._held > limit:
                    raise TooLarge("the request body is larger than limits.body_bytes allows")
                whole.write(piece)
            return whole.getvalue()
        self._late = True
        raise RequestTimeout(
            f"the request body did not come in within {self._terms.total:g} s", details="see timeouts.total"
        )

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        """The next piece. Raises as `whole` does. Cancelled: no byte is lost."""
        if self.complete:
            raise StopAsyncIteration
        try:
            with trio.move_on_after(self._terms.idle):
                if self._invitable:
                    self._invitable = False
                    await self._intake.invite()
                return await self._piece()
        except BROKEN as gone:
            raise EOFError from gone
        self._late = True
        raise RequestTimeout(
            f"no byte of the request body came in for {self._terms.idle:g} s", details="see timeouts.body_idle"
        )

    async def _piece(self) -> bytes:
        framing = self._framing
        if framing is None:
            framing = self._framing = Chunked() if self._chunked else Length(self.length or 0)
        while not framing.complete:
            data = await self._intake.more()
            if not data:
                raise EOFError
            try:
                piece = framing.decode(data)
            except WireError as error:
                raise BadRequest("the request body is not valid chunks") from error
            self.complete = framing.complete
            if framing.extra:
                self._intake.give_back(data[-framing.extra :])
            if piece:
                return piece
        raise StopAsyncIteration

    async def discard(self) -> bool:
        """Throw the rest away; whether its end was found soon enough for another request to follow."""
        if self.complete:
            return True
        if not self.nearly_here:
            return False
        with trio.move_on_after(LINGER):
            try:
                while not self.complete:
                    await self._piece()
            except (StopAsyncIteration, BadRequest, EOFError):
                pass
        return self.complete

    def _count(self, size: int) -> None:
        self._terms.budget.take(size)
        self._held += size

    def release(self) -> None:
        """The request has ended, and its bytes with it."""
        if self._held:
            self._terms.budget.give_back(self._held)
            self._held = 0
