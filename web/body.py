"""A request body that holds the sender back: what nobody reads stays in the socket.

Quart keeps whole bodies in memory before anybody asked for them. This one passes chunks through a short channel: a view
either awaits it (everything, up to the limit) or iterates over it (any length, four chunks in memory).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from typing import Any, Final

import trio
from quart_trio.wrappers import TrioRequest
from werkzeug.exceptions import RequestEntityTooLarge

from fleet.call import Headers
from fleet.headers import field

_CHUNKS_AHEAD: Final = 4
_SHORT: Final = 2**20


class HeldBody:
    """One request body: fed by the connection, read by at most one view.

    `complete` is set once the last byte has come in. Both ways of reading may be cancelled at any time; what was read
    until then is gone.
    """

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        self.complete = trio.Event()
        self._limit = max_content_length
        self._expected = expected_content_length
        self._short = expected_content_length is not None and expected_content_length <= _SHORT
        self._sink, self._source = trio.open_memory_channel[bytes](_CHUNKS_AHEAD)
        self._whole: bytes | None = None

    @property
    def nearly_here(self) -> bool:
        """Whether the rest is not worth closing the connection over."""
        return self.complete.is_set() or self._short

    def foretell(self, headers: Headers) -> None:
        """Note what the request's head says about a body of no announced length: chunks to come, or nothing at all."""
        if self._expected is None and field(headers, b"transfer-encoding") is None:
            self._short = True

    async def feed(self, data: bytes, *, last: bool) -> None:
        """Take what came in; waits while the reader is behind."""
        if data:
            await self._sink.send(data)
        if last:
            self.set_complete()

    def set_complete(self) -> None:
        """There is no more to come."""
        self._sink.close()
        self.complete.set()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._source.__aiter__()

    def __await__(self) -> Generator[Any, None, bytes]:
        return self._collect().__await__()

    async def _collect(self) -> bytes:
        """The whole body, kept for the next caller. Raises RequestEntityTooLarge as soon as that is certain."""
        if self._whole is None:
            self._check(self._expected or 0)
            chunks: list[bytes] = []
            size = 0
            async for chunk in self._source:
                size += len(chunk)
                self._check(size)
                chunks.append(chunk)
            self._whole = b"".join(chunks)
        return self._whole

    def _check(self, size: int) -> None:
        if self._limit is not None and size > self._limit:
            raise RequestEntityTooLarge

    async def swallow(self) -> None:
        """Throw away whatever else comes in, so that the sender never waits for us."""
        async for _ in self._source:
            pass

    def clear(self) -> None:
        """Forget what was collected (Quart asks for this)."""
        self._whole = b""


class FleetRequest(TrioRequest):
    """Quart's request with our body in it; `get_data` works as ever."""

    body_class = HeldBody  # type: ignore[assignment]
