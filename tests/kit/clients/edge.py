"""Clients that look at every byte: a strict reader of answers, independent of the code it is pointed at."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import orjson
import pytest
import trio

from actors.system import open_system
from fleet.common.ids import ServerId
from fleet.config import Config
from tests.kit.clients.lanes import connect
from tests.kit.clients.raw import request_bytes
from tests.kit.fleets.served import Served, front_end
from tests.kit.suite.unlimited import unlimited
from web.edge.acceptor import Edge
from web.serve import serve

_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [^\r\n]*")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([^\r\n\x00]*)")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})")
MODEL = "m"


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole answer. `interim`: the 1xx that came before it; `framing`: length, chunked, close or none."""

    status: int
    headers: dict[str, str]
    body: bytes
    framing: str
    interim: tuple[int, ...] = ()

    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def closes(self) -> bool:
        return "close" in self.headers.get("connection", "").lower()


class Browser:
    """One client connection. Every answer must be valid to the letter; what comes behind it is the next one's."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.data = b""

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            await self.stream.send_all(piece)

    async def ask(self, method: str, path: str, body: object = None, *fields: str) -> Reply:
        await self.send(request_bytes(method, path, body, *fields))
        return await self.answer(method)

    async def answer(self, method: str = "GET", within: float = 60.0) -> Reply:
        """The next answer. Raises EOFError if the connection ends before it has begun."""
        with trio.fail_after(within):
            return await self._answer(method)

    async def _answer(self, method: str) -> Reply:
        interim: list[int] = []
        while True:
            status, headers = await self._head()
            if status >= 200 or status == 101:
                break
            interim.append(status)
        framing = _framing(method, status, headers)
        body = await self._body(framing, headers)
        return Reply(status, headers, body, framing, tuple(interim))

    async def _head(self) -> tuple[int, dict[str, str]]:
        first, *lines = (await self._until(b"\r\n\r\n"))[:-4].split(b"\r\n")
        matched = _STATUS.fullmatch(first)
        assert matched, first
        headers: dict[str, str] = {}
        for line in lines:
            found = _FIELD.fullmatch(line)
            assert found, line
            name = found[1].decode().lower()
            assert name not in headers or name in ("vary", "set-cookie"), f"{name} twice"
            headers[name] = found[2].decode("latin-1").strip()
        return int(matched[1]), headers

    async def _body(self, framing: str, headers: dict[str, str]) -> bytes:
        if framing == "length":
            return await self._exactly(int(headers["content-length"]))
        if framing == "close":
            return await self.rest()
        return await self._chunks() if framing == "chunked" else b""

    async def _chunks(self) -> bytes:
        found: list[bytes] = []
        while True:
            line = await self._until(b"\r\n")
            size = _SIZE.fullmatch(line[:-2])
            assert size, line
            piece = await self._exactly(int(size[1], 16) + 2)
            assert piece.endswith(b"\r\n"), piece[-20:]
            if len(piece) == 2:
                return b"".join(found)
            found.append(piece[:-2])

    async def _until(self, mark: bytes) -> bytes:
        while (end := self.data.find(mark)) < 0:
            await self._more()
        found, self.data = self.data[: end + len(mark)], self.data[end + len(mark) :]
        return found

    async def _exactly(self, size: int) -> bytes:
        pieces, have = [self.data], len(self.data)
        while have < size:
            piece = bytes(await self.stream.receive_some(262_144))
            if not piece:
                raise EOFError(b"".join(pieces)[-200:])
            pieces.append(piece)
            have += len(piece)
        whole = b"".join(pieces)
        self.data = whole[size:]
        return whole[:size]

    async def _more(self) -> None:
        piece = bytes(await self.stream.receive_some(262_144))
        if not piece:
            raise EOFError(self.data)
        self.data += piece

    async def rest(self, within: float = 60.0) -> bytes:
        """Everything up to the end, however that comes about."""
        with trio.fail_after(within), suppress(trio.BrokenResourceError, EOFError):
            while True:
                await self._more()
        found, self.data = self.data, b""
        return found


def _framing(method: str, status: int, headers: dict[str, str]) -> str:
    chunked, length = headers.get("transfer-encoding"), headers.get("content-length")
    assert chunked in (None, "chunked"), chunked
    assert not (chunked and length), "two framings"
    if method == "HEAD" or status in (101, 204, 304):
        return "none"
    if chunked:
        return "chunked"
    if length is not None:
        assert length.isdigit(), length
        return "length"
    assert headers.get("connection") == "close", headers
    return "close"


async def browser(url: str) -> Browser:
    """A client of either lane."""
    return Browser(await connect(url))


def reset(stream: trio.SocketStream) -> None:
    """Close with an RST."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


def generate(prompt: str = "Hi", *fields: str, model: str = MODEL, stream: bool = False, **options: Any) -> bytes:
    """A hot request."""
    body = {"model": model, "prompt": prompt, "stream": stream, "options": options}
    return request_bytes("POST", "/api/generate", body, *fields)


def chunked(body: bytes, sizes: list[int], extension: bytes = b"", trailer: bytes = b"") -> bytes:
    """A body in chunks of these sizes, the rest in one more."""
    pieces, at = [], 0
    for size in [*sizes, len(body)]:
        piece = body[at : at + size]
        at += size
        if piece:
            pieces.append(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece))
    return b"".join(pieces) + b"0" + extension + b"\r\n" + trailer + b"\r\n"


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The same bytes in several pieces, none of them empty."""
    marks = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[begin:end] for begin, end in pairwise(marks)]


Script = Callable[[bytes, bytes], Sequence[bytes | trio.Event]]
"""From a request's head and body to the pieces of the answer; an event is waited for, an empty piece closes."""

_ROW = {"name": "m:latest", "model": "m:latest", "size": 1, "digest": "0" * 64, "modified_at": "2026-01-01T00:00:00Z"}
_KNOWN: Mapping[bytes, object] = {
    b"/api/tags": {"models": [_ROW]},
    b"/api/ps": {"models": []},
    b"/api/version": {"version": "0.33.0"},
}


def whole_answer(body: bytes, *fields: bytes, kind: bytes = b"application/json") -> bytes:
    """An answer with a Content-Length."""
    lines = [b"HTTP/1.1 200 OK", b"Content-Type: " + kind, b"Content-Length: %d" % len(body), *fields, b"", b""]
    return b"\r\n".join(lines) + body


class Backend:
    """An Ollama that says exactly what its script says, on connections that are kept. `seen`: what it was asked."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.seen: list[tuple[bytes, bytes]] = []
        self.sent = 0
        """Bytes of answers that the kernel has taken."""
        self.deaf_to = b"/nothing"
        """Requests for paths that begin so are neither read to their end nor answered."""

    async def serve(self, task_status: trio.TaskStatus[int]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
        task_status.started(int(listeners[0].socket.getsockname()[1]))
        await trio.serve_listeners(self._connection, listeners)

    async def _connection(self, stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, EOFError):
            data = b""
            while True:
                head, body, data = await _request(stream, data, self.deaf_to)
                for piece in self._pieces(head, body):
                    if isinstance(piece, trio.Event):
                        await piece.wait()
                        continue
                    if not piece:
                        return
                    await stream.send_all(piece)
                    self.sent += len(piece)

    def _pieces(self, head: bytes, body: bytes) -> Sequence[bytes | trio.Event]:
        path = head.split(b" ", 2)[1]
        if path in _KNOWN:
            return [whole_answer(orjson.dumps(_KNOWN[path]))]
        self.seen.append((head, body))
        return self.script(head, body)


async def _request(stream: trio.SocketStream, data: bytes, deaf_to: bytes) -> tuple[bytes, bytes, bytes]:
    """The next request of the fleet (always with a length), and what came behind it."""
    needed: int | None = None
    while True:
        head, mark, rest = data.partition(b"\r\n\r\n")
        if mark and needed is None:
            found = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
            needed = int(found[1]) if found else 0
            if head.split(b" ", 2)[1].startswith(deaf_to):
                await trio.sleep_forever()
            if b"\r\nexpect: 100-continue" in head.lower():
                await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        if needed is not None and len(rest) >= needed:
            return head, rest[:needed], rest[needed:]
        piece = await stream.receive_some(65536)
        if not piece:
            raise EOFError
        data += piece


def noted_edges(monkeypatch: pytest.MonkeyPatch) -> list[Edge]:
    """The edges that this test opens from here on."""
    made: list[Edge] = []

    def making(*args: Any, **named: Any) -> Edge:
        made.append(Edge(*args, **named))
        return made[-1]

    monkeypatch.setattr("web.serve.Edge", making)
    return made


@asynccontextmanager
async def in_front_of(script: Script, **config: Any) -> AsyncIterator[tuple[Served, Backend]]:
    """The product with one such backend, and room for many requests."""
    backend = Backend(script)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(backend.serve)
        spec = {"id": "raw", "url": f"http://127.0.0.1:{port}", "max_concurrency": 64}
        ports = {
            "proxy_port": 0,
            "orchestrator_port": 0,
            "dashboard_port": 0,
            "metrics_port": 0,
            **config.pop("server", {}),
        }
        full = Config.model_validate({"servers": [spec], "server": ports, **unlimited(config)})
        async with open_system(full, seed=1) as system, front_end(full, system, {}) as fleet:
            await system.probe(ServerId("raw"), 5.0)
            yield fleet, backend
        nursery.cancel_scope.cancel()


class Product:
    """A fleet whose `serve` a test waits for: `ended` is set when it has returned."""

    def __init__(self, fleet: Served, backend: Backend) -> None:
        self.fleet = fleet
        self.backend = backend
        self.ended = trio.Event()

    async def stop(self, within: float) -> float:
        """Ask it to stop; the seconds until it has."""
        began = trio.current_time()
        self.fleet.stop.set()
        with trio.fail_after(within):
            await self.ended.wait()
        return trio.current_time() - began


@asynccontextmanager
async def stoppable(script: Script, **config: Any) -> AsyncIterator[Product]:
    """The product with one such backend, to be stopped in the middle of things."""
    backend = Backend(script)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(backend.serve)
        server = {
            "proxy_port": 0,
            "orchestrator_port": 0,
            "dashboard_port": 0,
            "metrics_port": 0,
            **config.pop("server", {}),
        }
        spec = {"id": "raw", "url": f"http://127.0.0.1:{port}"}
        full = Config.model_validate({"servers": [spec], "server": server, **unlimited(config)})
        async with open_system(full, seed=1) as system, trio.open_nursery() as serving:
            product = Product(Served("", "", system, {}), backend)

            async def run(task_status: trio.TaskStatus[list[str]]) -> None:
                await serve(full, system=system, stop=product.fleet.stop, task_status=task_status)
                product.ended.set()

            product.fleet.url, product.fleet.orchestrator_url, *_ = await serving.start(run)
            await system.probe(ServerId("raw"), 5.0)
            yield product
            serving.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
