"""Clients that do what no client should: each is dealt with, and everybody else is served meanwhile."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio

from fleet.simulator import Profile
from tests.e2e.support import (
    CHAT,
    MODELS,
    ROUTES,
    Answer,
    ask,
    connect,
    first_answer,
    inference_seen,
    is_idle,
    read_to_the_end,
    understood,
    until,
)
from tests.kit.clients.lanes import both_lanes
from tests.kit.clients.raw import request_bytes
from tests.kit.fleets.served import Served, served

CHAT_ROUTE = ROUTES[1]


@asynccontextmanager
async def besieged(**config: Any) -> AsyncIterator[Served]:
    """The product; at the end it must still serve a well-behaved client, and have nothing left over."""
    async with served("a", models=MODELS, **config) as fleet:
        yield fleet
        await others_are_served(fleet)
        await until(lambda: is_idle(fleet))
        fleet.assert_nothing_left()


async def others_are_served(fleet: Served) -> None:
    with trio.fail_after(20):
        assert (await ask(fleet.url, "POST", CHAT_ROUTE.path, CHAT_ROUTE.fields)).lines[-1]["done"]
        assert (await ask(fleet.url, "GET", "/api/tags")).status == 200


async def say(fleet: Served, data: bytes, within: float = 20.0) -> bytes:
    """Send something, and take whatever comes until the server closes."""
    with trio.fail_after(within):
        async with await connect(fleet.url) as stream:
            with suppress(trio.BrokenResourceError):
                await stream.send_all(data)
            return await read_to_the_end(stream)


RUBBISH = [
    (400, b"\x00\x01\x02\x03\r\n\r\n"),
    (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100 + b"\r\n\r\n"),
    (400, b"hello\r\n\r\n"),
    (505, b"GET / HTTP/9.9\r\n\r\n"),
    (400, b"GET /\r\n\r\n"),
    (400, b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n"),
    (400, b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
    (400, b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5, 6\r\n\r\nhello"),
    (400, b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n"),
    (400, b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n"),
    (501, b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
    (501, b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    (417, b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nExpect: tea\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost : x\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Old: a\r\n folded\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHo\x00st: x\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\n\r\n"),
    (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    (405, b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n"),
    (
        404,
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n\x81\x05hello",
    ),
    (404, b"GET /%ff%fe/%00 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
    (404, b"POST /api/chat--%2e%2e%2f HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
    (200, b"GET http://elsewhere/api/tags HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
]


@pytest.mark.parametrize(("status", "data"), RUBBISH, ids=lambda value: repr(value)[:40])
async def test_rubbish_is_refused_and_harms_nobody(status: int, data: bytes) -> None:
    async with besieged() as fleet:
        answer = understood(await say(fleet, data))
        assert answer.status == status, answer.raw
        assert answer.body, "an empty error is success to Ollama's CLI"
        assert not inference_seen(fleet.sims["a"].host)


@pytest.mark.parametrize("size", [200_000, 5_000_000])
async def test_a_huge_head_is_refused(size: int) -> None:
    async with besieged() as fleet:
        answer = await say(fleet, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Big: " + b"x" * size + b"\r\n\r\n")
        assert answer == b"" or b" 431 " in answer[:20]


@both_lanes
async def test_a_large_head_within_the_limit_is_taken() -> None:
    async with besieged() as fleet:
        answer = await ask(fleet.url, "POST", CHAT_ROUTE.path, CHAT_ROUTE.fields, "X-Big: " + "x" * 50_000)
        assert answer.status == 200


async def test_a_head_that_comes_byte_by_byte_holds_nobody_up() -> None:
    async with besieged() as fleet, trio.open_nursery() as nursery:

        async def drip(stream: trio.SocketStream) -> None:
            async with stream:
                for byte in request_bytes("GET", "/api/tags", None, "Connection: close"):
                    await stream.send_all(bytes([byte]))
                    await trio.sleep(0.002)
                assert understood(await read_to_the_end(stream)).status == 200

        streams = [await connect(fleet.url) for _ in range(50)]
        for stream in streams:
            nursery.start_soon(drip, stream)
        for _ in range(5):
            await others_are_served(fleet)


def filled(size: int) -> bytes:
    """A chat request of exactly that many bytes; what fills it is an image nobody looks at."""
    body = {"model": CHAT, "stream": False, "messages": [{"role": "user", "content": "Hi", "images": ["@"]}]}
    frame = json.dumps(body).encode()
    return frame.replace(b"@", b"A" * (size - len(frame) + 1))


@pytest.mark.slow
async def test_a_body_up_to_the_limit_is_taken_and_one_over_it_refused() -> None:
    limit = 100 * 2**20
    async with besieged() as fleet:
        whole = await ask(fleet.url, "POST", "/api/chat", filled(limit))
        assert whole.status == 200
        assert inference_seen(fleet.sims["a"].host)[-1].body_size == limit
        over = await ask(fleet.url, "POST", "/api/chat", filled(limit + 1), "User-Agent: ollama/1")
        assert (over.status, over.headers["x-fleet-error"]) == (413, "BODY_TOO_LARGE")
        assert isinstance(over.json()["error"], str)


@both_lanes
@pytest.mark.parametrize("path", ["/api/chat", "/api/pull", "/v1/messages", "/api/orchestrator/servers/add"])
async def test_a_body_over_the_limit_is_refused_before_it_was_sent(path: str) -> None:
    async with besieged(limits={"body_bytes": 10_000}) as fleet:
        async with await connect(fleet.url) as stream:
            await stream.send_all(request_bytes("POST", path, None, "Content-Length: 20000000000"))
            answer = await first_answer(stream)
        assert answer.status == 413
        assert b"limits.body_bytes" in answer.body
        chunk = b"%x\r\n%s\r\n" % (6000, b"x" * 6000)
        async with await connect(fleet.url) as stream:
            await stream.send_all(request_bytes("POST", path, None, "Transfer-Encoding: chunked") + chunk * 3)
            assert (await first_answer(stream)).status == 413
        assert (await ask(fleet.url, "POST", "/api/chat", filled(10_000))).status == 200


@both_lanes
async def test_a_blob_may_be_larger_than_the_limit_of_bodies() -> None:
    async with besieged(limits={"body_bytes": 10_000}) as fleet:
        answer = await ask(fleet.url, "POST", "/api/blobs/sha256:" + "0" * 64, b"x" * 1_000_000)
        assert (answer.status, answer.json()["error"].split(",")[0]) == (400, "digest mismatch")


@both_lanes
async def test_a_client_that_stalls_within_its_body_holds_no_slot() -> None:
    async with besieged(slots=1) as fleet:
        streams = [await connect(fleet.url) for _ in range(20)]
        for stream in streams:
            await stream.send_all(CHAT_ROUTE.request()[:-10])
        await others_are_served(fleet)
        assert fleet.system.in_flight == 0
        for stream in streams:
            await stream.aclose()


@both_lanes
async def test_a_client_that_leaves_within_its_body_was_never_there() -> None:
    async with besieged() as fleet:
        async with await connect(fleet.url) as stream:
            await stream.send_all(CHAT_ROUTE.request()[:-10])
        async with await connect(fleet.url) as stream:
            await stream.send_all(CHAT_ROUTE.request()[:-10])
            await stream.send_eof()
            with trio.fail_after(20):
                await read_to_the_end(stream)
        assert not inference_seen(fleet.sims["a"].host)


@both_lanes
async def test_an_upload_that_stalls_or_ends_early_leaves_no_blob() -> None:
    async with besieged() as fleet:
        host = fleet.sims["a"].host
        async with await connect(fleet.url) as stream:
            head = request_bytes("POST", "/api/blobs/sha256:" + "0" * 64, None, "Content-Length: 1000000")
            await stream.send_all(head + b"x" * 500_000)
            await until(lambda: host.seen("/api/blobs/sha256:" + "0" * 64))
            await others_are_served(fleet)
        await until(lambda: host.seen("/api/blobs/sha256:" + "0" * 64)[0].client_left)
        assert not host.blobs


async def test_a_client_that_stops_reading_loses_its_lease_after_the_write_limit() -> None:
    fast = Profile(load_seconds=0.0, slots=4, tokens_per_second=1e6, prefill_per_second=1e6)
    async with besieged(profile=fast, slots=1, timeouts={"write": 1.0}) as fleet:
        stream = trio.socket.socket()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await stream.connect(fleet.address)
        body = {"model": CHAT, "prompt": "x", "options": {"num_predict": 200_000}}
        await stream.send(request_bytes("POST", "/api/generate", body))
        await until(lambda: fleet.system.in_flight == 1)
        await until(lambda: fleet.system.in_flight == 0, 300.0)  # the kernel takes some megabytes first
        await until(lambda: fleet.sims["a"].host.active_requests == 0)
        assert inference_seen(fleet.sims["a"].host)[-1].client_left
        stream.close()


@both_lanes
async def test_pipelined_requests_are_answered_in_order() -> None:
    async with besieged() as fleet:
        requests = [request_bytes("GET", "/api/version"), CHAT_ROUTE.request(), request_bytes("GET", "/nowhere")]
        last = request_bytes("GET", "/", None, "Connection: close")
        raw = await say(fleet, b"".join(requests * 5) + last)
        statuses = re.findall(rb"HTTP/1\.1 (\d+) ", raw)
        assert statuses == [b"200", b"200", b"404"] * 5 + [b"200"]
        assert raw.endswith(b"Ollama is running")


async def test_a_client_that_pipelines_and_leaves_frees_its_slot() -> None:
    slow = Profile(load_seconds=0.0, tokens_per_second=5.0)
    async with served("a", models=MODELS, profile=slow) as fleet:
        stream = await connect(fleet.url)
        await stream.send_all(CHAT_ROUTE.request() * 10)
        await until(lambda: fleet.system.in_flight == 1)
        stream.socket.close()
        await until(lambda: is_idle(fleet))
        fleet.assert_nothing_left()


async def test_a_request_with_two_framings_smuggles_nothing_to_a_server() -> None:
    async with besieged() as fleet:
        head = request_bytes("POST", "/api/chat", None, "Content-Length: 5", "Transfer-Encoding: chunked")
        raw = await say(fleet, head + b"0\r\n\r\nGET /sim/state HTTP/1.1\r\n\r\n")
        assert re.findall(rb"HTTP/1\.1 (\d+) ", raw)[:1] == [b"400"]
        assert [seen.body for seen in inference_seen(fleet.sims["a"].host)] in ([], [b""])
        assert not fleet.sims["a"].host.seen("/sim/state")


@pytest.mark.parametrize("claimed", [1, 10])
async def test_a_body_longer_than_announced_is_not_taken_for_a_request(claimed: int) -> None:
    async with besieged() as fleet:
        body = b'{"model":"llama3:8b","messages":[]}\r\n\r\n'
        raw = await say(fleet, request_bytes("POST", "/api/chat", None, f"Content-Length: {claimed}") + body)
        first, *more = [answer for answer in raw.split(b"HTTP/1.1 ") if answer]
        assert first.startswith(b"400 ")
        assert all(answer.startswith(b"400 ") for answer in more)
        assert len(inference_seen(fleet.sims["a"].host)) == 1


async def test_a_thousand_idle_connections_harm_nobody_and_those_over_the_limit_are_told() -> None:
    async with besieged(limits={"connections": 200}) as fleet:
        streams = [await connect(fleet.url) for _ in range(200)]
        with trio.fail_after(20):
            while (answer := await _status_or_none(fleet)) is None or answer.status != 503:
                streams.append(await connect(fleet.url))
        assert answer.headers["retry-after"]
        assert isinstance(answer.json()["error"], str)
        for stream in streams:
            await stream.aclose()
        with trio.fail_after(20):
            while (answer := await _status_or_none(fleet)) is None or answer.status != 200:
                await trio.sleep(0.01)


async def _status_or_none(fleet: Served) -> Answer | None:
    try:
        return await ask(fleet.url, "GET", "/")
    except (OSError, trio.BrokenResourceError, IndexError):
        return None
