"""The way back to one client over its own connection: `fleet.protocol.call.Downstream` in bytes.

A write that the socket takes at once is one system call and no checkpoint. Chunks that come from a server whole are
passed on as they are; everything else is framed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import trio

from actors.upstream.transport_errors import BROKEN
from fleet.common.times import http_date
from fleet.protocol.call import ClientGone, Headers
from web.edge.request_head import RequestHead
from web.edge.request_reader import Body
from web.edge.tls_link import ClientLink

_LAST_CHUNK: Final = b"0\r\n\r\n"
_STATUS: Final = {int(status): f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


def status_line(status: int) -> bytes:
    """The first line of an answer; it always has a reason phrase if there is one, because clients print it."""
    return _STATUS.get(status) or b"HTTP/1.1 %d \r\n" % status


class DateLine:
    """The Date field, made once a second for all answers of an edge. `wall`: seconds since 1970."""

    __slots__ = ("_line", "_made", "wall")

    def __init__(self, wall: Callable[[], float]) -> None:
        self.wall = wall
        self._made = -1
        self._line = b""

    def now(self) -> bytes:
        """The line of this second."""
        now = int(self.wall())
        if now != self._made:
            self._made, self._line = now, f"date: {http_date(now)}\r\n".encode()
        return self._line


class EdgeDownstream:
    """Start, write, finish or cut, as the protocol says; then `whole` and `keep_alive` say what comes next.

    `fields` go on the answer unless it has them, `lines` (complete ones) in any case. `keep_alive` may be turned off
    until the start; it goes off by itself when a long request body is still coming in then. `patience` is for how many
    seconds any write may wait for the client; where a lease is watched, that is the lease's business. Any method raises
    ClientGone once the client cannot be reached.
    """

    __slots__ = (
        "_bodiless",
        "_body",
        "_chunking",
        "_date",
        "_head",
        "_left",
        "_link",
        "_old",
        "_torn",
        "fields",
        "keep_alive",
        "lines",
        "patience",
        "started",
        "status",
        "whole",
    )

    def __init__(self, link: ClientLink, head: RequestHead, body: Body, date: DateLine) -> None:
        self._link = link
        self._body = body
        self._date = date
        self._old = head.old
        self._bodiless = head.method == "HEAD"
        self._head = b""
        self._chunking = False
        self._left: int | None = None
        self._torn = False
        self.fields: Headers = ()
        self.lines = b""
        self.keep_alive = head.keep_alive
        self.patience = math.inf
        self.started = False
        self.whole = False
        self.status = 0

    async def start(self, status: int, headers: Headers) -> None:
        """Make the head; it leaves with the first piece, or with `flush`."""
        self.started = True
        self.status = status
        self.keep_alive = self.keep_alive and self._body.nearly_here
        lines = [status_line(status), self._date.now()]
        length = None
        for name, value in headers:
            if name == b"content-length":
                length = int(value)
            elif name == b"connection":
                self.keep_alive = self.keep_alive and b"close" not in value.lower()
                continue
            elif name == b"date":
                lines[1] = b""
            lines.append(b"%b: %b\r\n" % (name, value))
        if self.fields:
            present = {name for name, _ in headers}
            lines += [b"%b: %b\r\n" % field for field in self.fields if field[0] not in present]
        lines += (self.lines, self._framed(status, length))
        self._head = b"".join(lines)

    def _framed(self, status: int, length: int | None) -> bytes:
        """Decide how the body will end; the last lines of the head."""
        if self._bodiless or status in (204, 304):
            self._bodiless = True
            framing = b""
        elif length is not None:
            self._left = length
            framing = b""
        elif self._old:
            self.keep_alive = False
            framing = b""
        else:
            self._chunking = True
            framing = b"transfer-encoding: chunked\r\n"
        if not self.keep_alive:
            return framing + b"connection: close\r\n\r\n"
        return framing + (b"connection: keep-alive\r\n\r\n" if self._old else b"\r\n")

    async def switch(self, headers: Headers) -> None:
        """A 101: from here on the connection is not HTTP any more."""
        self.started = True
        self.keep_alive = False
        lines = [b"%b: %b\r\n" % pair for pair in headers]
        if not await self._send(b"".join([status_line(101), *lines, b"\r\n"]), self.patience):
            raise ClientGone

    async def flush(self) -> None:
        """Send the head now."""
        if self._head:
            head, self._head = self._head, b""
            if not await self._send(head, self.patience):
                raise ClientGone

    async def write(self, data: bytes, raw: bytes = b"") -> None:
        """Send a piece; what exceeds the announced length is dropped (an error record has no place there)."""
        out = self._framed_piece(data, raw)
        if out and not await self._send(out, self.patience):
            raise ClientGone

    async def finish(self, last: bytes = b"", raw: bytes = b"", patience: float = math.inf) -> None:
        """Send the last piece and the end."""
        out = self._framed_piece(last, raw)
        if self._chunking and not raw:
            out += _LAST_CHUNK
        if out and not await self._send(out, min(patience, self.patience)):
            return
        self.whole = not self._left
        self.keep_alive = self.keep_alive and self.whole

    def part(self) -> None:
        """What came after the 101 has ended in its own way: its last words must reach the client."""
        self.whole = not self._torn

    def cut(self) -> None:
        """The answer is cut: its end will not be sent, and the connection closes instead."""
        self.keep_alive = False
        if self._torn:  # somebody waits for the client to read
            self._link.reset()

    @property
    def ends_by_close(self) -> bool:
        """Whether a close would look like the end of the answer, or leave what a client does not take to the kernel."""
        return self._torn or (self.started and not (self._chunking or self._bodiless or self._left is not None))

    def _framed_piece(self, data: bytes, raw: bytes) -> bytes:
        """The bytes to send for a piece, the head before them if it has not left."""
        if self._chunking:
            data = raw or (b"%x\r\n%b\r\n" % (len(data), data) if data else b"")
        elif self._bodiless:
            data = b""
        elif self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        if self._head:
            data, self._head = self._head + data, b""
        return data

    async def _send(self, data: bytes, patience: float) -> bool:
        """Nearly always the socket takes all of it at once; False if the client did not within `patience` seconds."""
        if self._torn:
            raise ClientGone
        try:
            sent = await self._link.send_first(data)
        except BROKEN as gone:
            self.keep_alive = False
            raise ClientGone from gone
        return sent == len(data) or await self._rest(memoryview(data)[sent:], patience)

    async def _rest(self, data: memoryview, patience: float) -> bool:
        """What the socket did not take at once; False if it did not take it within `patience` seconds.

        Given up half-way (cancelled, too), the connection is good for nothing else: nobody knows how much has gone.
        """
        self._torn, alive, self.keep_alive = True, self.keep_alive, False
        with trio.move_on_after(patience):
            try:
                await self._link.send_all(data)
            except BROKEN as gone:
                raise ClientGone from gone
            self._torn, self.keep_alive = False, alive
        return not self._torn
