"""One bounded call at a time to one backend: for what the fleet itself asks, as opposed to what clients ask.

By the data plane's own transport, which bounds heads and interim answers and gives everybody else a turn after each
read. Added here: a limit for the whole call, and one for the body. Nothing is ever decompressed.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Final

import orjson
import trio

from actors.upstream.address import BackendAddress
from actors.upstream.connection import SocketLink, StreamLink
from actors.upstream.pool import Abortable, Pool, UpstreamRequest, UpstreamResponse
from fleet.common.errors import BackendError, BadAnswer, ConnectTimeout, FirstByteTimeout, Phase
from fleet.config.schema.urls import clean_url
from fleet.security.known_secrets import without

if TYPE_CHECKING:
    from actors.upstream.connection import Dial
    from fleet.config import ServerSpec

_IDLE: Final = 4
"""Connections kept: as many as a round of probes has, and one."""

Status = tuple[int, bytes]


class Control:
    """Calls to one server, with its own key, on connections of their own. `dial` replaces the way there.

    `on_connect` is told of each connection that was made.

    Making one raises ValueError if the server's URL is not one that it can use.
    """

    def __init__(
        self, spec: ServerSpec, dial: Dial | None = None, on_connect: Callable[[], None] | None = None
    ) -> None:
        self._name, self._key = spec.id, spec.plain_key.encode()
        self._fields = [(b"accept", b"application/json")]
        if self._key:
            self._fields.append((b"authorization", b"Bearer " + self._key))
        endpoint = BackendAddress.parse(clean_url(spec.url))  # whoever made the description may not have looked
        trust = _trust() if endpoint.tls and dial is None else None
        self._pool = Pool(endpoint, dial=dial, max_idle=_IDLE, ssl_context=trust, on_connect=on_connect)

    def close(self) -> None:
        """Close every connection; calls under way fail."""
        self._pool.close()

    async def call(
        self, method: str, path: str, body: Mapping[str, object] | None, *, timeout: float, most: int
    ) -> Status:
        """Ask; the status and the whole body of the answer, within `timeout` seconds and `most` bytes.

        Raises ConnectTimeout, FirstByteTimeout (whatever came by then), BackendUnreachable, BackendBroke, BadAnswer,
        and OutOfDescriptors, for which no server is to blame. Cancelled: the connection is closed. An error that
        repeats the key that we have shown is given without it: its words are told to people.
        """
        under_way = _Call()
        try:
            with trio.move_on_after(timeout):
                response = await self._pool.open(
                    self._request(method, path, body), connect_timeout=timeout, holder=under_way
                )
                content = await _whole(response, path, most)
                return response.status, content if response.status == 200 else without(content, self._key)
        except BackendError as error:
            raise type(error)(f"{self._name}: {error.message}", error.phase) from error
        if under_way.connected:
            raise FirstByteTimeout(f"{self._name}: {path} did not answer within {timeout:g} s", Phase.HEADERS)
        raise ConnectTimeout(f"{self._name}: no connection within {timeout:g} s", Phase.CONNECT)

    def _request(self, method: str, path: str, body: Mapping[str, object] | None) -> UpstreamRequest:
        if body is None:
            return UpstreamRequest(method, path, self._fields, b"")
        return UpstreamRequest(
            method, path, [*self._fields, (b"content-type", b"application/json")], orjson.dumps(body)
        )


class _Call:
    """What the pool is told to keep informed."""

    connection: Abortable | None = None
    given_up = False

    @property
    def connected(self) -> bool:
        return isinstance(self.connection, SocketLink | StreamLink)


@cache
def _trust() -> ssl.SSLContext:
    """Which certificates are believed. Reading them takes a dozen milliseconds: once, not for every server."""
    return ssl.create_default_context()


async def _whole(response: UpstreamResponse, path: str, most: int) -> bytes:
    """The body. Raises BackendBroke, and BadAnswer for one that is too long or in a coding nobody asked for."""
    try:
        if any(name == b"content-encoding" and value.lower() != b"identity" for name, value in response.headers):
            raise BadAnswer(f"{path} answered in a coding that nobody asked for", Phase.HEADERS)
        content = bytearray()
        while data := await response.receive():
            content += data
            if len(content) > most:
                raise BadAnswer(f"{path} answered more than {most} bytes", Phase.BODY)
        return bytes(content)
    finally:
        response.release()
