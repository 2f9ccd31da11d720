"""The records of a running pull, read from the data plane's own transport.

A pull is left at any moment: its client goes, the server is removed, the fleet stops. A chain of async generators
would then be left half-way for the garbage collector. This reader leaves nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import orjson
import trio

from actors.upstream.control_client import mapping
from actors.upstream.pool import UpstreamRequest, UpstreamResponse
from fleet.common.errors import BackendBroke, Phase
from fleet.scheduling.server_state import Row
from fleet.security.known_secrets import without

if TYPE_CHECKING:
    from actors.state.servers import ServerCell

_LONGEST: Final = 2**16
"""Bytes of one record; Ollama's have some hundred."""
_TOLD: Final = 500
_TURN: Final = 256
"""Lines after which others have their turn: one read may hold twenty thousand."""


class Records:
    """Record after record of an NDJSON answer, as a mapping. Raises BackendBroke for anything else."""

    def __init__(self, response: UpstreamResponse) -> None:
        self._response = response
        self._held = bytearray()
        self._lines: deque[bytes] = deque()

    def __aiter__(self) -> Records:
        return self

    async def __anext__(self) -> Row:
        while True:
            while self._lines:
                line = self._lines.popleft().strip()
                if len(self._lines) % _TURN == 0:
                    await trio.lowlevel.checkpoint()
                if line:
                    return mapping(line)
            if self._response.complete:
                raise StopAsyncIteration
            self._take(await self._response.receive())

    def _take(self, data: bytes) -> None:
        self._held += data
        if b"\n" in data or self._response.complete:
            *lines, rest = bytes(self._held).split(b"\n")
            self._lines.extend(lines)
            if self._response.complete:
                self._lines.append(rest)
                rest = b""
            self._held = bytearray(rest)
        if len(self._held) > _LONGEST:
            raise BackendBroke(f"sent a record of more than {_LONGEST} bytes", Phase.BODY)


@asynccontextmanager
async def pulling(cell: ServerCell, body: Mapping[str, object], connect_timeout: float) -> AsyncIterator[Records]:
    """A running pull on one server: its progress records. Leaving the block cancels it; the next one resumes.

    Raises BackendError. Seconds. Silence is not limited here: see `actors.requests.transfer.watched`.
    """
    response = await cell.pool.open(_request(cell, body), connect_timeout=connect_timeout)
    try:
        if response.status != 200:
            raise BackendBroke(
                f"pull refused with {response.status}: {await _text(response, cell.state.spec.plain_key.encode())}",
                Phase.HEADERS,
            )
        yield Records(response)
    finally:
        response.release()


def _request(cell: ServerCell, body: Mapping[str, object]) -> UpstreamRequest:
    headers = [(b"content-type", b"application/json")]
    if key := cell.state.spec.plain_key:
        headers.append((b"authorization", b"Bearer " + key.encode()))
    return UpstreamRequest("POST", "/api/pull", headers, orjson.dumps({**body, "stream": True}))


async def _text(response: UpstreamResponse, key: bytes) -> str:
    text = b""
    while len(text) < _TOLD + len(key) and (data := await response.receive()):
        text += data
    return without(text, key)[:_TOLD].decode("utf-8", "replace")
