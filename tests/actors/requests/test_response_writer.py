"""How an answer ends when its backend does not end it."""

from __future__ import annotations

import dataclasses

import pytest

from actors.requests.response_writer import ResponseWriter
from fleet.common.errors import BackendBroke, Phase
from fleet.protocol.dialects import ANTHROPIC, NATIVE, OPENAI
from fleet.protocol.dialects.base import Dialect
from tests.kit.fleets.fleet import Client, chat

ERROR = BackendBroke("the backend broke off", Phase.BODY)


class Response:
    status = 200

    def __init__(self, content_type: bytes) -> None:
        self.passing = ((b"content-type", content_type),)
        self.length = None


async def broken(
    dialect: Dialect, body: bytes, *, content_type: bytes = b"application/x-ndjson", sse: bool = False
) -> Client:
    client = Client()
    answer = ResponseWriter(dataclasses.replace(chat(), dialect=dialect, sse=sse), client, 5.0)
    await answer.start(Response(content_type), [])  # type: ignore[arg-type]
    await answer.write(body)
    await answer.break_off(ERROR)
    return client


@pytest.mark.parametrize("body", [b'{"a":1}\n', b'{"a":1}\n{"message":{"cont'])
async def test_a_native_stream_gets_its_error_on_a_line_of_its_own_and_never_a_blank_line(body: bytes) -> None:
    client = await broken(NATIVE, body)
    lines = client.body.split(b"\n")
    assert lines[-2].startswith(b'{"error":"')
    assert lines[-1] == b""
    assert b"" not in lines[:-1]
    assert client.finished


@pytest.mark.parametrize(("dialect", "start"), [(OPENAI, b"data: {"), (ANTHROPIC, b"event: error\ndata: {")])
async def test_an_event_stream_gets_its_error_as_an_event_of_its_own(dialect: Dialect, start: bytes) -> None:
    client = await broken(dialect, b'data: {"choices":[{"del', content_type=b"text/event-stream")
    assert client.body.split(b"\n\n")[-2].startswith(start)
    assert client.finished


async def test_a_reframed_stream_drops_the_cut_record_and_ends_with_an_error_event() -> None:
    client = await broken(NATIVE, b'{"a":1}\n{"b":', sse=True)
    assert client.headers["content-type"] == "text/event-stream"
    events = client.body.split(b"\n\n")
    assert events[0] == b'data: {"a":1}'
    assert events[1].startswith(b'data: {"error":"')
    assert events[2:] == [b""]


async def test_an_answer_in_one_piece_is_cut_off() -> None:
    client = Client()
    answer = ResponseWriter(chat(stream=False), client, 5.0)
    await answer.start(Response(b"application/json"), [])  # type: ignore[arg-type]
    await answer.break_off(ERROR)
    assert client.aborted
    assert not client.finished
