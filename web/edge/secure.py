"""TLS on a client's connection."""

from __future__ import annotations

import socket
import ssl

import trio

from actors.link import StreamLink


class TlsLink(StreamLink):
    """A TLS connection to a client: a first write that cannot wait takes nothing, so that every wait can be limited."""

    async def send_first(self, data: bytes) -> int:
        return 0


async def shake_hands(sock: socket.socket, context: ssl.SSLContext, within: float) -> TlsLink:
    """The link, once both sides agree. Raises BrokenResourceError if they do not, or not within so many seconds.

    The socket stays the caller's to close.
    """
    plain = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    stream = trio.SSLStream(plain, context, server_side=True, https_compatible=True)
    with trio.move_on_after(within):
        await stream.do_handshake()
        return TlsLink(stream, sock)
    raise trio.BrokenResourceError("no TLS handshake in time")
