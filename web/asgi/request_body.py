"""A request body that holds the sender back: what nobody reads stays in the socket.

Quart keeps whole bodies in memory before anybody asked for them. This one passes chunks through a short channel: a view
either awaits it (everything, up to the limit) or iterates over it (any length, four chunks in memory).
"""

from __future__ import annotations

import io
import math
from collections.abc import Generator
from typing import Any, Final

import trio
from quart_trio.wrappers import TrioRequest
from werkzeug.exceptions import RequestEntityTooLarge

from fleet.common.errors import RequestTimeout
from fleet.protocol import headers as fields
from fleet.protocol.call import Headers
from web.http.body_limits import BodyTerms
from web.process.raw_connection import UNKNOWN, Wire

_CHUNKS_AHEAD: Final = 4
_SHORT: Final = 2**20


class HeldBody:
    """One request body: fed by the connection, read by at most one view.

    `complete` is set once the last byte has come in. Both ways of reading may be cancelled at any time; what was read
    until then is gone. Both raise RequestTimeout when the client is silent for too long. Nobody says `100 Continue` to
    a client before its body is wanted.
    """

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        self.complete = trio.Event()
        self.terms = BodyTerms()
        self._limit = max_content_length
        self._expected = expected_content_length
        self._short = expected_content_length is not None and expected_content_length <= _SHORT
        self._sink, self._source = trio.open_memory_channel[bytes](_CHUNKS_AHEAD)
        self._whole: bytes | None = None
        self._held = 0
        self._begun = False
        self._wire: Wire = UNKNOWN

    @property
    def held_back(self) -> bool:
        """Whether the client waits with its body for a word that it has not got."""
        return self._wire.expecting and not self._begun

    @property
    def nearly_here(self) -> bool:
        """Whether the rest is not worth closing the connection over."""
        return self.complete.is_set() or (self._short and not self.held_back)

    def foretell(self, headers: Headers, wire: Wire) -> None:
        """Note what the head says about a body of no announced length (chunks to come, or nothing), and its source."""
        self._wire = wire
        if self._expected is None and fields.field(headers, b"transfer-encoding") is None:
            self._short = True

    async def feed(self, data: bytes, *, last: bool, patience: float = math.inf) -> bool:
        """Take what came in, waiting while the reader is behind; False: not taken within `patience` seconds."""
        if data:
            self._begun = True
            try:
                self._sink.send_nowait(data)
            except trio.WouldBlock:
                with trio.move_on_after(patience) as waiting:
                    await self._sink.send(data)
                if waiting.cancelled_caught:
                    return False
        if last:
            self.set_complete()
        return True

    def set_complete(self) -> None:
        """There is no more to come."""
        self._sink.close()
        self.complete.set()

    def __aiter__(self) -> HeldBody:
        return self

    async def __anext__(self) -> bytes:
        try:
            return self._source.receive_nowait()
        except trio.WouldBlock:
            pass
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        await self._wire.invite()
        with trio.move_on_after(self.terms.idle):
            try:
                return await self._source.receive()
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
        raise RequestTimeout(
            f"no byte of the request body came in for {self.terms.idle:g} s", details="see timeouts.body_idle"
        )

    def __await__(self) -> Generator[Any, None, bytes]:
        return self._collect().__await__()

    async def _collect(self) -> bytes:
        """The whole body, kept for the next caller. Raises RequestEntityTooLarge as soon as that is certain."""
        if self._whole is not None:
            return self._whole
        self._check(self._expected or 0)
        whole = io.BytesIO()  # gives its bytes away without another copy, which a join of all chunks would make
        with trio.move_on_after(self.terms.total):
            async for chunk in self:
                self._check(whole.tell() + len(chunk))
                self.terms.budget.take(len(chunk))
                self._held += len(chunk)
                whole.write(chunk)
            self._whole = whole.getvalue()
            return self._whole
        raise RequestTimeout(
            f"the request body did not come in within {self.terms.total:g} s", details="see timeouts.total"
        )

    def _check(self, size: int) -> None:
        if self._limit is not None and size > self._limit:
            raise RequestEntityTooLarge

    async def swallow(self) -> None:
        """Throw away whatever else comes in, so that the sender never waits for us."""
        async for _ in self._source:
            pass

    def clear(self) -> None:
        """Forget what was collected (Quart asks for this); it still counts, because the call has it."""
        self._whole = b""

    def release(self) -> None:
        """The request has ended, and its bytes with it."""
        self.terms.budget.give_back(self._held)
        self._held = 0


class FleetRequest(TrioRequest):
    """Quart's request with our body in it; `get_data` works as ever."""

    body_class = HeldBody  # type: ignore[assignment]
