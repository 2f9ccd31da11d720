"""What a reader of the edge found, each once wrong."""

from __future__ import annotations

import errno
import socket
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from actors.upstream.connection import Link
from fleet.common.errors import RequestTimeout
from fleet.protocol.call import Call, Downstream
from tests.kit.clients.raw import read_all
from tests.web.fake_system import FakeSystem, fleet
from web.edge import app_proxy
from web.edge.app_proxy import Requester
from web.edge.connection import Connection
from web.edge.request_head import Heads, parse
from web.edge.request_reader import Body, Intake
from web.edge.websocket_tunnel import tunnel
from web.http.body_limits import BodyTerms
from web.http.ports import Face
from web.process.private_listener import FACE, PEER

REFUSED = b"POST /api/chat--nobody HTTP/1.1\r\nHost: a\r\n\r\n"
GET = b"GET /api/version HTTP/1.1\r\nHost: a\r\n"


class Flood:
    """A link that has more of the same for ever, at once."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def receive(self) -> bytes:
        return self.data


async def test_a_client_that_pipelined_refusals_kept_the_event_loop_to_itself() -> None:
    """Each of them was read and answered without a single checkpoint."""
    intake = Intake(cast(Link, Flood(REFUSED * 1000)), Heads(100), 65_536, 30.0)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        for _ in range(200):
            assert await intake.head() is not None
        nursery.cancel_scope.cancel()
    assert turns > 150


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no more watches"), ValueError("closed epoll object")])
async def test_a_connection_that_could_not_be_watched_ended_the_process(error: Exception) -> None:
    def watch(*arguments: object) -> None:
        raise error

    ours, theirs = socket.socketpair()
    edge = SimpleNamespace(leaving=SimpleNamespace(watch=watch, forget=lambda sock: None))
    with theirs:
        await Connection(cast(Any, edge), ours, "").run()
        assert theirs.recv(1) == b"", "closed, and nobody else is concerned"


async def half_closed(stream: trio.SocketStream, first: bytes, rest: bytes) -> bytes:
    """Send a request in two pieces, the second with the end of our side; everything that comes back."""
    async with stream:
        await stream.send_all(first)
        stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        await stream.send_all(rest)
        await stream.send_eof()
        with trio.fail_after(20):
            return b"".join([part async for part in stream])


@pytest.mark.skipif(not hasattr(socket, "TCP_CORK"), reason="needs a segment that carries data and end together")
async def test_a_get_whose_head_came_in_two_pieces_with_the_end_behind_it_got_no_answer() -> None:
    async with fleet(FakeSystem()) as server:
        for _ in range(10):
            wire = await server.connect()
            assert (await half_closed(wire.stream, GET, b"\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_an_http_1_0_answer_cut_by_our_stop_looked_whole() -> None:
    begun = trio.Event()

    async def endless(call: Call, down: Downstream) -> None:
        await down.start(200, [])
        await down.write(b"the beginning ")
        begun.set()
        await trio.sleep_forever()

    system = FakeSystem()
    system.answering = endless
    async with fleet(system) as server:
        wire = await server.connect()
        await wire.send(b"POST /api/chat HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
        await begun.wait()
        server.stop.set()
        with trio.fail_after(20), pytest.raises(trio.BrokenResourceError):
            await read_all(wire.stream)


async def test_an_idle_connection_was_cancelled_with_a_request_already_in_its_hands() -> None:
    """Closing it instead means that the request was never read, so that the client may send it again."""
    async with fleet(FakeSystem()) as server:
        wire = await server.connect()
        assert (await wire.ask("GET", "/")).status == 200
        assert server.edge is not None
        (connection,) = server.edge.connections
        assert connection.idle
        connection.hang_up()
        with trio.fail_after(20):
            assert await wire.stream.receive_some() == b""
        assert not connection.life.cancel_called


async def test_a_websocket_client_that_stopped_reading_held_its_tunnel_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Deaf:
        async def send_all(self, data: bytes) -> None:
            await trio.sleep_forever()

    class Chatty:
        async def receive(self) -> bytes:
            await trio.lowlevel.checkpoint()
            return b"news"

        async def send_all(self, data: bytes) -> None: ...

    intake = SimpleNamespace(more=partial(trio.sleep, float("inf")))
    began = trio.current_time()
    await tunnel(cast(Any, intake), cast(Any, Deaf()), cast(Any, Chatty()), b"", 60.0)
    assert trio.current_time() - began == 60.0


async def test_an_invitation_had_no_time_limit(autojump_clock: trio.testing.MockClock) -> None:
    class Deaf:
        async def send_all(self, data: bytes) -> None:
            await trio.sleep_forever()

    intake = Intake(cast(Link, Deaf()), Heads(100), 65_536, 30.0)
    head = parse(b"POST /api/chat HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n")
    body = Body(intake, head, 5, BodyTerms(idle=10.0))
    with pytest.raises(RequestTimeout):
        await body.whole(1000)
    assert trio.current_time() < 11.0


async def test_what_the_app_said_behind_its_101_reaches_the_client_first() -> None:
    said: list[bytes] = []

    class Listener:
        async def send_all(self, data: bytes) -> None:
            said.append(data)

    class Brief:
        async def receive(self) -> bytes:
            await trio.lowlevel.checkpoint()
            return b"" if b"later" in said else b"later"

        async def send_all(self, data: bytes) -> None: ...

    intake = SimpleNamespace(more=partial(trio.sleep, float("inf")))
    with trio.fail_after(20):
        await tunnel(cast(Any, intake), cast(Any, Listener()), cast(Any, Brief()), b"at once", 60.0)
    assert said == [b"at once", b"later"]


def test_the_app_is_told_one_peer_and_that_is_ours() -> None:
    head = parse(
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Fleet-Peer: 6.6.6.6\r\nx-fleet-peer: 7.7.7.7\r\nX-Fleet-Face: proxy\r\n\r\n"
    )
    request = app_proxy._request(head, b"", None, Requester("10.0.0.1", Face.METRICS))
    assert [value for name, value in request.headers if name == PEER] == [b"10.0.0.1"]
    assert [value for name, value in request.headers if name == FACE] == [b"metrics"]
