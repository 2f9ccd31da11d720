"""Request bodies: how long they may take, how much memory they share, when they are invited, and whose end is seen."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest
import trio
import trio.testing
import zstandard

import web.asgi.quart_connection
from fleet.common.errors import BodyBudget, RequestTimeout
from fleet.protocol.call import Call, Downstream
from tests.kit.clients.lanes import both_lanes
from tests.web.edge.raw import Served, Wire, head, lingering
from tests.web.fake_system import FakeSystem, fleet
from web.asgi.request_body import HeldBody
from web.http.body_limits import BodyTerms, Budget

pytestmark = both_lanes

CHAT = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'


async def test_a_long_body_may_take_its_time_as_long_as_it_moves(autojump_clock: trio.testing.MockClock) -> None:
    body = HeldBody(300, None)
    body.terms = BodyTerms(idle=60.0, total=3600.0)
    async with trio.open_nursery() as nursery:

        async def dribble() -> None:
            for piece in range(300):
                await trio.sleep(10)
                await body.feed(b"x", last=piece == 299)

        nursery.start_soon(dribble)
        assert await body == b"x" * 300
    assert trio.current_time() >= 3000


async def test_a_body_that_keeps_moving_still_ends_at_the_total_time(autojump_clock: trio.testing.MockClock) -> None:
    body = HeldBody(None, None)
    body.terms = BodyTerms(idle=60.0, total=100.0)
    async with trio.open_nursery() as nursery:

        async def dribble() -> None:
            while True:
                await trio.sleep(10)
                await body.feed(b"x", last=False)

        nursery.start_soon(dribble)
        with pytest.raises(RequestTimeout, match="100 s"):
            await body
        nursery.cancel_scope.cancel()


async def test_a_silent_upload_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    body = HeldBody(None, None)
    body.terms = BodyTerms(idle=60.0)
    await body.feed(b"x", last=False)
    assert await body.__anext__() == b"x"
    with pytest.raises(RequestTimeout, match="60 s"):
        await body.__anext__()


async def test_a_silent_upload_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    lingering(monkeypatch, 0.05)

    async def reading(call: Call, down: Downstream) -> None:
        assert not isinstance(call.body, bytes)
        async for _ in call.body:
            pass

    system = FakeSystem(timeouts={"body_idle": 0.05})
    system.answering = reading
    async with fleet(system) as server:
        wire = await server.connect()
        await wire.send(head("POST", "/api/blobs/sha256:0", length=10**7) + bytes(10))
        answer = await wire.answer()
        assert (answer.status, answer["x-fleet-error"]) == (408, "REQUEST_BODY_TIMEOUT")


async def test_the_budget_is_what_all_bodies_share_and_is_given_back() -> None:
    budget = Budget(10)
    bodies = [HeldBody(None, None) for _ in range(3)]
    for body in bodies:
        body.terms = BodyTerms(budget=budget)
        await body.feed(b"123456", last=True)
    assert await bodies[0] == b"123456"
    with pytest.raises(BodyBudget):
        await bodies[1]
    assert budget.used == 6
    bodies[1].release()
    bodies[0].release()
    bodies[0].release()
    assert budget.used == 0
    assert await bodies[2] == b"123456"


async def test_many_large_requests_at_one_time_cannot_take_all_memory() -> None:
    begun, go = trio.Event(), trio.Event()

    async def slow(call: Call, down: Downstream) -> None:
        begun.set()
        await go.wait()
        await down.start(200, [])
        await down.finish()

    system = FakeSystem(limits={"buffered_bytes": 100_000})
    system.answering = slow
    large = b'{"model":"m","prompt":"' + b"x" * 60_000 + b'"}'
    async with fleet(system) as server:
        first, second = await server.connect(), await server.connect()
        await first.send(head("POST", "/api/generate", length=len(large)) + large)
        await begun.wait()
        refused = await second.ask("POST", "/api/generate", large)
        assert (refused.status, refused["x-fleet-error"], refused["retry-after"]) == (503, "BODY_BUDGET", "1")
        go.set()
        assert (await first.answer()).status == 200
        assert (await second.ask("POST", "/api/generate", large)).status == 200


async def test_the_limit_for_decompressed_bodies_is_the_configured_one() -> None:
    packed = zstandard.compress(b'{"model":"m","input":"' + b" " * 5000 + b'"}')
    system = FakeSystem(limits={"decoded_bytes": 4096})
    async with fleet(system) as server:
        answer = await (await server.connect()).ask("POST", "/v1/responses", packed, "Content-Encoding: zstd")
        assert (answer.status, answer["x-fleet-error"]) == (413, "BODY_TOO_LARGE")
    async with fleet(FakeSystem(limits={"decoded_bytes": 8192})) as server:
        answer = await (await server.connect()).ask("POST", "/v1/responses", packed, "Content-Encoding: zstd")
        assert answer.status == 200


EXPECT = "Expect: 100-continue"
KNOWN_WITHOUT = [
    # method, path, length, configuration, status
    ("POST", "/nope", 5, {}, 404),
    ("PUT", "/api/chat", 5, {}, 405),
    ("POST", "/api/chat", 10**9, {}, 413),
    ("POST", "/api/chat", 5, {"security": {"api_keys": ["a-secret-key-0123456789"]}}, 403),
    ("POST", "/v1/messages", 5, {"security": {"api_keys": ["a-secret-key-0123456789"]}}, 401),
    ("POST", "/api/blobs/sha256:0", 10**9, {}, 200),
]


@pytest.mark.parametrize(("method", "path", "length", "config", "status"), KNOWN_WITHOUT)
async def test_a_body_is_not_invited_when_the_answer_is_known(
    method: str, path: str, length: int, config: dict[str, Any], status: int
) -> None:
    async with fleet(FakeSystem(**config)) as server:
        wire = await server.connect()
        await wire.send(head(method, path, EXPECT, length=length))
        with trio.fail_after(20):  # and without waiting for a body that will not come
            everything = b""
            while piece := await wire.stream.receive_some():
                everything += piece
    assert everything.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in everything.lower()


async def test_a_body_that_is_wanted_is_invited() -> None:
    async with fleet(FakeSystem()) as server:
        wire = await server.connect()
        for _ in range(2):
            await wire.send(head("POST", "/api/chat", EXPECT, length=len(CHAT)))
            with trio.fail_after(20):
                assert await wire.stream.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
            await wire.send(CHAT)
            answer = await wire.answer()
            assert (answer.status, "connection" in answer) == (200, False)


async def test_an_answer_that_comes_during_the_invitation_is_not_lost() -> None:
    async def known_now(call: Call, down: Downstream) -> None:
        assert not isinstance(call.body, bytes)
        with trio.CancelScope() as reading:
            reading.cancel()
            async for _ in call.body:
                pass
        await down.start(200, [(b"content-length", b"0")])
        await down.finish()

    system = FakeSystem()
    system.answering = known_now
    async with fleet(system) as server:
        wire = await server.connect()
        await wire.send(head("POST", "/api/blobs/sha256:0", EXPECT, length=10))
        assert (await wire.answer()).status == 200


async def test_a_client_that_does_not_wait_for_its_invitation_is_served() -> None:
    async with fleet(FakeSystem()) as server:
        wire = await server.connect()
        assert (await wire.ask("POST", "/api/chat", CHAT, EXPECT)).status == 200
        assert (await wire.ask("GET", "/")).status == 200


async def stalled_upload(server: Served, began: trio.Event, size: int) -> Wire:
    """An upload of which the backend takes nothing, stuck half-way."""
    wire = await server.connect()
    await wire.send(head("POST", "/api/blobs/sha256:0", length=10**9))
    await began.wait()
    with trio.move_on_after(0.2):
        await wire.send(bytes(size))
    return wire


@pytest.mark.parametrize(("how", "size"), [("fin", 300_000), ("reset", 2_000_000), ("reset", 200_000_000)])
async def test_an_uploader_that_leaves_is_noticed_while_nobody_takes_its_body(how: str, size: int) -> None:
    began = trio.Event()

    async def stuck(call: Call, down: Downstream) -> None:
        began.set()
        await trio.sleep_forever()

    system = FakeSystem()
    system.answering = stuck
    async with fleet(system) as server:
        wire = await stalled_upload(server, began, size)
        assert system.open == 1
        if how == "reset":
            wire.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wire.stream.socket.close()
        with trio.fail_after(20):
            await system.ended.wait()
    assert system.open == 0


async def test_an_uploader_that_stays_is_left_alone_while_nobody_takes_its_body() -> None:
    began, go, seen = trio.Event(), trio.Event(), 0

    async def late(call: Call, down: Downstream) -> None:
        nonlocal seen
        began.set()
        await go.wait()
        assert not isinstance(call.body, bytes)
        async for piece in call.body:
            seen += len(piece)
        await down.start(201, [(b"content-length", b"0")])
        await down.finish()

    system = FakeSystem()
    system.answering = late
    async with fleet(system) as server:
        wire = await server.connect()
        await wire.send(head("POST", "/api/blobs/sha256:0", length=1_000_000))
        await began.wait()
        await wire.send(bytes(1_000_000))
        await trio.sleep(3 * web.asgi.quart_connection.GLANCE)  # several looks
        go.set()
        assert (await wire.answer()).status == 201
    assert seen == 1_000_000
