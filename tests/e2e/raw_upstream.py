"""A backend that says exactly the bytes it is told to, and keeps exactly the bytes it was sent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from actors.system import open_system
from fleet.common.ids import ServerId
from fleet.config import Config
from tests.kit.fleets.served import Served, front_end
from tests.kit.suite.unlimited import unlimited

_ROW = {"name": "m:latest", "model": "m:latest", "size": 1, "digest": "0" * 64, "modified_at": "2026-01-01T00:00:00Z"}
_KNOWN = {
    "/api/tags": {"models": [_ROW]},
    "/api/ps": {"models": []},
    "/api/version": {"version": "0.33.0"},
}


class RawUpstream:
    """`answer` is sent, piece by piece, to every request that is not a probe; then the connection is closed.

    `requests` are the heads and bodies that came; `known` is what probes are told, by path. `flood`, if
    there is one, is said to them again and again.
    """

    def __init__(self) -> None:
        self.answer: list[bytes] = []
        self.flood = b""
        self.known: dict[str, Any] = dict(_KNOWN)
        self.port = 0
        self.requests: list[tuple[bytes, bytes]] = []

    async def serve(self, task_status: trio.TaskStatus[int]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = int(listeners[0].socket.getsockname()[1])
        task_status.started(self.port)
        await trio.serve_listeners(self._one, listeners)

    async def _one(self, stream: trio.SocketStream) -> None:
        try:
            head, body = await _request(stream)
            path = head.split(b" ", 2)[1].decode()
            while path in self.known and self.flood:
                await stream.send_all(self.flood)
            if path in self.known:
                text = json.dumps(self.known[path]).encode()
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                await stream.send_all(head + b"Content-Length: %d\r\n\r\n" % len(text) + text)
                return
            self.requests.append((head, body))
            for piece in self.answer:
                await stream.send_all(piece)
        except (trio.BrokenResourceError, EOFError):
            pass
        finally:
            await trio.aclose_forcefully(stream)


async def _request(stream: trio.SocketStream) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += await _some(stream)
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            length = int(value)
    whole = bytearray(body)
    while len(whole) < length:
        whole += await _some(stream)
    return head, bytes(whole)


async def _some(stream: trio.SocketStream) -> bytes:
    part = await stream.receive_some(65536)
    if not part:
        raise EOFError
    return bytes(part)


@asynccontextmanager
async def in_front_of_raw(**more: Any) -> AsyncIterator[tuple[Served, RawUpstream]]:
    """The product with one such backend; `more` configuration, if any."""
    upstream = RawUpstream()
    async with trio.open_nursery() as nursery:
        port = await nursery.start(upstream.serve)
        ports = {"proxy_port": 0, "orchestrator_port": 0, "dashboard_port": 0, "metrics_port": 0}
        servers = [{"id": "raw", "url": f"http://127.0.0.1:{port}"}]
        config = Config.model_validate({"servers": servers, "server": ports, **unlimited(more)})
        async with open_system(config, seed=1) as system, front_end(config, system, {}) as handle:
            await system.probe(ServerId("raw"), 5.0)
            yield handle, upstream
        nursery.cancel_scope.cancel()
