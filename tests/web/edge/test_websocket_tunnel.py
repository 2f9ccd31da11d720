"""Websockets through the edge: nothing but bytes once the app has agreed, and nothing before that."""

from __future__ import annotations

import base64
import hashlib
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from hypercorn.protocol.ws_stream import WSStream
from quart import abort, websocket
from quart_trio import QuartTrio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

import web.serve
from fleet.security.roles import Role
from tests.kit.clients.edge import Browser, noted_edges, reset
from tests.kit.clients.raw import request_bytes
from tests.web.fake_system import FakeSystem
from web.admin.role_enforcement import WEBSOCKET, grant
from web.app import create_app
from web.asgi.hypercorn_connection import FRAME_BYTES
from web.edge.acceptor import Edge
from web.http.ports import Face
from web.serve import serve

KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
ACCEPT = base64.b64encode(hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()


def upgrade(path: str, *fields: str) -> bytes:
    own = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}")
    return request_bytes("GET", path, None, *own, *fields)


def frame(text: bytes, opcode: int = 1) -> bytes:
    """A masked frame, as clients send them; the mask is all zeros."""
    assert len(text) < 126
    return bytes((0x80 | opcode, 0x80 | len(text))) + b"\0\0\0\0" + text


class Room:
    """A running product with a few websocket routes in it. `inside`: handlers that run; `may_accept` lets /late on."""

    def __init__(self) -> None:
        self.port = 0
        self.inside = self.visits = 0
        self.may_accept = trio.Event()
        self.edges: list[Edge] = []

    async def raw(self) -> Browser:
        return Browser(await trio.open_tcp_stream("127.0.0.1", self.port))

    @asynccontextmanager
    async def open(self, path: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[WebSocketConnection]:
        """A proper client; its connection is closed whatever comes of it."""
        plain = await trio.open_tcp_stream("127.0.0.1", self.port)
        stream = plain if tls is None else trio.SSLStream(plain, tls, server_hostname="127.0.0.1")
        async with stream, trio.open_nursery() as nursery:
            socket = await wrap_client_stream(nursery, stream, "127.0.0.1", path)
            yield socket
            with trio.fail_after(20):
                await socket.aclose()

    async def until_left(self) -> None:
        """Wait until a handler has been here, and is no more."""
        with trio.fail_after(60):
            while self.inside or not self.visits:
                await trio.sleep(0.002)

    async def until_empty(self, within: float = 20.0) -> None:
        with trio.fail_after(within):
            while self.inside or self.edges[-1].connections:
                await trio.sleep(0.002)


def with_routes(room: Room, app: QuartTrio) -> QuartTrio:
    async def echo() -> None:
        room.inside += 1
        try:
            while True:
                await websocket.send(await websocket.receive())
        finally:
            room.inside -= 1

    async def late() -> None:
        await room.may_accept.wait()
        await echo()

    async def push() -> None:
        for number in range(3):
            await websocket.send(f"event {number}")
        await websocket.close(4001, "that was all")

    async def farewell() -> None:
        room.inside += 1
        room.visits += 1
        try:
            await websocket.send("x" * 300_000)
            await websocket.close(4001, "that")
        finally:
            room.inside -= 1

    async def endless() -> None:
        room.inside += 1
        try:
            while True:
                await websocket.send("x" * 10_000)
        finally:
            room.inside -= 1

    async def forbidden() -> None:
        abort(403)

    for view in (echo, late, push, farewell, endless, forbidden):
        app.websocket(f"/test/{view.__name__}")(view)
        grant(app, WEBSOCKET, f"/test/{view.__name__}", Role.CLIENT)
    return app


def apps_with_routes(room: Room, system: Any, context: Any) -> dict[Face, QuartTrio]:
    app = with_routes(room, create_app(system, context))
    return dict.fromkeys(Face, app)


@asynccontextmanager
async def opened(monkeypatch: pytest.MonkeyPatch, **config: Any) -> AsyncIterator[Room]:
    room = Room()
    monkeypatch.setattr(web.serve, "create_apps", lambda system, context: apps_with_routes(room, system, context))
    room.edges = noted_edges(monkeypatch)
    ports = {
        "proxy_port": 0,
        "orchestrator_port": 0,
        "dashboard_port": 0,
        "metrics_port": 0,
        **config.pop("server", {}),
    }
    system = FakeSystem(server=ports, **config)
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(partial(serve, system.config, system=system.handle, stop=trio.Event()))
        room.port = int(urls[0].rpartition(":")[2])
        yield room
        await room.until_empty()
        nursery.cancel_scope.cancel()


async def test_messages_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(monkeypatch) as room, room.open("/test/echo") as socket:
        for message in ("hello", "", "ä" * 1000, b"\x00\xff" * 100_000):
            await socket.send_message(message)
            with trio.fail_after(20):
                assert await socket.get_message() == message
        with trio.fail_after(20):
            await socket.ping(b"still there?")


async def test_a_flood_of_idle_frames_lets_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand pongs came with one read, and nothing else ran until they were all looked at."""
    sizes: list[int] = []
    handle = WSStream.handle

    async def noted(self: WSStream, event: Any) -> None:
        sizes.append(len(getattr(event, "data", b"")))
        await handle(self, event)

    monkeypatch.setattr(WSStream, "handle", noted)
    async with opened(monkeypatch) as room, room.open("/test/echo") as socket:
        await socket._stream.send_all(frame(b"", opcode=10) * 10_000)
        await socket.send_message("and now?")
        with trio.fail_after(60):
            assert await socket.get_message() == "and now?"
    assert sum(sizes) > 60_000
    assert max(sizes) <= FRAME_BYTES


async def test_several_at_once_keep_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(monkeypatch) as room, trio.open_nursery() as nursery:

        async def talk(name: int) -> None:
            async with room.open("/test/echo") as socket:
                for number in range(30):
                    await socket.send_message(f"{name} {number}")
                    assert await socket.get_message() == f"{name} {number}"

        for name in range(20):
            nursery.start_soon(talk, name)


async def test_the_app_pushes_and_closes_with_its_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(monkeypatch) as room, room.open("/test/push") as socket:
        with trio.fail_after(20):
            assert [await socket.get_message() for _ in range(3)] == ["event 0", "event 1", "event 2"]
            with pytest.raises(ConnectionClosed) as caught:
                await socket.get_message()
        why = caught.value.reason
        assert why is not None
        assert (why.code, why.reason) == (4001, "that was all")


async def test_a_client_s_close_code_is_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(monkeypatch) as room:
        client = await room.raw()
        await client.send(upgrade("/test/echo"))
        assert (await client.answer()).status == 101
        await client.send(frame(struct.pack(">H", 4321), opcode=8))
        assert (await client.rest(5.0))[:4] == b"\x88\x02" + struct.pack(">H", 4321)
        await client.stream.aclose()
        await room.until_empty()


async def test_a_client_behind_gets_to_read_how_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection was reset as soon as the app had closed, and what was still on its way was lost."""
    async with opened(monkeypatch) as room:
        client = await room.raw()
        await client.send(upgrade("/test/farewell"))
        await room.until_left()
        await client.send(frame(b"said meanwhile"))
        said = await client.rest(10.0)
        assert len(said) > 300_000
        assert said.endswith(b"\x88\x06" + struct.pack(">H", 4001) + b"that"), said[-20:]
        await client.stream.aclose()


async def test_the_handshake_is_answered_to_the_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(monkeypatch) as room:
        client = await room.raw()
        await client.send(upgrade("/test/echo", "X-Fleet-Peer: 1.2.3.4"))
        reply = await client.answer()
        assert (reply.status, reply.headers["sec-websocket-accept"]) == (101, ACCEPT)
        assert reply.headers["upgrade"].lower() == "websocket"
        assert "upgrade" in reply.headers["connection"].lower()
        await client.stream.aclose()


async def test_what_comes_with_the_upgrade_is_held_until_the_app_has_agreed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames before the 101 killed the server behind us."""
    async with opened(monkeypatch) as room:
        for path in ("/test/echo", "/test/late"):
            client = await room.raw()
            await client.send(upgrade(path) + frame(b"early"))
            await client.send(frame(b"still early"))
            await trio.testing.wait_all_tasks_blocked(0.02)
            room.may_accept.set()
            assert (await client.answer()).status == 101
            assert await client._exactly(7) == b"\x81\x05early"
            assert await client._exactly(13) == b"\x81\x0bstill early"
            await client.stream.aclose()
        async with room.open("/test/echo") as socket:
            await socket.send_message("the others are fine")
            assert await socket.get_message() == "the others are fine"


async def test_rubbish_after_the_upgrade_ends_that_connection_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(monkeypatch) as room, room.open("/test/echo") as socket:
        for rubbish in (b"\xff" * 100, b"\x81\x05hello", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 10):
            client = await room.raw()
            await client.send(upgrade("/test/echo") + rubbish)
            assert (await client.answer()).status == 101
            await client.rest(5.0)
            await client.stream.aclose()
        await socket.send_message("still here")
        assert await socket.get_message() == "still here"


REFUSED = [
    ("/nowhere", (), 404),
    ("/test/forbidden", (), 403),
    ("/test/echo", ("Origin: http://evil.example",), 403),
    ("/api/tags", (), 400),
]


@pytest.mark.parametrize(("path", "fields", "status"), REFUSED)
async def test_a_refusal_is_a_whole_answer_and_the_end(
    path: str, fields: tuple[str, ...], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(monkeypatch) as room:
        client = await room.raw()
        await client.send(upgrade(path, *fields) + frame(b"early") + request_bytes("GET", "/"))
        reply = await client.answer()
        assert (reply.status, reply.closes) == (status, True)
        assert reply.body
        assert not await client.rest(5.0)
        await client.stream.aclose()


@pytest.mark.parametrize("way", ["close", "reset", "half-close"])
@pytest.mark.parametrize("path", ["/test/echo", "/test/endless", "/test/late"])
async def test_a_client_that_leaves_frees_both_sides(path: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A push loop towards a client that is gone froze everything."""
    async with opened(monkeypatch) as room:
        stream = await trio.open_tcp_stream("127.0.0.1", room.port)
        await stream.send_all(upgrade(path))
        if path != "/test/late":
            await stream.receive_some(100)
        await trio.testing.wait_all_tasks_blocked(0.01)
        if way == "reset":
            reset(stream)
        elif way == "close":
            stream.socket.close()
        else:
            await stream.send_eof()
        await room.until_empty()
        await stream.aclose()
        async with room.open("/test/echo") as socket:
            await socket.send_message("alive")
            assert await socket.get_message() == "alive"


async def test_an_open_websocket_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    timeouts = {"keep_alive": 0.3, "head": 0.3, "body_idle": 0.3, "write": 0.3}
    async with opened(monkeypatch, timeouts=timeouts) as room, room.open("/test/echo") as socket:
        await trio.sleep(1.0)  # three times as long as any of them
        await socket.send_message("after a while")
        with trio.fail_after(20):
            assert await socket.get_message() == "after a while"


async def test_all_of_it_over_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    leaf.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    files = {"certificate": str(tmp_path / "both.pem"), "key": str(tmp_path / "both.pem")}
    async with opened(monkeypatch, server={"tls": files}) as room:
        async with room.open("/test/echo", trusting) as socket:
            for message in ("hello", b"\x00\xff" * 100_000):
                await socket.send_message(message)
                assert await socket.get_message() == message
        async with room.open("/test/push", trusting) as socket:
            assert [await socket.get_message() for _ in range(3)][-1] == "event 2"
            with pytest.raises(ConnectionClosed):
                await socket.get_message()
