"""The links to clients: plain, or after a TLS handshake. Both are forgotten by who watches them before they close."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from typing import Final, Protocol

import trio

from actors.upstream.connection import Link, SocketLink, StreamLink
from web.edge.disconnect_watch import Leaving

_RESET: Final = struct.pack("ii", 1, 0)


class ClientLink(Link, Protocol):
    """A connection to a client."""

    @property
    def closed(self) -> bool:
        """Whether it was closed by us."""
        ...

    def reset(self) -> None:
        """Close now and throw away what the client has not taken: no end that could look like that of an answer."""

    async def end(self) -> None:
        """Close politely. Does not wait for the client."""


class _Watched:
    """What both links add: to be forgotten by the watch before the socket's number is free for another."""

    __slots__ = ()
    _closed: bool
    _socket: socket.socket
    _leaving: Leaving

    @property
    def closed(self) -> bool:
        return self._closed

    def abort(self) -> None:
        if not self._closed:
            self._leaving.forget(self._socket)
        super().abort()  # type: ignore[misc]

    def reset(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.abort()


class PlainLink(_Watched, SocketLink):
    """Plain TCP."""

    __slots__ = ("_leaving",)

    def __init__(self, sock: socket.socket, leaving: Leaving) -> None:
        super().__init__(sock)
        self._leaving = leaving

    async def end(self) -> None:
        await trio.lowlevel.checkpoint()
        self.abort()


class TlsLink(_Watched, StreamLink):
    """A TLS connection to a client: a first write that cannot wait takes nothing, so that every wait can be limited."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream], sock: socket.socket, leaving: Leaving) -> None:
        super().__init__(stream, sock)
        self._socket = sock
        self._leaving = leaving

    async def send_first(self, data: bytes) -> int:
        return 0

    async def end(self) -> None:
        """Close with TLS's own farewell: a bare end of the connection may not be the end of an answer."""
        self._leaving.forget(self._socket)
        await self._stream.aclose()
        self._closed = True


async def shake_hands(sock: socket.socket, context: ssl.SSLContext, within: float, leaving: Leaving) -> TlsLink:
    """The link, once both sides agree. Raises BrokenResourceError if they do not, or not within so many seconds.

    The socket stays the caller's to close, unless there is a link.
    """
    plain = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    stream = trio.SSLStream(plain, context, server_side=True)
    with trio.move_on_after(within):
        await stream.do_handshake()
        return TlsLink(stream, sock, leaving)
    raise trio.BrokenResourceError("no TLS handshake in time")
