"""Answers that end without an end mark, in pieces that are read one by one: whole all the same."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from tests.kit.clients.edge import browser, in_front_of
from tests.kit.clients.lanes import LANES
from tests.kit.clients.raw import request_bytes

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
SSE, JSON, NDJSON = b"text/event-stream", b"application/json", b"application/x-ndjson"
STOP = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
CHAT = "/v1/chat/completions"
CASES: list[tuple[str, bytes, Sequence[bytes]]] = [
    (CHAT, SSE, [STOP, b"\n"]),
    (CHAT, SSE, [STOP + b"\n", USAGE[:40], USAGE[40:]]),
    (CHAT, SSE, [STOP[:50], STOP[50:], b"\n", USAGE, b": bye\n\n"]),
    (CHAT, SSE, [bytes([each]) for each in STOP + b"\n"]),
    (CHAT, SSE, [b"\n", b": hello\n\n", STOP + b"\n"]),
    (CHAT, JSON, [b'{"choices":[{"message":{}}]}', b"\n", b" "]),
    (CHAT, JSON, [b"\xef\xbb\xbf", b'{"choices":[{"message":{}}]}', b"\r\n"]),
    ("/api/chat", NDJSON, [b"\r\n", b'{"message":{},"done":false}', b"\r\n"]),
    ("/api/chat", NDJSON, [b'{"message":{},"done":false}', b"\r", b"\n"]),
]


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize(("path", "media", "pieces"), CASES)
async def test_an_answer_is_whole_however_its_end_comes_in_pieces(
    lane: str, path: str, media: bytes, pieces: Sequence[bytes]
) -> None:
    arrived = [trio.Event() for _ in pieces]
    script: list[bytes | trio.Event] = [HEAD % media]
    for piece, event in zip(pieces, arrived, strict=True):
        script += [b"%x\r\n%b\r\n" % (len(piece), piece), event]
    async with in_front_of(lambda head, body: [*script, b"0\r\n\r\n"]) as (fleet, _):
        client = await browser(fleet.lanes[lane])
        await client.send(
            request_bytes("POST", path, {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True})
        )
        taken = await told_one_by_one(client.stream, pieces, arrived)
        client.data = taken
        reply = await client.answer("POST")
        assert (reply.status, reply.body) == (200, b"".join(pieces))
        await client.stream.aclose()
        await fleet.until_idle()


async def told_one_by_one(stream: trio.abc.Stream, pieces: Sequence[bytes], arrived: Sequence[trio.Event]) -> bytes:
    """Read what comes; the backend goes on only when its last piece has come as a chunk of its own."""
    data = b""
    with trio.fail_after(20):
        for piece, event in zip(pieces, arrived, strict=True):
            seen = len(data)
            while not data[seen:].endswith(b"%x\r\n%b\r\n" % (len(piece), piece)):
                data += bytes(await stream.receive_some(65536))
            event.set()
    return data
