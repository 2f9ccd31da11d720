"""Servers that follow a script of raw bytes, for tests of the transport."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from actors.upstream.pool import BackendAddress, Pool, UpstreamRequest, UpstreamResponse

Handler = Callable[["Peer"], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Peer:
    """The server's end of one connection. `number` counts connections from 1."""

    def __init__(self, stream: trio.abc.Stream, number: int) -> None:
        self.stream = stream
        self.number = number
        self._data = b""

    async def request(self) -> bytes | None:
        """One request, head and body of announced length; None when the client is gone."""
        while b"\r\n\r\n" not in self._data:
            if not await self._more():
                return None
        head, _, rest = self._data.partition(b"\r\n\r\n")
        length = next((int(x[15:]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:")), 0)
        while len(rest) < length:
            if not await self._more():
                return None
            rest = self._data.partition(b"\r\n\r\n")[2]
        self._data = rest[length:]
        return head + b"\r\n\r\n" + rest[:length]

    async def _more(self) -> bytes:
        try:
            data = bytes(await self.stream.receive_some(65_536))
        except trio.BrokenResourceError:
            return b""
        self._data += data
        return data

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def gone(self) -> None:
        """Until the client has closed; what it still sends is dropped."""
        while await self._more():
            self._data = b""

    def reset(self) -> None:
        """RST instead of FIN."""
        assert isinstance(self.stream, trio.SocketStream)
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.stream.socket.close()


class Server:
    """Accepts on loopback; each connection runs the handler."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.port = 0
        self.accepted = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def pool(self, **options: object) -> Pool:
        return Pool(BackendAddress.parse(self.url), **options)  # type: ignore[arg-type]

    async def _serve(self, stream: trio.abc.Stream) -> None:
        self.accepted += 1
        async with stream:
            await self._handler(Peer(stream, self.accepted))

    async def start(self, nursery: trio.Nursery, host: str = "127.0.0.1") -> Server:
        (listener,) = await trio.open_tcp_listeners(0, host=host)
        self.port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, self._serve, [listener])
        return self


def answering(*answers: bytes) -> Handler:
    """A server that gives these answers, one for each request, the last one for ever; keeps connections open."""

    async def handler(peer: Peer) -> None:
        queue = list(answers)
        while await peer.request() is not None:
            await peer.send(queue.pop(0) if len(queue) > 1 else queue[0])

    return handler


async def start(nursery: trio.Nursery, handler: Handler) -> Server:
    return await Server(handler).start(nursery)


def post(body: bytes = b"{}", target: str = "/api/chat") -> UpstreamRequest:
    return UpstreamRequest("POST", target, [(b"content-type", b"application/json")], body)


async def ask(pool: Pool, request: UpstreamRequest | None = None) -> UpstreamResponse:
    with trio.fail_after(60):
        return await pool.open(request or post(), connect_timeout=5)


async def read(response: UpstreamResponse) -> bytes:
    """The whole body."""
    pieces = []
    with trio.fail_after(60):
        while data := await response.receive():
            pieces.append(data)
    return b"".join(pieces)


async def fetch(pool: Pool, request: UpstreamRequest | None = None) -> bytes:
    """Ask, read, release."""
    response = await ask(pool, request)
    try:
        return await read(response)
    finally:
        response.release()


def open_sockets() -> int:
    """How many sockets this process holds (/dev/fd: Linux and macOS)."""
    count = 0
    for name in os.listdir("/dev/fd"):
        with suppress(OSError):  # the descriptor of the listing itself is closed again
            count += stat.S_ISSOCK(os.fstat(int(name)).st_mode)
    return count
