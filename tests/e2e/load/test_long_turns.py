"""However long a body is, nobody else waits for it: what the product does in one turn takes milliseconds."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator

import pytest
import trio
import zstandard

from tests.e2e.raw_upstream import in_front_of_raw
from tests.kit.clients.lanes import both_lanes, connect
from tests.kit.clients.raw import request_bytes
from tests.kit.suite.turns import measured_turns

pytestmark = pytest.mark.alone

MOST = 0.15
"""Seconds of processor time. Some milliseconds is what it takes, and what is not linear in a body takes seconds.

The kernel's part counts too: to give 60 MB to a process and to take them back costs 5 ms, and 65 where the tests before
have left it no large pages.
"""
MIB = 2**20
LINE = 'a line of text, and some code: print("hello")\n'


def chat(**message: object) -> bytes:
    return json.dumps({"messages": [message], "model": "m", "stream": False}).encode()


BODIES = {
    "60 MB of chat": lambda: (
        b'{"model":"m","messages":[' + b",".join([chat(role="user", content=LINE * 20)] * 55_000) + b'],"stream":false}'
    ),
    "a 20 MB image": lambda: chat(role="user", content="what is it?", images=["QUJD" * (5 * MIB)]),
    "5 MB without an end": lambda: b'{"model":"m","prompt":"' + b'\\"' * (5 * MIB // 2),
    "8 MB of brackets": lambda: b'{"model":"m","x":[' + (b"[" * 20 + b"]" * 20 + b",") * 200_000 + b"[]]}",
    "1 MB of half characters": lambda: b'{"model":"m","prompt":"' + b"\\ud83d" * (MIB // 6) + b'"}',
}
OK = [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n", b'{"done":true}']


@pytest.fixture(autouse=True)
def without_collections() -> Iterator[None]:
    """A collection of the garbage of a whole test run takes longer than anything here; a fleet freezes its own."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


async def longest_turn(path: str, body: bytes, *fields: str, answer: list[bytes] = OK, **config: object) -> float:
    async with in_front_of_raw(limits={"body_bytes": 100 * MIB, "decoded_bytes": 64 * MIB}, **config) as (handle, raw):
        raw.answer = answer
        stream = await connect(handle.url)
        async with stream:
            with measured_turns() as turns, trio.fail_after(40):
                await stream.send_all(request_bytes("POST", path, body, "Connection: close", *fields))
                while await stream.receive_some(MIB):
                    pass
        return turns.longest[0]


@both_lanes
@pytest.mark.parametrize("what", list(BODIES))
async def test_a_long_request_stops_nobody(what: str) -> None:
    assert await longest_turn("/api/chat", BODIES[what]()) < MOST


@both_lanes
async def test_a_long_compressed_request_stops_nobody() -> None:
    body = zstandard.compress(BODIES["60 MB of chat"]()[: 18 * MIB])
    assert await longest_turn("/v1/responses", body, "Content-Encoding: zstd") < MOST
    frames = zstandard.compress(b"") * (8 * MIB // 9)
    assert await longest_turn("/v1/responses", frames, "Content-Encoding: zstd") < MOST


@both_lanes
async def test_a_long_form_stops_nobody() -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"\n--a" * (5 * MIB)
    body += b'\r\n--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--b--\r\n'
    assert await longest_turn("/v1/audio/transcriptions", body, "Content-Type: multipart/form-data; boundary=b") < MOST


@both_lanes
async def test_a_long_request_to_pull_stops_nobody() -> None:
    assert await longest_turn("/api/pull", BODIES["a 20 MB image"]()) < MOST


@pytest.mark.parametrize("piece", [b"\n", b'{"done":true}\n', b'{"error":"x"}\n', b'data: {"error":""}\n\n'])
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
async def test_a_long_answer_stops_nobody(path: str, piece: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    pieces = [head, *[piece * (MIB // len(piece)), b"x"] * 2]
    for stream in (True, False):
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": stream}).encode()
        assert await longest_turn(path, body, answer=pieces) < MOST
