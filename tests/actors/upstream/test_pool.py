"""Asking a backend over real sockets: bodies, reuse, the pool's bounds."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from actors.upstream.pool import BackendAddress, Pool, UpstreamRequest, UpstreamResponse
from fleet.common.errors import BackendBroke, BackendUnreachable, Phase
from tests.actors.upstream.transport_kit import OK, Peer, Server, answering, ask, fetch, open_sockets, post, read, start

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


async def test_a_request_arrives_as_written_and_the_answer_as_sent(nursery: trio.Nursery) -> None:
    seen: list[bytes | None] = []

    async def handler(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(b"HTTP/1.1 404 Not Found\r\nX-A: b\r\nContent-Length: 4\r\n\r\nnone")
        await peer.gone()

    server = await start(nursery, handler)
    pool = Pool(BackendAddress.parse(server.url + "/base/"))
    response = await ask(pool, post(b'{"a":1}', "/api/chat?x=y"))
    assert response.status == 404
    assert response.headers == [(b"x-a", b"b"), (b"content-length", b"4")]
    assert (response.framing, await read(response), response.complete) == ("length", b"none", True)
    host = b"127.0.0.1:%d" % server.port
    assert seen == [
        b"POST /base/api/chat?x=y HTTP/1.1\r\nhost: " + host + b"\r\ncontent-type: application/json\r\n"
        b'content-length: 7\r\n\r\n{"a":1}'
    ]
    response.release()
    pool.close()


async def test_ipv6(nursery: trio.Nursery) -> None:
    seen: list[bytes | None] = []

    async def handler(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(OK)

    try:
        server = await Server(handler).start(nursery, "::1")
    except OSError:
        pytest.skip("no IPv6 here")
    pool = Pool(BackendAddress.parse(f"http://[::1]:{server.port}"))
    assert await fetch(pool) == b"ok"
    assert seen[0] is not None
    assert b"host: [::1]:%d\r\n" % server.port in seen[0]
    pool.close()


@pytest.mark.parametrize("empty", ["GET", "POST"])
async def test_only_methods_that_carry_a_body_announce_an_empty_one(nursery: trio.Nursery, empty: str) -> None:
    seen: list[bytes | None] = []

    async def handler(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(OK)

    server = await start(nursery, handler)
    pool = server.pool()
    assert await fetch(pool, UpstreamRequest(empty, "/", [], b"")) == b"ok"
    assert seen[0] is not None
    assert (b"content-length: 0" in seen[0]) is (empty == "POST")
    pool.close()


@pytest.mark.parametrize(
    ("answer", "method", "body", "kind", "kept"),
    [
        (OK, "GET", b"ok", "length", 1),
        (CHUNKED + b"3\r\nabc\r\n2;x\r\nde\r\n0\r\nt: u\r\n\r\n", "GET", b"abcde", "chunked", 1),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", "HEAD", b"", "none", 1),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "DELETE", b"", "none", 1),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", "GET", b"", "none", 1),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "GET", b"", "length", 1),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, "GET", b"ok", "length", 1),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", "GET", b"ok", "length", 0),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", "GET", b"ok", "length", 0),
        (OK + b"extra", "GET", b"ok", "length", 0),
        (OK + b"\r\n", "GET", b"ok", "length", 0),
        (CHUNKED + b"1\r\na\r\n0\r\n\r\nextra", "GET", b"a", "chunked", 0),
        (b"HTTP/1.1 204 No Content\r\n\r\nextra", "GET", b"", "none", 0),
    ],
)
async def test_every_way_to_end_a_body(
    nursery: trio.Nursery, answer: bytes, method: str, body: bytes, kind: str, kept: int
) -> None:
    server = await start(nursery, answering(answer))
    pool = server.pool()
    response = await ask(pool, UpstreamRequest(method, "/", [], b""))
    assert (response.framing, await read(response)) == (kind, body)
    assert await response.receive() == b""
    assert pool.open_count == 1
    response.release()
    response.release()
    assert (pool.open_count, pool.idle) == (0, kept)
    pool.close()


async def test_a_body_that_ends_with_the_connection(nursery: trio.Nursery) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.0 200 OK\r\n\r\nall ")
        await peer.send(b"of it")

    pool = (await start(nursery, handler)).pool()
    response = await ask(pool)
    assert (response.framing, response.complete) == ("close", False)
    assert await read(response) == b"all of it"
    assert response.complete
    response.release()
    assert (pool.open_count, pool.idle) == (0, 0)


async def test_pieces_come_as_they_are_sent_and_raw_ones_keep_their_framing(nursery: trio.Nursery) -> None:
    turn = trio.testing.Sequencer()

    async def handler(peer: Peer) -> None:
        await peer.request()
        for step, part in ((0, CHUNKED), (2, b"1\r\na\r\n"), (4, b"2\r\nb"), (6, b"c\r\n0\r\n\r\nbehind")):
            async with turn(step):
                await peer.send(part)
        await peer.gone()

    pool = (await start(nursery, handler)).pool()
    response = await ask(pool)
    got = []
    for step in (1, 3, 5, 7, 8):
        async with turn(step):
            got.append((await response.receive(), response.raw) if step > 1 else (b"", b""))
    assert got == [(b"", b""), (b"a", b"1\r\na\r\n"), (b"b", b""), (b"c", b""), (b"", b"")]
    response.release()
    assert pool.idle == 0


async def test_connections_are_reused_last_in_first_out_and_bounded(nursery: trio.Nursery) -> None:
    async def handler(peer: Peer) -> None:
        while await peer.request() is not None:
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d" % peer.number)

    server = await start(nursery, handler)
    pool = server.pool(max_idle=2)
    responses = [await ask(pool) for _ in range(3)]
    assert (pool.open_count, server.accepted) == (3, 3)
    assert [await read(response) for response in responses] == [b"1", b"2", b"3"]
    for response in responses:
        response.release()
    assert (pool.open_count, pool.idle) == (0, 2)
    assert await fetch(pool) == b"3"
    assert await fetch(pool) == b"3"
    assert server.accepted == 3
    pool.close()


async def test_idle_connections_grow_old(nursery: trio.Nursery) -> None:
    now = 0.0
    server = await start(nursery, answering(OK))
    pool = server.pool(idle_seconds=60, clock=lambda: now)
    await fetch(pool)
    now = 59.0
    await fetch(pool)
    assert server.accepted == 1
    now = 120.0
    pool.sweep()
    assert pool.idle == 0
    await fetch(pool)
    assert server.accepted == 2
    pool.close()


@pytest.mark.parametrize("last", [b"", b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
async def test_a_connection_closed_or_spoken_to_while_idle_is_not_used(nursery: trio.Nursery, last: bytes) -> None:
    closed = trio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        if peer.number == 1:
            await idle.wait()
            await (peer.send(last) if last else peer.stream.aclose())
            closed.set()
        elif await peer.request() is None:
            return

    idle = trio.Event()
    server = await start(nursery, handler)
    pool = server.pool()
    await fetch(pool)
    idle.set()
    await closed.wait()
    assert await fetch(pool) == b"ok"
    assert (server.accepted, pool.idle) == (2, 1)
    pool.close()


@pytest.mark.parametrize("rudely", [False, True])
async def test_a_reused_connection_that_dies_at_once_is_dialled_anew(nursery: trio.Nursery, rudely: bool) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        if peer.number > 1:
            await peer.request()
            return
        await peer.request()  # the second request arrives, and the server has just given up on us
        if rudely:
            peer.reset()

    server = await start(nursery, handler)
    pool = server.pool()
    await fetch(pool)
    assert await fetch(pool) == b"ok"
    assert server.accepted == 2
    pool.close()


async def test_a_reused_connection_that_dies_late_is_not_asked_again(nursery: trio.Nursery) -> None:
    now = 0.0

    async def handler(peer: Peer) -> None:
        nonlocal now
        await peer.request()
        await peer.send(OK)
        await peer.request()
        now = 0.3

    server = await start(nursery, handler)
    pool = server.pool(clock=lambda: now)
    await fetch(pool)
    with pytest.raises(BackendBroke) as caught:
        await fetch(pool)
    assert caught.value.phase is Phase.HEADERS
    assert server.accepted == 1
    assert (pool.open_count, pool.idle) == (0, 0)


async def test_a_reused_connection_that_began_to_answer_is_not_asked_again(nursery: trio.Nursery) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        await peer.send(b"HTTP/1.1 2")

    server = await start(nursery, handler)
    pool = server.pool()
    await fetch(pool)
    with pytest.raises(BackendBroke):
        await fetch(pool)
    assert server.accepted == 1


async def test_a_fresh_connection_that_dies_is_final(nursery: trio.Nursery) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()

    server = await start(nursery, handler)
    with pytest.raises(BackendBroke) as caught:
        await fetch(server.pool())
    assert caught.value.phase is Phase.HEADERS
    assert server.accepted == 1


async def test_an_unfinished_response_is_not_reused(nursery: trio.Nursery) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"1\r\na\r\n")
        await peer.gone()
        left.set()

    left = trio.Event()
    pool = (await start(nursery, handler)).pool()
    response = await ask(pool)
    assert await response.receive() == b"a"
    response.release()
    assert (pool.open_count, pool.idle) == (0, 0)
    await left.wait()


async def test_abort_after_release_leaves_the_next_request_alone(nursery: trio.Nursery) -> None:
    server = await start(nursery, answering(OK))
    pool = server.pool()
    first = await ask(pool)
    await read(first)
    first.release()
    second = await ask(pool)
    first.abort()
    assert await read(second) == b"ok"
    second.release()
    assert (server.accepted, pool.idle) == (1, 1)
    pool.close()


async def test_close_ends_everything_now(nursery: trio.Nursery) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        await peer.gone()

    before = open_sockets()
    server = await start(nursery, handler)
    pool = server.pool()
    response = await ask(pool)
    ended: list[Phase] = []

    async def reader(response: UpstreamResponse) -> None:
        with pytest.raises(BackendBroke) as caught:
            await response.receive()
        ended.append(caught.value.phase)

    async with trio.open_nursery() as readers:
        readers.start_soon(reader, response)
        await trio.testing.wait_all_tasks_blocked()
        pool.close()
        pool.close()
    assert ended == [Phase.BODY]
    assert (pool.open_count, pool.idle) == (0, 0)
    with pytest.raises(BackendUnreachable):
        await ask(pool)
    with pytest.raises(BackendBroke):
        await response.receive()
    await trio.testing.wait_all_tasks_blocked()
    assert open_sockets() <= before + 1  # the listener


async def test_a_complete_response_released_after_close_is_not_kept(nursery: trio.Nursery) -> None:
    pool = (await start(nursery, answering(OK))).pool()
    response = await ask(pool)
    await read(response)
    pool.close()
    response.release()
    assert (pool.open_count, pool.idle) == (0, 0)


@pytest.fixture
def socket_path() -> Iterator[str]:
    """Short: macOS takes 103 bytes, and its folders for tests are longer."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield f"{folder}/s"


async def test_a_dialled_socket_of_another_kind(nursery: trio.Nursery, socket_path: str) -> None:
    path = socket_path
    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(path)
    listening.listen(5)
    handler = answering(OK)

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await handler(Peer(stream, 1))

    nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(listening)])

    async def dial() -> trio.abc.Stream:
        return await trio.open_unix_socket(path)

    pool = Pool(BackendAddress.parse("http://local"), dial=dial)
    assert await fetch(pool) == b"ok"
    assert pool.idle == 1
    pool.close()
