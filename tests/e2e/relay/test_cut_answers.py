"""Answers that lose their server: never a clean end, and streams say why."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from fleet.simulator import Profile
from tests.e2e.raw_upstream import in_front_of_raw
from tests.e2e.relay.error_shapes import one_line, send
from tests.e2e.support import (
    MODELS,
    ROUTES,
    TURN,
    Route,
    ask,
    connect,
    ended_cleanly,
    events,
    is_idle,
    read_to_the_end,
    until,
)
from tests.kit.clients.lanes import both_lanes
from tests.kit.clients.raw import chunks
from tests.kit.fleets.served import served

pytestmark = both_lanes
STREAMING = [route for route in ROUTES if route.streams]


def is_error_record(route: Route, body: bytes) -> bool:
    """Whether the stream ends with the error record that this dialect's clients raise on."""
    if route.path.startswith("/api/"):
        last = json.loads(body.splitlines()[-1])
        return b"\n\n" not in body and one_line(last.get("error"))
    name, data = list(events(body))[-1]
    record = json.loads(data)
    if route.path.startswith("/v1/messages"):
        return name == "error" and record["type"] == "error" and one_line(record["error"]["message"])
    return one_line(record["error"]["message"]) and "[DONE]" not in body.decode()


@pytest.mark.parametrize("route", STREAMING, ids=str)
async def test_a_stream_that_loses_its_server_ends_with_an_error_record(route: Route) -> None:
    async with served("a", models=MODELS, enable_circuit_breaker=False) as fleet:
        host = fleet.sims["a"].host
        for fault in ("reset-mid-stream:3", "reset-mid-stream:1"):
            host.faults.set(fault)
            async with await connect(fleet.url) as stream:
                await stream.send_all(route.request(stream=True))
                raw = await _until_error(stream)
            head, _, _ = raw.partition(b"\r\n\r\n")
            assert b" 200 " in head.splitlines()[0]
            body = _dechunked(raw)
            assert is_error_record(route, body), body[-300:]
        await until(lambda: is_idle(fleet))


async def _until_error(stream: trio.SocketStream) -> bytes:
    raw = b""
    with trio.fail_after(20):
        while not raw.endswith(b"\r\n0\r\n\r\n"):
            part = await stream.receive_some(65536)
            assert part, raw
            raw += part
    return raw


def _dechunked(raw: bytes) -> bytes:
    return b"".join(chunks(raw.partition(b"\r\n\r\n")[2]))


@pytest.mark.parametrize("route", STREAMING, ids=str)
async def test_a_stream_that_was_taken_back_ends_with_an_error_record(route: Route) -> None:
    slow = Profile(load_seconds=0.0, tokens_per_second=5.0)
    async with served("a", models=MODELS, profile=slow) as fleet, await connect(fleet.url) as stream:
        await stream.send_all(route.request(stream=True))
        raw = bytes(await stream.receive_some(65536))
        fleet.system.revoke_all("a test")
        body = _dechunked(raw + await _until_error(stream))
        assert is_error_record(route, body)
        await until(lambda: is_idle(fleet))
        fleet.assert_nothing_left()


async def test_a_stream_whose_server_falls_silent_ends_with_an_error_record() -> None:
    config: dict[str, Any] = {"timeouts": {"idle": 0.3}, "enable_circuit_breaker": False}
    profile = Profile(load_seconds=0.0, slots=16)
    async with served("a", models=MODELS, profile=profile, slots=16, **config) as fleet:
        fleet.sims["a"].host.faults.set("stall-mid-stream:3")

        async def one(route: Route) -> None:
            async with await connect(fleet.url) as stream:
                await stream.send_all(route.request(stream=True))
                body = _dechunked(await _until_error(stream))
                assert is_error_record(route, body), body[-300:]

        async with trio.open_nursery() as nursery:
            for route in STREAMING:
                nursery.start_soon(one, route)
        await until(lambda: is_idle(fleet))
        fleet.assert_nothing_left()


@pytest.mark.parametrize("stop", ["reset-mid-stream:3", "wrong-length"])
@pytest.mark.parametrize("route", [route for route in ROUTES if "--" not in route.path], ids=str)
async def test_an_unstreamed_answer_that_was_cut_is_never_a_clean_end(route: Route, stop: str) -> None:
    async with served("a", models=MODELS, enable_circuit_breaker=False) as fleet:
        fleet.sims["a"].host.faults.set(stop)
        answer = await send(fleet, route)
        assert answer.status == 502 or not ended_cleanly(answer.raw), answer.raw
        await until(lambda: is_idle(fleet))


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("cut", [b'{"message":{"content":"a"}', b'{"message":{"content":"a"}}', b'{"done":false}\n'])
async def test_a_native_stream_cut_within_a_record_has_no_blank_line_before_its_error(cut: bytes) -> None:
    async with in_front_of_raw() as (fleet, upstream):
        upstream.answer = [HEAD + b"%x\r\n%s\r\n" % (len(cut), cut)]
        answer = await ask(fleet.url, "POST", "/api/chat", {"model": "m", "messages": TURN})
        lines = answer.body.split(b"\n")
        assert lines[-1] == b""
        assert all(lines[:-1]), "Ollama's Go and Python clients die of a blank line"
        assert one_line(json.loads(lines[-2])["error"])


@pytest.mark.parametrize("cut", [b'data: {"x"', b'data: {"x":1}\n', b'data: {"x":1}\n\n'])
async def test_an_event_stream_cut_within_an_event_has_its_error_in_an_event_of_its_own(cut: bytes) -> None:
    async with in_front_of_raw() as (fleet, upstream):
        head = HEAD.replace(b"application/x-ndjson", b"text/event-stream")
        upstream.answer = [head + b"%x\r\n%s\r\n" % (len(cut), cut)]
        body = {"model": "m", "messages": TURN, "stream": True}
        answer = await ask(fleet.url, "POST", "/v1/chat/completions", body)
        *_, last = [block.strip() for block in answer.body.split(b"\n\n") if block.strip()]
        assert last.startswith(b"data: ")
        assert one_line(json.loads(last.removeprefix(b"data: "))["error"]["message"])


async def test_an_unstreamed_answer_larger_than_what_is_held_back_is_cut_visibly() -> None:
    async with in_front_of_raw() as (fleet, upstream):
        for framing in (b"Content-Length: 3000000", b"Transfer-Encoding: chunked"):
            piece = b"x" * 1_000_000
            sent = b"%x\r\n%s\r\n" % (len(piece), piece) if b"chunked" in framing else piece
            upstream.answer = [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + framing + b"\r\n\r\n", sent]
            async with await connect(fleet.url) as stream:
                await stream.send_all(Route("/api/chat", {"model": "m", "messages": TURN, "stream": False}).request())
                with trio.fail_after(20):
                    raw = await read_to_the_end(stream)
            assert b" 502 " in raw[:20] or not ended_cleanly(raw)
