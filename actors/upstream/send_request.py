"""One request on one connection, up to the response's head: sending and reading at the same time where it matters.

A small body goes out in one write and the answer is read afterwards, with no task or scope in between. A big or
streamed body is sent by one child task while the head is awaited, because a server may answer without reading it
(Ollama does when a blob exists already): the answer then wins, sending stops, the connection is not used again.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import Final

import trio

from actors.upstream.address import BackendAddress
from actors.upstream.connection import Link
from actors.upstream.transport_errors import BROKEN, broke
from fleet.common.errors import BackendBroke, BadRequest, Phase
from fleet.http1.response_head import Found, HeadReader, request_head
from fleet.protocol.call import Headers

ONE_WRITE: Final = 65_536
"""Bodies up to this many bytes are copied behind the head."""
_LAST_WORDS: Final = 1.0
_CONTINUE_WAIT: Final = 1.0


@dataclass(slots=True, eq=False)
class UpstreamRequest:
    """What to ask of a backend.

    `target` is path and query, appended to the endpoint's base path. `headers` are clean: no host, content-length or
    transfer-encoding. An iterable body is sent chunked unless `content_length` (bytes) is given; it stays the caller's,
    who closes it. `expect_continue`: ask before sending the body, and send it anyway after `continue_wait` seconds of
    silence. `lines` are complete header lines that go beside `headers`, unchecked: they must come from
    `fleet.protocol.headers.passing`. `host` replaces the endpoint's own. `upgrade`: a 101 is an answer too.
    """

    method: str
    target: str
    headers: Headers
    body: bytes | AsyncIterable[bytes]
    content_length: int | None = None
    expect_continue: bool = False
    continue_wait: float = _CONTINUE_WAIT
    lines: bytes = b""
    host: bytes | None = None
    upgrade: bool = False

    @property
    def replayable(self) -> bool:
        """Whether the body can be sent a second time."""
        return isinstance(self.body, bytes)

    def head(self, endpoint: BackendAddress) -> bytes:
        """The bytes before the body. Raises `BadRequest` if a field or the target would break out of its line."""
        lines = self.lines + self._framing_lines()
        if self.expect_continue:
            lines += b"expect: 100-continue\r\n"
        host = endpoint.host_header if self.host is None else self.host
        return request_head(self.method, endpoint.base_path + self.target, host, self.headers, lines)

    def _framing_lines(self) -> bytes:
        if isinstance(self.body, bytes):
            length = len(self.body) if self.body or self.method not in ("GET", "HEAD", "DELETE", "OPTIONS") else None
        elif self.content_length is None:
            return b"transfer-encoding: chunked\r\n"
        else:
            length = self.content_length
        return b"" if length is None else b"content-length: %d\r\n" % length


class _SendFailed(Exception):
    """Our side of the connection broke; the other may still hold an answer."""


class Attempt:
    """One request on one connection. `sent`: all of the request went out; `answered`: the server has sent a byte."""

    __slots__ = ("_address", "_go", "_link", "_request", "_source_error", "answered", "sent")

    def __init__(self, link: Link, request: UpstreamRequest, address: str) -> None:
        self._link = link
        self._request = request
        self._address = address
        self._go = trio.Event() if request.expect_continue else None
        self._source_error: Exception | None = None
        self.sent = False
        self.answered = False

    async def head(self, opening: bytes) -> Found:
        """Send `opening` (the head) and the body; the response's head, and what was read behind it.

        Raises `BackendBroke` with phase SEND or HEADERS; what an iterable body raises passes through; `BadRequest` if
        its length is not what was announced. After an error or cancellation the link is good for `abort` only.
        """
        body = self._request.body
        if isinstance(body, bytes) and len(body) <= ONE_WRITE and not self._request.expect_continue:
            opening += body
            body = b""
        try:
            unsent = memoryview(opening)[await self._link.send_first(opening) :]
        except BROKEN as error:
            with trio.move_on_after(_LAST_WORDS):  # a server that refused us may have said why before it closed
                return await self._read()
            raise self._broke(error) from error
        if unsent or body:
            return await self._send_and_read(unsent, body)
        self.sent = True
        return await self._read()

    async def _read(self) -> Found:
        reader = HeadReader(upgrade=self._request.upgrade)
        try:
            while data := await self._link.receive():
                self.answered = True
                if found := reader.feed(data):
                    return found
                if self._go is not None and reader.continued:
                    self._go.set()
        except BROKEN as error:
            raise self._broke(error) from error
        raise self._broke()

    async def _send_and_read(self, unsent: memoryview, body: bytes | AsyncIterable[bytes]) -> Found:
        answer: Found | BackendBroke | None = None
        async with trio.open_nursery() as nursery:
            reading = trio.CancelScope()
            nursery.start_soon(self._upload, unsent, body, reading)
            with reading:
                try:
                    answer = await self._read()
                except BackendBroke as failure:  # kept, so that it leaves the nursery without a group around it
                    answer = failure
            nursery.cancel_scope.cancel()
        if isinstance(answer, tuple):
            return answer
        # Whoever failed first has stopped the other: after a failure of the source there is no answer.
        raise answer or self._source_error or self._broke()

    async def _upload(self, unsent: memoryview, body: bytes | AsyncIterable[bytes], reading: trio.CancelScope) -> None:
        try:
            await self._send(unsent)
            if self._go is not None:
                with trio.move_on_after(self._request.continue_wait):
                    await self._go.wait()
            await (self._send(body) if isinstance(body, bytes) else self._stream(body))
            self.sent = True
        except _SendFailed:
            reading.deadline = min(reading.deadline, trio.current_time() + _LAST_WORDS)
        except Exception as error:  # the caller's own iterable failed: its error is not the backend's
            self._source_error = error
            reading.cancel()

    async def _stream(self, pieces: AsyncIterable[bytes]) -> None:
        left = self._request.content_length
        async for piece in pieces:
            if left is None:
                if piece:
                    await self._send(b"%x\r\n%b\r\n" % (len(piece), piece))
                continue
            left -= len(piece)
            if left < 0:
                raise BadRequest("The upload is longer than its content-length.")
            await self._send(piece)
        if left:
            raise BadRequest("The upload is shorter than its content-length.")
        if left is None:
            await self._send(b"0\r\n\r\n")

    async def _send(self, data: bytes | memoryview) -> None:
        try:
            await self._link.send_all(data)
        except BROKEN as error:
            raise _SendFailed from error

    def _broke(self, error: Exception | None = None) -> BackendBroke:
        return broke(self._address, Phase.HEADERS if self.sent else Phase.SEND, error)
