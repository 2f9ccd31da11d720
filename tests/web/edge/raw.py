"""Raw sockets against a served app: what a test needs to be an odd client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import h11
import pytest
import trio

import web.asgi.quart_connection
import web.edge.connection
import web.edge.request_reader
from tests.kit.clients.lanes import connect
from web.asgi.hypercorn_server import serve_apps
from web.edge.acceptor import Edge
from web.process.bind import Bound, bind


@asynccontextmanager
async def served(
    app: Any,
    listeners: Sequence[Bound] | None = None,
    url: str = "",
    *,
    drain_timeout: float = 1.0,
    **settings: Any,
) -> AsyncIterator[Served]:
    """Serve an app with Hypercorn, on a free port of loopback unless told where."""
    bound = listeners or [bind("127.0.0.1", 0, "test")]
    async with running(partial(serve_apps, bound, app, **settings), url or bound[0].url, drain_timeout) as server:
        yield server


@asynccontextmanager
async def running(serve: Callable[..., Awaitable[None]], url: str, drain_timeout: float = 1.0) -> AsyncIterator[Served]:
    """Serve; on the way out everything must end within five seconds."""
    here = Served(url, trio.Event())

    async def run(task_status: trio.TaskStatus[Any]) -> None:
        await serve(stop=here.stop, drain_timeout=drain_timeout, task_status=task_status)
        here.stopped.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        try:
            yield here
        finally:
            here.hang_up()
            here.stop.set()
        with trio.fail_after(20):
            await here.stopped.wait()


def lingering(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """How long either lane listens to the rest of a body that nobody wants."""
    for module in (web.asgi.quart_connection, web.edge.connection, web.edge.request_reader):
        monkeypatch.setattr(module, "LINGER", seconds)


class Served:
    """A running server."""

    def __init__(self, url: str, stop: trio.Event) -> None:
        self.url = url
        self.edge: Edge | None = None
        """Where clients come in, if that is the edge."""
        self.stop = stop
        self.stopped = trio.Event()
        self._wires: list[Wire] = []

    async def connect(self) -> Wire:
        wire = Wire(await connect(self.url))
        self._wires.append(wire)
        return wire

    def hang_up(self) -> None:
        """Close every client connection, whatever state it is in."""
        for wire in self._wires:
            wire.stream.socket.close()


class Wire:
    """One client connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = b""

    async def send(self, data: bytes | str) -> None:
        await self.stream.send_all(data.encode() if isinstance(data, str) else data)

    async def ask(self, method: str, path: str, body: bytes = b"", *fields: str, version: str = "1.1") -> Answer:
        """Send one request and read its response."""
        await self.send(head(method, path, *fields, length=len(body) if body else None, version=version) + body)
        return await self.answer(method)

    async def answer(self, method: str = "GET") -> Answer:
        """Read one response, interim ones passed over."""
        with trio.fail_after(20):
            return await self._read(method)

    async def _read(self, method: str) -> Answer:
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        parser.send(h11.EndOfMessage())
        found: Answer | None = None
        if self._buffer:
            parser.receive_data(self._buffer)
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(await self.stream.receive_some())
            elif isinstance(event, h11.Response):
                found = Answer(event.status_code, [(bytes(name), bytes(value)) for name, value in event.headers])
                found.reason = bytes(event.reason).decode()
            elif isinstance(event, h11.Data) and found:
                found.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage) and found:
                self._buffer = parser.trailing_data[0]
                return found

    async def closed(self) -> bool:
        """Wait until the server has closed; what it still sends is thrown away."""
        with trio.fail_after(20):
            try:
                while await self.stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass
        return True


class Answer:
    """A whole response."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.reason = ""
        self.headers = headers
        self.body = b""

    def __getitem__(self, name: str) -> str:
        return next(value.decode() for key, value in self.headers if key.lower() == name.lower().encode())

    def __contains__(self, name: str) -> bool:
        return any(key.lower() == name.lower().encode() for key, _ in self.headers)


def head(method: str, path: str, *fields: str, length: int | None = None, version: str = "1.1") -> bytes:
    """A request head with Host, and Content-Length if given."""
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", *fields]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
