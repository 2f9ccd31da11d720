"""Everything that goes wrong, and what is left afterwards: nothing."""

from __future__ import annotations

import errno
import socket

import pytest
import trio
import trio.testing

from actors.upstream.pool import BackendAddress, Pool
from fleet.common.errors import BackendBroke, BackendUnreachable, ConnectTimeout, OutOfDescriptors, Phase
from tests.actors.upstream.transport_kit import OK, Peer, answering, ask, fetch, open_sockets, post, read, start

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_refused() -> None:
    port = unused_port()
    with pytest.raises(BackendUnreachable) as caught:
        await ask(Pool(BackendAddress.parse(f"http://127.0.0.1:{port}")))
    assert caught.value.phase is Phase.CONNECT
    assert caught.value.message == f"127.0.0.1:{port} cannot be reached: Connection refused."


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b", "x" * 70 + ".invalid"])
async def test_a_name_that_is_none(host: str) -> None:
    with pytest.raises(BackendUnreachable) as caught:
        await ask(Pool(BackendAddress.parse(f"http://{host}:1")))
    assert "\n" not in caught.value.message
    assert host in caught.value.message


@pytest.mark.parametrize("error", [OSError(113, "No route to host"), trio.BrokenResourceError("x"), OSError()])
async def test_whatever_dialling_raises_is_translated(error: Exception) -> None:
    async def dial() -> trio.abc.Stream:
        raise error

    with pytest.raises(BackendUnreachable) as caught:
        await ask(Pool(BackendAddress.parse("http://h:1"), dial=dial))
    assert caught.value.__cause__ is error


async def test_running_out_of_descriptors_blames_no_backend() -> None:
    async def dial() -> trio.abc.Stream:
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(OutOfDescriptors):
        await ask(Pool(BackendAddress.parse("http://h:1"), dial=dial))


async def test_a_stream_that_cannot_be_closed_at_once_is_refused() -> None:
    class Slow(trio.abc.Stream):
        async def aclose(self) -> None: ...
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            return b""

        async def send_all(self, data: object) -> None: ...
        async def wait_send_all_might_not_block(self) -> None: ...

    async def dial() -> trio.abc.Stream:
        return Slow()

    with pytest.raises(TypeError):
        await ask(Pool(BackendAddress.parse("http://h:1"), dial=dial))


@pytest.mark.parametrize(
    ("answer", "phase"),
    [
        (b"", Phase.HEADERS),
        (b"HTTP/1.1 200", Phase.HEADERS),
        (b"HTTP/1.1 100 Continue\r\n\r\n", Phase.HEADERS),
        (b"220 smtp ready\r\n", Phase.HEADERS),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", Phase.HEADERS),
        (b"HTTP/1.1 999999 OK\r\n\r\n", Phase.HEADERS),
        (HEAD, Phase.BODY),
        (HEAD + b"12345", Phase.BODY),
        (CHUNKED + b"3\r\nabc\r\n", Phase.BODY),
        (CHUNKED + b"3\r\nabc\r\n0\r\n", Phase.BODY),
        (CHUNKED + b"zz\r\n", Phase.BODY),
    ],
)
@pytest.mark.parametrize("rudely", [False, True])
async def test_a_server_that_breaks_off(nursery: trio.Nursery, answer: bytes, phase: Phase, rudely: bool) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        if answer:
            await peer.send(answer)
        if rudely:
            peer.reset()

    server = await start(nursery, handler)
    pool = server.pool()
    with pytest.raises(BackendBroke) as caught:
        await fetch(pool, post(b'{"prompt":"secret"}'))
    assert caught.value.phase is phase
    assert caught.value.message.startswith(f"127.0.0.1:{server.port} broke off ({phase.value}): ")
    assert "\n" not in caught.value.message
    assert "secret" not in caught.value.message
    assert (pool.open_count, pool.idle) == (0, 0)


async def test_the_body_before_the_break_is_handed_out(nursery: trio.Nursery) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"3\r\nabc\r\n")

    pool = (await start(nursery, handler)).pool()
    response = await ask(pool)
    assert await response.receive() == b"abc"
    for _ in range(2):
        with pytest.raises(BackendBroke):
            await response.receive()
    assert pool.open_count == 0


async def test_abort_wakes_the_reader_and_the_server(nursery: trio.Nursery) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD)
        await peer.gone()
        left.set()

    left = trio.Event()
    pool = (await start(nursery, handler)).pool()
    response = await ask(pool)
    async with trio.open_nursery() as aborting:

        async def abort() -> None:
            await trio.testing.wait_all_tasks_blocked()
            response.abort()
            response.abort()

        aborting.start_soon(abort)
        with pytest.raises(BackendBroke) as caught:
            await read(response)
    assert caught.value.phase is Phase.BODY
    assert "given up" in caught.value.message
    await left.wait()


async def test_closing_the_pool_wakes_who_waits_for_a_head(nursery: trio.Nursery) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.gone()

    asked = trio.Event()
    pool = (await start(nursery, handler)).pool()

    async def close() -> None:
        await asked.wait()
        pool.close()

    nursery.start_soon(close)
    with pytest.raises(BackendBroke):
        await ask(pool)
    assert pool.open_count == 0


# --- cancellation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["send", "headers", "body"])
async def test_cancelled_at_any_phase_nothing_stays_open(nursery: trio.Nursery, phase: str) -> None:
    async def handler(peer: Peer) -> None:
        if phase == "send":
            reached.set()
            await released.wait()
        await peer.request()
        if phase == "body":
            await peer.send(HEAD)
        reached.set()
        await peer.gone()
        left.set()

    async def client() -> None:
        with scope:
            response = await ask(pool, post(b"x" * (16 << 20) if phase == "send" else b"{}"))
            try:
                await read(response)
            finally:
                response.release()

    reached, released, left = trio.Event(), trio.Event(), trio.Event()
    server = await start(nursery, handler)
    before = open_sockets()
    pool = server.pool()
    scope = trio.CancelScope()
    async with trio.open_nursery() as clients:
        clients.start_soon(client)
        await reached.wait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        scope.cancel()
    assert scope.cancelled_caught
    assert (pool.open_count, pool.idle) == (0, 0)
    released.set()
    await left.wait()
    await trio.testing.wait_all_tasks_blocked()
    assert open_sockets() == before


async def test_a_thousand_answers_leave_as_many_sockets_as_one(nursery: trio.Nursery) -> None:
    server = await start(nursery, answering(OK, OK, b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"))
    pool = server.pool()
    await fetch(pool)
    before = open_sockets()
    for _ in range(300):
        await fetch(pool)
        (await ask(pool)).abort()
        with trio.move_on_after(0):
            await ask(pool)
    pool.close()
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert open_sockets() <= before


# --- time, on a virtual clock with streams in memory ----------------------------------------------------------------


class Memory:
    """A backend in memory; `far` is the server's end of the last connection."""

    def __init__(self) -> None:
        self.far: trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream] | None = None
        self.pool = Pool(BackendAddress.parse("http://memory:1"), dial=self.dial)

    async def dial(self) -> trio.abc.Stream:
        near, self.far = trio.testing.memory_stream_pair()
        await trio.lowlevel.checkpoint()
        return near

    async def gone(self) -> bool:
        assert self.far is not None
        try:
            while await self.far.receive_some(1000):
                pass
        except trio.BrokenResourceError:
            pass
        return True


async def test_connect_timeout(autojump_clock: trio.testing.MockClock) -> None:
    async def dial() -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    pool = Pool(BackendAddress.parse("http://h:1"), dial=dial)
    with pytest.raises(ConnectTimeout) as caught:
        await pool.open(post(), connect_timeout=3)
    assert trio.current_time() == 3
    assert caught.value.phase is Phase.CONNECT


@pytest.mark.parametrize("size", [2, 1 << 20])
async def test_waiting_for_the_head_is_cancelled(autojump_clock: trio.testing.MockClock, size: int) -> None:
    memory = Memory()
    with trio.move_on_after(30) as waiting:
        await memory.pool.open(post(b"x" * size), connect_timeout=1)
    assert waiting.cancelled_caught
    assert memory.pool.open_count == 0
    assert await memory.gone()


async def test_the_connect_timeout_ends_with_the_connection(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    async def serve() -> None:
        await trio.sleep(29)
        assert memory.far is not None
        await memory.far.send_all(HEAD)
        await trio.sleep(1000)
        await memory.far.send_all(b"0123456789")

    memory = Memory()
    nursery.start_soon(serve)
    response = await memory.pool.open(post(), connect_timeout=1)
    assert await response.receive() == b"0123456789"
    assert trio.current_time() == 1029
    response.release()
    assert memory.pool.idle == 1
    memory.pool.close()
    assert await memory.gone()


async def test_aborted_memory_stream_wakes_its_reader(nursery: trio.Nursery) -> None:
    memory = Memory()

    async def serve() -> None:
        await trio.testing.wait_all_tasks_blocked()
        assert memory.far is not None
        await memory.far.send_all(HEAD)
        await trio.testing.wait_all_tasks_blocked()
        memory.pool.close()

    nursery.start_soon(serve)
    response = await ask(memory.pool)
    with pytest.raises(BackendBroke):
        await read(response)


async def test_a_stream_that_breaks_under_our_write_gets_a_moment_for_its_last_words(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def dial() -> trio.abc.Stream:
        near, far = trio.testing.memory_stream_pair()
        far.receive_stream.close()
        kept.append(far)
        return near

    kept: list[object] = []
    pool = Pool(BackendAddress.parse("http://h:1"), dial=dial)
    for body in (b"{}", b"x" * (1 << 20)):
        started = trio.current_time()
        with pytest.raises(BackendBroke) as caught:
            await pool.open(post(body), connect_timeout=1)
        assert caught.value.phase is Phase.SEND
        assert trio.current_time() - started == 1


async def test_a_pool_closed_while_dialling(nursery: trio.Nursery) -> None:
    async def dial() -> trio.abc.Stream:
        near, far = trio.testing.memory_stream_pair()
        kept.append(far)
        pool.close()
        return near

    kept: list[trio.abc.Stream] = []
    pool = Pool(BackendAddress.parse("http://h:1"), dial=dial)
    with pytest.raises(BackendUnreachable):
        await ask(pool)
    assert await kept[0].receive_some(1) == b""
