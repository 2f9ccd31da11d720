"""Thousands of clients at one time: all are served, and whoever was there before does not feel it."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Sequence

import pytest
import trio

from tests.e2e.support import until
from tests.kit.clients.edge import Browser, browser, generate, in_front_of, noted_edges, whole_answer
from tests.kit.clients.raw import request_bytes
from tests.kit.fleets.served import Served

pytestmark = pytest.mark.slow

DONE = b'{"model":"m","response":"","done":true,"done_reason":"stop"}\n'
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
LINE = b'{"model":"m","response":"x","done":false}\n'
CHUNK = b"%x\r\n%b\r\n" % (len(LINE), LINE)
SHARE = 1 / 3
"""Of the processor time that serving the crowd takes: the longest pause of a stream that was there before.

Not of seconds: how many of those pass is decided by whoever else wants the processor.
"""


def crowd() -> int:
    """As many as the process may have: both ends are in it, and the app's own connections."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(2000, (soft - 500) // 5)


class Ticker:
    """A backend's script with one stream that never pauses for long: an event is set every 20 ms."""

    def __init__(self) -> None:
        self.ticks = [trio.Event() for _ in range(6000)]

    def script(self, head: bytes, body: bytes) -> Sequence[bytes | trio.Event]:
        if b"tick" not in body:
            return [whole_answer(DONE)]
        pieces: list[bytes | trio.Event] = [STREAM]
        for tick in self.ticks:
            pieces += [tick, CHUNK]
        return pieces

    async def run(self) -> None:
        for tick in self.ticks:
            await trio.sleep(0.02)
            tick.set()


class Watcher:
    """A client in mid-stream: the most processor time between two pieces of its answer."""

    def __init__(self) -> None:
        self.gap = 0.0

    async def run(self, fleet: Served, task_status: trio.TaskStatus[None]) -> None:
        client = await browser(fleet.url)
        async with client.stream:
            await client.send(generate("tick", stream=True))
            await client._until(CHUNK)
            task_status.started()
            last = time.process_time()
            while True:
                await client._until(CHUNK)
                now = time.process_time()
                self.gap, last = max(self.gap, now - last), now


async def one(fleet: Served, data: bytes, seen: Counter[int], gate: trio.Event | None = None) -> None:
    client = await browser(fleet.url)
    async with client.stream:
        if gate is not None:
            await gate.wait()
        await client.send(data)
        seen[(await client.answer("POST", within=120)).status] += 1


ASKED = {
    "hot": generate("Hi"),
    "cold": request_bytes("GET", "/api/version"),
    "blob": request_bytes("POST", "/no", b"x"),
}


@pytest.mark.parametrize("what", ASKED)
async def test_a_crowd_that_comes_at_once_is_served(what: str) -> None:
    ticker, watcher, seen = Ticker(), Watcher(), Counter[int]()
    async with in_front_of(ticker.script, queue={"max_size": 10_000}) as (fleet, _), trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run)
        await nursery.start(watcher.run, fleet)
        count = crowd() if what == "hot" else crowd() // 4
        began = time.process_time()
        async with trio.open_nursery() as clients:
            for _ in range(count):
                clients.start_soon(one, fleet, ASKED[what], seen)
        took = time.process_time() - began
        assert seen == {404 if what == "blob" else 200: count}
        assert watcher.gap < SHARE * took
        nursery.cancel_scope.cancel()


async def test_a_crowd_that_was_idle_and_asks_the_app_at_the_same_moment_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More than the private socket's backlog holds."""
    edges = noted_edges(monkeypatch)
    count, gate, seen = min(crowd(), 1500), trio.Event(), Counter[int]()
    async with in_front_of(Ticker().script) as (fleet, _), trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one, fleet, ASKED["cold"], seen, gate)
        await until(lambda: len(edges[-1].connections) == count, 120.0)
        gate.set()
        await until(lambda: seen.total() == count, 120.0)
        assert seen == {200: count}


async def test_those_who_come_when_there_is_no_room_are_told() -> None:
    async with in_front_of(Ticker().script, limits={"connections": 50}) as (fleet, _):
        guests: list[Browser] = [await browser(fleet.url) for _ in range(50)]
        for guest in guests:
            await guest.ask("GET", "/")
        seen: Counter[int] = Counter()

        async def told() -> None:
            client = await browser(fleet.url)
            async with client.stream:
                reply = await client.answer()
                seen[reply.status] += 1
                assert (reply.closes, reply.headers["retry-after"]) == (True, "1")
                assert reply.json()["error"]

        async with trio.open_nursery() as late:
            for _ in range(100):
                late.start_soon(told)
        assert seen == {503: 100}
        for guest in guests:
            assert (await guest.ask("GET", "/")).status == 200
            await guest.stream.aclose()
