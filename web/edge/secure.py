"""The links to clients: plain, or after a TLS handshake. Both are forgotten by who watches them before they close."""

from __future__ import annotations

import socket
import ssl

import trio

from actors.link import SocketLink, StreamLink
from web.edge.leaving import Leaving


class PlainLink(SocketLink):
    """A connection to a client."""

    __slots__ = ("_leaving",)

    def __init__(self, sock: socket.socket, leaving: Leaving) -> None:
        super().__init__(sock)
        self._leaving = leaving

    def abort(self) -> None:
        if not self._closed:
            self._leaving.forget(self._socket)
        super().abort()


class TlsLink(StreamLink):
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

    def abort(self) -> None:
        if not self._closed:
            self._leaving.forget(self._socket)
        super().abort()


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
