"""Bodies that do not fit into one write, and answers that come before they are sent."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, AsyncIterator

import pytest
import trio

from actors.upstream.pool import UpstreamRequest
from fleet.common.errors import BackendBroke, BadRequest, Phase
from tests.actors.upstream.transport_kit import OK, Peer, ask, fetch, read, start

MIB = 1 << 20


class Pieces(AsyncIterable[bytes]):
    """An upload as a class; `then` runs behind the last piece."""

    def __init__(self, *pieces: bytes, then: Exception | None = None, hang: bool = False) -> None:
        self._left = list(pieces)
        self._then = then
        self._hang = hang
        self.cancelled = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            await self._wait()
        except trio.Cancelled:
            self.cancelled = True
            raise
        if self._left:
            return self._left.pop(0)
        raise self._then or StopAsyncIteration

    async def _wait(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._hang and not self._left:
            await trio.sleep_forever()


def upload(body: bytes | AsyncIterable[bytes], length: int | None = None, *, expect: bool = False) -> UpstreamRequest:
    return UpstreamRequest("POST", "/api/blobs/sha256:0", [], body, length, expect)


async def until(peer: Peer, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        data += await peer.stream.receive_some(65_536)
    return data


async def test_a_big_body_arrives_whole(nursery: trio.Nursery) -> None:
    body = bytes(range(256)) * (8 * MIB // 256)

    async def handler(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            digest = hashlib.sha256(request.partition(b"\r\n\r\n")[2]).hexdigest().encode()
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 64\r\n\r\n" + digest)

    server = await start(nursery, handler)
    pool = server.pool()
    expected = hashlib.sha256(body).hexdigest().encode()
    assert [await fetch(pool, upload(body)), await fetch(pool, upload(body))] == [expected, expected]
    assert (server.accepted, pool.idle) == (1, 1)
    pool.close()


async def test_answers_are_read_while_the_body_is_still_going_out(nursery: trio.Nursery) -> None:
    """A server that reports progress with more bytes than the socket buffers hold blocks unless somebody reads."""
    interim = b"HTTP/1.1 102 Processing\r\nx-pad: " + b"p" * 60_000 + b"\r\n\r\n"

    async def handler(peer: Peer) -> None:
        await until(peer, b"x")  # into the body: the head is behind us
        for _ in range(100):
            await peer.send(interim)
        await until(peer, b"the end")
        await peer.send(OK)

    pool = (await start(nursery, handler)).pool()
    assert await fetch(pool, upload(b"x" * 8 * MIB + b"the end")) == b"ok"
    pool.close()


@pytest.mark.parametrize("kind", ["bytes", "chunked", "length"])
async def test_an_early_answer_stops_the_upload(nursery: trio.Nursery, kind: str) -> None:
    """As Ollama does for a blob it has: 200, Connection: close, nothing of the body read."""

    async def handler(peer: Peer) -> None:
        await until(peer, b"\r\n\r\n") if kind != "bytes" else await peer.stream.receive_some(100)
        await peer.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\n")
        await peer.send(b"early")
        await released.wait()

    released = trio.Event()
    pieces = Pieces(hang=True)
    request = {
        "bytes": upload(b"x" * 32 * MIB),
        "chunked": upload(pieces),
        "length": upload(pieces, 100),
    }[kind]
    pool = (await start(nursery, handler)).pool()
    response = await ask(pool, request)
    assert pieces.cancelled is (kind != "bytes")
    assert await read(response) == b"early"
    response.release()
    released.set()
    assert (pool.open_count, pool.idle) == (0, 0)


async def test_an_early_answer_that_keeps_the_connection_alive_still_ends_it(nursery: trio.Nursery) -> None:
    async def handler(peer: Peer) -> None:
        await until(peer, b"\r\n\r\n")
        await peer.send(OK)
        await peer.gone()

    pool = (await start(nursery, handler)).pool()
    assert await fetch(pool, upload(Pieces(hang=True))) == b"ok"
    assert (pool.open_count, pool.idle) == (0, 0)


async def test_the_answer_of_a_server_that_closed_before_we_wrote_is_read(nursery: trio.Nursery) -> None:
    """503 and close right after accept: writing may fail, the reason is there to read."""

    async def handler(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 503 Busy\r\nconnection: close\r\ncontent-length: 4\r\n\r\nbusy")
        assert isinstance(peer.stream, trio.SocketStream)
        await peer.stream.send_eof()
        await peer.gone()

    pool = (await start(nursery, handler)).pool()
    assert await fetch(pool, upload(b"x" * 8 * MIB)) == b"busy"


async def test_a_streamed_body_is_chunked_unless_its_length_is_known(nursery: trio.Nursery) -> None:
    seen: list[bytes] = []

    async def handler(peer: Peer) -> None:
        seen.append(await until(peer, b"0\r\n\r\n" if peer.number == 1 else b"world"))
        await peer.send(OK)
        await peer.gone()

    server = await start(nursery, handler)
    pool = server.pool()
    await fetch(pool, upload(Pieces(b"hello ", b"", b"world")))
    await fetch(pool, upload(Pieces(b"hello ", b"", b"world"), 11))
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert b"\r\ntransfer-encoding: chunked" in head
    assert body == b"6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n"
    head, _, body = seen[1].partition(b"\r\n\r\n")
    assert b"\r\ncontent-length: 11" in head
    assert body == b"hello world"
    assert (server.accepted, pool.idle) == (2, 2)  # streamed bodies cannot be replayed: a fresh connection each
    pool.close()


@pytest.mark.parametrize("length", [3, 50])
async def test_an_upload_of_another_length_than_announced_is_the_clients_fault(
    nursery: trio.Nursery, length: int
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.gone()
        left.set()

    left = trio.Event()
    pool = (await start(nursery, handler)).pool()
    with pytest.raises(BadRequest):
        await ask(pool, upload(Pieces(b"12", b"3456"), length))
    assert (pool.open_count, pool.idle) == (0, 0)
    await left.wait()


class Interrupted(Exception):
    """The client went away."""


async def test_what_the_source_raises_comes_out_as_it_is(nursery: trio.Nursery) -> None:
    async def handler(peer: Peer) -> None:
        await peer.gone()
        left.set()

    left = trio.Event()
    pool = (await start(nursery, handler)).pool()
    with pytest.raises(Interrupted):
        await ask(pool, upload(Pieces(b"12", then=Interrupted())))
    assert (pool.open_count, pool.idle) == (0, 0)
    await left.wait()


async def test_a_server_that_resets_during_the_upload(nursery: trio.Nursery) -> None:
    async def handler(peer: Peer) -> None:
        await peer.stream.receive_some(1)
        peer.reset()

    pool = (await start(nursery, handler)).pool()
    for request in (upload(b"x" * 32 * MIB), upload(Pieces(b"1", hang=True))):
        with pytest.raises(BackendBroke) as caught:
            await ask(pool, request)
        assert caught.value.phase is Phase.SEND
    assert (pool.open_count, pool.idle) == (0, 0)


async def test_an_upload_that_a_server_never_reads_is_cancelled(nursery: trio.Nursery) -> None:
    async def handler(peer: Peer) -> None:
        await released.wait()

    released = trio.Event()
    pool = (await start(nursery, handler)).pool()
    with trio.move_on_after(0.05) as waiting:
        await ask(pool, upload(b"x" * 32 * MIB))
    assert waiting.cancelled_caught
    assert (pool.open_count, pool.idle) == (0, 0)
    released.set()


@pytest.mark.parametrize("agreed", [False, True])
async def test_expect_continue(nursery: trio.Nursery, agreed: bool) -> None:
    async def handler(peer: Peer) -> None:
        head = await until(peer, b"\r\n\r\n")
        assert b"\r\nexpect: 100-continue\r\n" in head
        if agreed:
            await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert await until(peer, b"body") == b"body"
        await peer.send(OK)
        await peer.gone()
        left.set()

    left = trio.Event()
    pool = (await start(nursery, handler)).pool()
    assert await fetch(pool, upload(b"body", expect=True)) == b"ok"
    assert pool.idle == (1 if agreed else 0)
    pool.close()
    await left.wait()
