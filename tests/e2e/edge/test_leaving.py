"""Clients that leave in any phase and by any way, or stop reading: noticed at once, and nobody else feels it."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest
import trio
import trio.testing

from tests.e2e.support import rss_kib, until
from tests.kit.clients.edge import Backend, Browser, browser, generate, in_front_of, noted_edges, reset, whole_answer
from tests.kit.clients.raw import request_bytes
from tests.kit.fleets.served import Served
from tests.kit.suite.pace import soonest
from web.edge.acceptor import Edge

pytestmark = pytest.mark.slow

SOON = 0.1
DONE = b'{"model":"m","response":"","done":true,"done_reason":"stop"}\n'
LINE = b'{"model":"m","response":"x","done":false}\n'
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
BLOB = "/api/blobs/sha256:" + "0" * 64


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def close(stream: trio.SocketStream) -> None:
    stream.socket.close()


def half_close(stream: trio.SocketStream) -> None:
    stream.socket.shutdown(socket.SHUT_WR)


WAYS = [close, half_close, reset]


def script(head: bytes, body: bytes) -> Sequence[bytes | trio.Event]:
    """By the prompt: silence before the head, silence after a first piece, or a whole answer."""
    if b"silence" in body:
        return [trio.Event()]
    if b"decode" in body:
        return [STREAM, chunk(LINE), trio.Event()]
    return [whole_answer(DONE)]


def at_rest(fleet: Served) -> bool:
    busy = any(cell.pool.open_count for cell in fleet.system.servers.values())
    return not (fleet.system.in_flight or fleet.system.scheduler.tickets or busy)


async def queued(fleet: Served, client: Browser) -> None:
    fleet.system.pause(True)
    await client.send(generate("Hi", stream=True))
    await until(lambda: fleet.system.scheduler.tickets)


async def prefill(fleet: Served, client: Browser) -> None:
    await client.send(generate("silence", stream=True))
    await until(lambda: any(cell.pool.open_count for cell in fleet.system.servers.values()))


async def whole_prefill(fleet: Served, client: Browser) -> None:
    await client.send(generate("silence"))
    await until(lambda: any(cell.pool.open_count for cell in fleet.system.servers.values()))


async def decode(fleet: Served, client: Browser) -> None:
    await client.send(generate("decode", stream=True))
    await client._until(b"false}\n\r\n")


async def decode_after_others(fleet: Served, client: Browser) -> None:
    await client.ask("GET", "/api/version")
    await client.send(generate("Hi"))
    await client.answer("POST")
    await decode(fleet, client)


async def decode_behind_pipelined(fleet: Served, client: Browser) -> None:
    """What was sent behind the request stays unread, and the end behind it."""
    await decode(fleet, client)
    await client.send(generate("Hi") * 500)


async def pulling(fleet: Served, client: Browser) -> None:
    await client.send(request_bytes("POST", "/api/generate--raw", {"model": "m", "prompt": "silence"}))
    await until(lambda: any(cell.pool.open_count for cell in fleet.system.servers.values()))


async def cold_post(fleet: Served, client: Browser) -> None:
    await client.send(request_bytes("POST", "/api/push", {"model": "m", "insecure": "silence"}))
    await until(lambda: any(cell.pool.open_count for cell in fleet.system.servers.values()))


PHASES = [queued, prefill, whole_prefill, decode, decode_after_others, decode_behind_pipelined, pulling, cold_post]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("phase", PHASES)
async def test_leaving_is_noticed_at_once(phase: Callable[..., object], way: Callable[..., None]) -> None:
    async def left() -> float:
        async with in_front_of(script) as (fleet, _):
            client = await browser(fleet.url)
            await phase(fleet, client)  # type: ignore[misc]
            assert not at_rest(fleet)
            began = trio.current_time()
            way(client.stream)
            await until(lambda: at_rest(fleet))
            took = trio.current_time() - began
            fleet.assert_nothing_left()
            client.stream.socket.close()  # type: ignore[attr-defined]
            return took

    assert await soonest(left, SOON) < SOON


IDLE_OR_SENDING = {
    "nothing sent": b"",
    "part of a head": b"POST /api/gen",
    "hot upload": request_bytes("POST", "/api/generate", None, "Content-Length: 100000") + b"x" * 1000,
    "chunked hot upload": request_bytes("POST", "/api/generate", None, "Transfer-Encoding: chunked") + b"5\r\nhel",
    "cold upload": request_bytes("POST", BLOB, None, "Content-Length: 100000") + b"x" * 1000,
    "unread cold upload": request_bytes("POST", BLOB, None, "Content-Length: 900000000"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("phase", IDLE_OR_SENDING)
async def test_a_connection_without_a_whole_request_is_given_up(
    phase: str, way: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    edges = noted_edges(monkeypatch)

    async def given_up() -> float:
        async with in_front_of(script) as (fleet, backend):
            backend.deaf_to = b"/api/blobs"
            client = await browser(fleet.url)
            await client.ask("GET", "/api/version")
            await client.send(IDLE_OR_SENDING[phase])
            if phase == "unread cold upload":
                await stuff(client, edges[-1])
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert edges[-1].connections
            began = trio.current_time()
            way(client.stream)
            await until(lambda: not edges[-1].connections and at_rest(fleet))
            took = trio.current_time() - began
            client.stream.socket.close()  # type: ignore[attr-defined]
            return took

    assert await soonest(given_up, SOON) < SOON


async def stuff(client: Browser, edge: Edge) -> None:
    """Send until the edge leaves unread what it has got."""
    (connection,) = edge.connections
    unread = array.array("i", [0])
    with trio.fail_after(20):
        while not unread[0]:
            await client.send(b"x" * 65_536)
            await trio.testing.wait_all_tasks_blocked(0.02)
            fcntl.ioctl(connection._socket, termios.FIONREAD, unread)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", ["/api/push", "/api/generate--raw", "/api/generate"])
async def test_a_client_that_leaves_with_its_last_byte_was_never_there(path: str, way: Callable[..., None]) -> None:
    """The end comes in the same packet as the request, before anybody has looked at either."""
    async with in_front_of(script) as (fleet, _):
        for _ in range(10):
            client = await browser(fleet.url)
            await client.ask("GET", "/api/version")
            sock = client.stream.socket  # type: ignore[attr-defined]
            os.write(sock.fileno(), request_bytes("POST", path, {"model": "m", "prompt": "silence"}))
            way(client.stream)
            await trio.testing.wait_all_tasks_blocked(0.02)
            await until(lambda: at_rest(fleet))
            sock.close()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("kept", [False, True])
async def test_a_half_closed_question_is_still_answered(method: str, kept: bool) -> None:
    async with in_front_of(script) as (fleet, _):
        for pause in [False, True] * 10:
            client = await browser(fleet.url)
            if kept:
                await client.ask("GET", "/api/version")
            os.write(client.stream.socket.fileno(), request_bytes(method, "/"))  # type: ignore[attr-defined]
            if pause:
                await trio.lowlevel.checkpoint()
            half_close(client.stream)  # type: ignore[arg-type]
            assert (await client.answer(method)).status in (200, 204, 404, 405)
            assert not await client.rest(3.0)
            await client.stream.aclose()


async def test_a_request_needs_one_task_of_ours() -> None:
    async with in_front_of(script) as (fleet, _):
        clients = [await browser(fleet.url) for _ in range(40)]
        before = trio.lowlevel.current_statistics().tasks_living
        for client in clients:
            await decode(fleet, client)
        # one more for each is the backend's, which is in this process too
        assert trio.lowlevel.current_statistics().tasks_living - before <= len(clients) + 4
        for client in clients:
            await client.stream.aclose()


def flood(head: bytes, body: bytes) -> Sequence[bytes | trio.Event]:
    if b"flood" in body:
        return [STREAM, *[FLOOD] * 1500]
    return script(head, body)


FLOOD = chunk(LINE.replace(b"x", b"x" * 60_000))
KERNEL = 24 * 2**20
"""What the buffers of two connections take at the very most."""


async def until_stuck(backend: Backend) -> None:
    with trio.fail_after(60):
        sent = -1
        while sent != backend.sent or not sent:
            sent = backend.sent
            await trio.sleep(0.2)


async def slow_reader(fleet: Served) -> Browser:
    client = await browser(fleet.url)
    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # type: ignore[attr-defined]
    await client.send(generate("flood", stream=True))
    return client


async def test_a_slow_reader_holds_its_backend_back_and_costs_no_memory() -> None:
    async with in_front_of(flood) as (fleet, backend):
        (await (await slow_reader(fleet)).stream.aclose())
        await until(lambda: at_rest(fleet))
        before, backend.sent = rss_kib(), 0
        clients = [await slow_reader(fleet) for _ in range(10)]
        await until_stuck(backend)
        assert backend.sent < len(clients) * KERNEL
        assert rss_kib() - before < len(clients) * 256 + 4096
        other = await browser(fleet.url)
        assert (await other.ask("GET", "/api/version")).status == 200
        for client in (other, *clients):
            close(client.stream)  # type: ignore[arg-type]
        await until(lambda: at_rest(fleet))


async def test_a_reader_that_stalls_is_revoked_and_nobody_else() -> None:
    async with in_front_of(flood, timeouts={"write": 1.0}) as (fleet, _):
        client = await slow_reader(fleet)
        other = await browser(fleet.url)
        await decode(fleet, other)
        began = trio.current_time()
        await until(lambda: fleet.system.in_flight == 1)
        assert trio.current_time() - began > 0.8
        await client.stream.aclose()
        assert fleet.system.in_flight == 1
        await other.stream.aclose()
        await until(lambda: at_rest(fleet))


@pytest.mark.parametrize("asked", [
    request_bytes("GET", "/api/orchestrator/servers"),
    request_bytes("POST", "/api/generate", b"{}", "Origin: http://evil.example"),
    request_bytes("POST", "/api/generate", b"no json"),
], ids=["app", "refused", "wrong"])  # fmt: skip
async def test_a_client_that_asks_on_without_reading_is_let_go(asked: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers without a lease have nobody else who looks at the clock.

    Whether it is our answers or its own requests that get stuck first is up to the kernel: both have a limit.
    """
    edges = noted_edges(monkeypatch)
    limits = dict.fromkeys(("write", "keep_alive", "body_idle", "head"), 0.5)
    async with in_front_of(script, timeouts=limits) as (fleet, _):
        client = await browser(fleet.url)
        client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # type: ignore[attr-defined]

        async def ask_on() -> None:
            with suppress(trio.BrokenResourceError):
                while True:
                    await client.send(asked * 100)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_on)
            await until(lambda: edges[-1].connections)
            await until(lambda: not edges[-1].connections, 300.0)  # some megabytes of answers fill the kernel
            nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(client.stream)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_whatever_way_a_connection_ends_it_is_not_watched_any_more(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    edges = noted_edges(monkeypatch)

    def cutting(head: bytes, body: bytes) -> Sequence[bytes | trio.Event]:
        return [b"HTTP/1.1 200 OK\r\n\r\nnot all of it", b""] if b"cut" in body else script(head, body)

    async with in_front_of(cutting, timeouts={"head": 0.3}) as (fleet, _):
        for path, prompt in (("/api/generate", "cut"), ("/api/generate", "x"), ("/nowhere", "x"), ("/api/push", "cut")):
            for way in (None, *WAYS):
                client = await browser(fleet.url)
                asked = {"model": "m", "prompt": prompt, "stream": False}
                await client.send(request_bytes("POST", path, asked, "Connection: close", version=version))
                if way is None:
                    await client.rest()
                else:
                    way(client.stream)  # type: ignore[arg-type]
                client.stream.socket.close()  # type: ignore[attr-defined]
        await until(lambda: not edges[-1].connections)
        assert not edges[-1].leaving._left  # type: ignore[attr-defined]
        await until(lambda: at_rest(fleet))
