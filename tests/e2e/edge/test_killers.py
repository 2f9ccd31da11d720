"""What killed, froze or hung the server library that the edge stands in front of: none of it may get through.

Each test is named after what went wrong there.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from contextlib import suppress

import pytest
import trio
import trio.testing

from tests.kit.clients.edge import Backend, Browser, browser, generate, in_front_of, stoppable, whole_answer
from tests.kit.clients.lanes import connect
from tests.kit.clients.raw import request_bytes
from tests.kit.fleets.served import Served

DONE = b'{"model":"m","response":"","done":true,"done_reason":"stop"}\n'
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
UPGRADE = (
    b"GET %b HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
FRAME = b"\x81\x85\x00\x00\x00\x00hello"


def whole(head: bytes, body: bytes) -> Sequence[bytes]:
    return [whole_answer(DONE)]


def record(text: bytes) -> bytes:
    line = b'{"model":"m","response":"%b","done":false}\n' % text
    return b"%x\r\n%b\r\n" % (len(line), line)


LAST = b"%x\r\n%b\r\n0\r\n\r\n" % (len(DONE), DONE)


def flood(head: bytes, body: bytes) -> Sequence[bytes]:
    """A stream that no pair of socket buffers can hold."""
    return [STREAM, *[record(b"x" * 60_000)] * 1000, LAST]


async def alive(fleet: Served) -> None:
    """Both lanes serve a newcomer."""
    client = await browser(fleet.url)
    async with client.stream:
        await client.send(generate("Hi"))
        assert (await client.answer("POST")).status == 200
        assert (await client.ask("GET", "/api/version")).status == 200


async def shut_out(fleet: Served, data: bytes, within: float = 20.0) -> bytes:
    """What comes of such bytes until the server closes."""
    client = await browser(fleet.url)
    async with client.stream:
        with suppress(trio.BrokenResourceError):
            await client.send(data)
        return await client.rest(within)


@pytest.mark.parametrize("path", [b"/ws", b"/", b"/api/generate", b"/api/orchestrator/queue"])
@pytest.mark.parametrize("behind", [FRAME, b"\x81\x05hello", b"\xff" * 200, b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_websocket_upgrade_with_bytes_behind_it_killed_the_process(path: bytes, behind: bytes) -> None:
    async with in_front_of(whole) as (fleet, _):
        answer = await shut_out(fleet, UPGRADE % path + behind)
        assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 405 ", b"HTTP/1.1 400 ")), answer[:100]
        assert answer.count(b"HTTP/1.1 ") == 1, "what follows an upgrade is no request"
        await alive(fleet)


def h2_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


CONNECT_WITHOUT_PATH = h2_frame(4, 0, 0, b"") + h2_frame(1, 5, 1, b"\x02\x07CONNECT\x01\x09localhost")


@pytest.mark.parametrize("behind", [b"", h2_frame(4, 0, 0, b""), CONNECT_WITHOUT_PATH, b"\x00" * 500])
async def test_an_http2_connect_without_a_path_killed_the_process(behind: bytes) -> None:
    async with in_front_of(whole) as (fleet, _):
        assert (await shut_out(fleet, PREFACE + behind)).startswith(b"HTTP/1.1 505 ")
        await alive(fleet)


async def test_an_upgrade_to_http2_is_not_taken_up() -> None:
    fields = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    async with in_front_of(whole) as (fleet, _):
        client = await browser(fleet.url)
        async with client.stream:
            for _ in range(2):
                assert (await client.ask("GET", "/api/version", None, *fields)).status == 200
                await client.send(generate("Hi", *fields))
                assert (await client.answer("POST")).json()["done"]
        with suppress(EOFError):
            assert (await shut_out(fleet, request_bytes("GET", "/", None, *fields) + PREFACE)).count(b" 505 ") == 1
        await alive(fleet)


async def stalled(fleet: Served, data: bytes) -> Browser:
    """A client that asks and does not read."""
    client = await browser(fleet.url)
    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # type: ignore[attr-defined]
    await client.send(data)
    return client


async def until_stuck(backend: Backend) -> None:
    """Wait until nothing more goes out of the backend."""
    with trio.fail_after(60):
        sent = -1
        while sent != backend.sent or not sent:
            sent = backend.sent
            await trio.sleep(0.2)


async def test_a_stalled_reader_blocked_the_shutdown_for_ever() -> None:
    async with stoppable(flood, drain_timeout=0.5) as product:
        client = await stalled(product.fleet, generate("Hi", stream=True))
        await until_stuck(product.backend)
        assert await product.stop(within=20.0) >= 0.4
        await client.stream.aclose()


async def test_a_stalled_reader_of_the_app_s_answers_blocked_the_shutdown_for_ever() -> None:
    async with stoppable(whole, drain_timeout=0.5) as product:
        client = await browser(product.fleet.url)
        asked = request_bytes("GET", "/api/orchestrator/servers") * 200
        with trio.move_on_after(0.5):
            while True:
                await client.send(asked)
        await product.stop(within=20.0)
        await trio.aclose_forcefully(client.stream)


@pytest.mark.parametrize("before", ["nothing", "hot", "cold"])
async def test_an_idle_connection_was_never_closed(before: str) -> None:
    async with in_front_of(whole, timeouts={"keep_alive": 0.5}) as (fleet, _):
        client = await browser(fleet.url)
        async with client.stream:
            if before == "hot":
                await client.send(generate("Hi"))
                assert not (await client.answer("POST")).closes
            elif before == "cold":
                assert not (await client.ask("GET", "/api/version")).closes
            began = trio.current_time()
            assert not await client.rest(20.0)
            assert trio.current_time() - began >= 0.3


async def test_a_quiet_client_was_killed_while_its_request_ran() -> None:
    go = trio.Event()
    async with in_front_of(whole, timeouts={"keep_alive": 0.3, "head": 0.3, "body_idle": 0.3}) as (fleet, _):
        fleet.system.pause(True)
        async with trio.open_nursery() as nursery:
            client = await browser(fleet.url)
            await client.send(generate("Hi"))

            async def later() -> None:
                await trio.sleep(0.8)  # more than twice as long as any of them
                fleet.system.pause(False)
                go.set()

            nursery.start_soon(later)
            assert (await client.answer("POST")).status == 200
            assert go.is_set()
            await client.stream.aclose()


async def test_a_drain_took_all_of_its_timeout() -> None:
    """It ends with the last stream; idle connections do not hold it up."""
    go = trio.Event()

    def script(head: bytes, body: bytes) -> Sequence[bytes | trio.Event]:
        return [STREAM, record(b"x"), go, LAST] if b"wait" in body else whole(head, body)

    async with stoppable(script, drain_timeout=30) as product:
        idle = [await browser(product.fleet.url) for _ in range(3)]
        await idle[0].ask("GET", "/api/version")
        await idle[1].send(generate("Hi"))
        await idle[1].answer("POST")
        running = await browser(product.fleet.url)
        await running.send(generate("wait", stream=True))
        assert await running.stream.receive_some(5) == b"HTTP/"
        product.fleet.stop.set()
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert not product.ended.is_set()
        go.set()
        with trio.fail_after(20):
            assert (await running.rest()).endswith(LAST)
            await product.ended.wait()
        for client in (*idle, running):
            assert not await client.rest()
            await client.stream.aclose()


@pytest.mark.parametrize(
    "path", ["/api/generate", "/v1/chat/completions", "/api/pull", "/api/orchestrator/servers/add"]
)
async def test_a_chunked_body_over_the_limit_hung(path: str) -> None:
    async with in_front_of(whole, limits={"body_bytes": 10_000}) as (fleet, backend):
        client = await browser(fleet.url)
        async with client.stream:
            await client.send(request_bytes("POST", path, None, "Transfer-Encoding: chunked"))
            with suppress(trio.BrokenResourceError):
                for _ in range(30):
                    await client.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
            reply = await client.answer("POST", within=20.0)
            assert (reply.status, reply.closes) == (413, True)
            assert not await client.rest(20.0)
        assert not backend.seen
        await alive(fleet)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("path", "fields", "status"), [
    ("/nowhere", (), 404),
    ("/api/generate", ("Origin: http://evil.example",), 403),
    ("/api/pull", ("Origin: http://evil.example",), 403),
    ("/api/tags", (), 405),
])  # fmt: skip
async def test_the_request_after_an_early_refusal_hung(
    path: str, fields: tuple[str, ...], status: int, late: bool
) -> None:
    async with in_front_of(whole) as (fleet, backend):
        client = await browser(fleet.url)
        async with client.stream:
            body = b"GET /smuggled HTTP/1.1\r\n\r\n" * 1000
            head = request_bytes("POST", path, None, f"Content-Length: {len(body)}", *fields)
            await client.send(*((head,) if late else (head, body)))
            reply = await client.answer("POST")
            assert (reply.status, reply.closes) == (status, False)
            await client.send(*((body,) if late else ()))
            assert (await client.ask("GET", "/api/version")).status == 200
            await client.send(generate("Hi"))
            assert (await client.answer("POST")).status == 200
        assert len(backend.seen) == 1


@pytest.mark.parametrize(
    "begun", [b"G", b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"\r\n", b"GET / HTTP/1.1\r\nHost: l\r\n\r"]
)
@pytest.mark.parametrize("after", [False, True])
async def test_a_head_that_never_came_to_its_end_was_waited_for(begun: bytes, after: bool) -> None:
    async with in_front_of(whole, timeouts={"head": 0.4}) as (fleet, _):
        client = await browser(fleet.url)
        async with client.stream:
            if after:
                await client.ask("GET", "/api/version")
            began = trio.current_time()
            await client.send(begun)
            reply = await client.answer(within=20.0)
            assert (reply.status, reply.closes) == (408, True)
            assert trio.current_time() - began >= 0.3
            assert not await client.rest()


async def test_a_head_that_drips_was_waited_for() -> None:
    """The limit is for the whole of the head, not for the next byte of it."""
    async with in_front_of(whole, timeouts={"head": 0.5}) as (fleet, _):
        client = await browser(fleet.url)
        async with client.stream, trio.open_nursery() as nursery:

            async def drip() -> None:
                with suppress(trio.BrokenResourceError):
                    await client.send(b"GET / HTTP/1.1\r\n")
                    for _ in range(200):
                        await client.send(b"X: y\r\n")
                        await trio.sleep(0.05)

            nursery.start_soon(drip)
            assert (await client.answer(within=20.0)).status == 408
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("path", ["/api/generate", "/api/pull", "/api/orchestrator/servers/add"])
@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
async def test_a_body_that_never_came_to_its_end_was_waited_for(path: str, framing: str) -> None:
    async with in_front_of(whole, timeouts={"body_idle": 0.4}) as (fleet, _):
        client = await browser(fleet.url)
        async with client.stream:
            await client.send(request_bytes("POST", path, None, framing), b"5\r\nhel")
            reply = await client.answer("POST", within=20.0)
            assert (reply.status, reply.closes) == (408, True)
            assert not await client.rest(20.0)
        assert fleet.system.in_flight == 0
        await alive(fleet)


async def test_connections_of_a_port_scanner_left_nothing_behind() -> None:
    async with in_front_of(whole) as (fleet, _):
        for data in (b"", b"\r\n", b"G", b"\x00"):
            for _ in range(20):
                stream = await connect(fleet.url)
                await stream.send_all(data)
                await stream.aclose()
        await alive(fleet)
        fleet.assert_nothing_left()
