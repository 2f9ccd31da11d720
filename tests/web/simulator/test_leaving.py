"""Clients of the simulated server that leave, wherever they are."""

from __future__ import annotations

import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from fleet.simulator import Profile
from tests.kit.clients.raw import ask_once, chunks, request_bytes
from tests.kit.fleets.backends import FakeBackend, reset
from web.simulator import make_host, serve_connection

CHAT = {"model": "llama3:8b", "messages": [{"role": "user", "content": "hi"}], "options": {"num_predict": 100}}


async def _ask(backend: FakeBackend) -> trio.abc.Stream:
    stream = await backend.dial()
    await stream.send_all(request_bytes("POST", "/api/chat", CHAT))
    return stream


async def test_leaving_the_queue_frees_the_place_of_that_client_only(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    backend = FakeBackend(nursery, profile=Profile(load_seconds=1))
    streams = []
    for _ in range(4):
        streams.append(await _ask(backend))
        await wait_all_tasks_blocked()
    await trio.sleep(2)
    (runner,) = backend.host.server.runners.values()
    assert (len(runner.active), len(runner.queue)) == (1, 3)
    await streams[2].aclose()
    await wait_all_tasks_blocked()
    assert (len(runner.active), len(runner.queue)) == (1, 2)
    assert [seen.client_left for seen in backend.host.requests] == [False, False, True, False]
    await trio.sleep(60)
    assert runner.idle


async def test_a_reset_by_the_client_frees_the_slot(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    backend = FakeBackend(nursery, profile=Profile(load_seconds=1))
    stream = await _ask(backend)
    await trio.sleep(2)
    reset(stream)
    await wait_all_tasks_blocked()
    assert all(runner.idle for runner in backend.host.server.runners.values())
    assert (backend.host.open_connections, backend.host.requests[-1].client_left) == (0, True)


async def test_leaving_after_the_last_chunk_is_not_leaving_early(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    backend = FakeBackend(nursery)
    answer = await ask_once(await backend.dial(), "POST", "/api/chat", CHAT)
    await wait_all_tasks_blocked()
    assert len(chunks(answer.partition(b"\r\n\r\n")[2])) == 101
    assert not backend.host.requests[-1].client_left


async def test_an_upload_cut_short_is_a_client_that_left(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    backend = FakeBackend(nursery)
    for path in ("/api/chat", "/api/blobs/sha256:" + "0" * 64):
        stream = await backend.dial()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n"
        await stream.send_all(head.encode() + b"x" * 10)
        await wait_all_tasks_blocked()
        await stream.aclose()
        await wait_all_tasks_blocked()
        assert backend.host.requests[-1].client_left
    assert backend.host.open_connections == 0


async def test_any_trio_stream_will_do(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    host = make_host(faults=["reset-mid-stream:2"])
    ours, theirs = memory_stream_pair()
    nursery.start_soon(serve_connection, host, theirs)
    answer = await ask_once(ours, "POST", "/api/chat", CHAT)
    assert answer.count(b'"done":false') == 2


async def test_cancelling_a_connection_gives_its_work_up(autojump_clock: MockClock) -> None:
    host = make_host()
    ours, theirs = memory_stream_pair()
    await ours.send_all(request_bytes("POST", "/api/chat", CHAT))
    with trio.move_on_after(1):
        await serve_connection(host, theirs)
    assert (host.server.loads_begun, host.server.loading) == (1, None)
    assert (host.active_requests, host.open_connections) == (0, 0)
