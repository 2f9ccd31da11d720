"""Bytes in and out of one connection, and how one is made.

Two kinds behind one face. `SocketLink` is the hot one: readiness from Trio's epoll, then one plain system call; no
checkpoint and no failed first attempt besides. `StreamLink` carries anything Trio calls a stream: TLS, the in-memory
streams of tests. Foreign exceptions pass through here; `upstream.transport_errors` has the table that translates them.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Protocol

import trio
from trio.lowlevel import notify_closing, wait_readable, wait_writable

from actors.upstream.address import BackendAddress, server_name

READ_SIZE: Final = 65_536
SEND_SIZE: Final = 262_144
"""Bytes that are sent, and encrypted, in one turn."""

# A host that was powered off sends no FIN: 15 s of silence, then 4 probes 5 s apart, and a read fails after some 35 s.
# (While bytes of ours are unacknowledged TCP retransmits instead, for minutes; the first-byte timeout covers that.)
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 15), ("TCP_KEEPALIVE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4))

Dial = Callable[[], Awaitable[trio.abc.Stream]]


class Link(Protocol):
    """One connection. Any method but `abort` may raise OSError, BrokenResourceError or ClosedResourceError."""

    async def receive(self) -> bytes:
        """What one read gives, at most 64 KiB; empty when the server closed. Cancelled: no byte is lost."""

    async def send_first(self, data: bytes) -> int:
        """Send as much as goes without waiting for the server; how much that was."""

    async def send_all(self, data: bytes | memoryview) -> None:
        """Send everything. Cancelled: how much went is unknown."""

    def stale(self) -> bool:
        """Whether an idle connection has bytes or an end waiting, so that it cannot be used again."""

    def abort(self) -> None:
        """Close now, without waiting; whoever is blocked in `receive` wakes up with ClosedResourceError. Idempotent."""


class SocketLink:
    """A plain socket, used without Trio's wrapper."""

    __slots__ = ("_closed", "_poll", "_socket")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._poll: select.poll | None = None
        self._closed = False

    async def receive(self) -> bytes:
        while True:
            if self._closed:
                raise trio.ClosedResourceError
            await wait_readable(self._socket)
            try:
                return self._socket.recv(READ_SIZE)
            except BlockingIOError:  # readiness is a hint
                continue

    async def send_first(self, data: bytes) -> int:
        if self._closed:
            raise trio.ClosedResourceError
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    async def send_all(self, data: bytes | memoryview) -> None:
        with memoryview(data) as whole:
            sent = 0
            while sent < len(whole):
                if self._closed:
                    raise trio.ClosedResourceError
                try:
                    sent += self._socket.send(whole[sent : sent + SEND_SIZE])
                except BlockingIOError:
                    await wait_writable(self._socket)
                else:
                    if sent < len(whole):  # a fast reader would keep the event loop in here to the end
                        await trio.lowlevel.checkpoint()

    def stale(self) -> bool:
        if self._closed:
            return True
        if self._poll is None:  # kept: asking it again costs a fifth of a read that fails
            self._poll = select.poll()
            self._poll.register(self._socket, select.POLLIN)
        return bool(self._poll.poll(0))

    def abort(self) -> None:
        if not self._closed:
            self._closed = True
            notify_closing(self._socket)
            self._socket.close()


class StreamLink:
    """Any Trio stream. `peek`: the socket far below, if there is one, to see whether an idle connection is stale."""

    __slots__ = ("_close", "_closed", "_peek", "_stream")

    def __init__(self, stream: trio.abc.Stream, peek: socket.socket | None = None) -> None:
        self._stream = stream
        self._peek = peek
        self._close = list(_closers(stream))  # raises TypeError now rather than when it matters
        self._closed = False

    async def receive(self) -> bytes:
        return bytes(await self._stream.receive_some(READ_SIZE))

    async def send_first(self, data: bytes) -> int:
        await self._stream.send_all(data)
        return len(data)

    async def send_all(self, data: bytes | memoryview) -> None:
        with memoryview(data) as whole:
            for at in range(0, len(whole), SEND_SIZE):  # TLS encrypts at one go whatever it is given
                await self._stream.send_all(whole[at : at + SEND_SIZE])

    def stale(self) -> bool:
        return self._closed or (self._peek is not None and _has_something(self._peek))

    def abort(self) -> None:
        self._closed = True
        for close in self._close:
            close()


def _has_something(sock: socket.socket) -> bool:
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _closers(stream: object) -> Iterator[Callable[[], object]]:
    """How to close at once what `aclose` would close politely: from the bottom, without a farewell."""
    match stream:
        case trio.SSLStream():
            yield from _closers(stream.transport_stream)
        case trio.StapledStream():
            yield from _closers(stream.send_stream)
            yield from _closers(stream.receive_stream)
        case trio.SocketStream():
            yield stream.socket.close
        case _ if callable(close := getattr(stream, "close", None)):
            yield close
        case _:
            raise TypeError(f"a {type(stream).__name__} cannot be closed without waiting")


def adopt(stream: trio.abc.Stream) -> Link:
    """The fastest link for a stream somebody else has dialled."""
    return SocketLink(_take_socket(stream)) if isinstance(stream, trio.SocketStream) else StreamLink(stream)


async def connect(endpoint: BackendAddress, context: ssl.SSLContext | None) -> Link:
    """Look up, connect and, given a `context`, shake hands for TLS.

    Raises OSError, BrokenResourceError or UnicodeError. Cancelled: nothing is left open.
    """
    sock = _take_socket(await trio.open_tcp_stream(endpoint.host, endpoint.port))
    _tune(sock)
    return SocketLink(sock) if context is None else await _handshake(sock, server_name(endpoint.host), context)


async def _handshake(sock: socket.socket, name: str, context: ssl.SSLContext) -> Link:
    try:
        plain = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        stream = trio.SSLStream(plain, context, server_hostname=name, https_compatible=True)
        await stream.do_handshake()
    except BaseException:
        sock.close()
        raise
    return StreamLink(stream, sock)


def _take_socket(stream: trio.SocketStream) -> socket.socket:
    """The plain socket out of Trio's wrapper, which is closed thereby."""
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(False)
    return sock


def _tune(sock: socket.socket) -> None:
    # A system that lacks or refuses one of these is slower or slower to notice, not broken.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, seconds in _KEEPALIVE:
            if (option := getattr(socket, name, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, seconds)
