from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.protocol.dialects import ANTHROPIC, NATIVE, OPENAI, Dialect, Statistics
from fleet.protocol.dialects.stream_taps import KEPT, TAIL, LineTap

DONE = {
    "model": "m",
    "done": True,
    "done_reason": "stop",
    "total_duration": 3_000_000_000,
    "load_duration": 500_000_000,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 250_000_000,
    "eval_count": 298,
    "eval_duration": 2_000_000_000,
}
TIMES = {"load_seconds": 0.5, "prompt_seconds": 0.25, "output_seconds": 2.0, "total_seconds": 3.0}


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def watch(dialect: Dialect, *pieces: bytes, stream: bool = True) -> Statistics:
    tap = dialect.tap(stream=stream)
    for piece in pieces:
        tap.feed(piece)
    tap.close()
    return tap.stats


def chunk(text: str) -> bytes:
    return compact({"model": "m", "message": {"role": "assistant", "content": text}, "done": False}) + b"\n"


def event(value: object, name: str = "") -> bytes:
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + compact(value) + b"\n\n"


NATIVE_STREAM = chunk("Hel") + chunk('lo "done":true') + compact(DONE) + b"\n"
OPENAI_STREAM = (
    event({"choices": [{"delta": {"role": "assistant"}}]})
    + b": heartbeat\n\n"
    + event({"choices": [{"delta": {"content": "data: x\n\ndata: y"}, "finish_reason": None}]})
    + event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    + event({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}})
    + b"data: [DONE]\n\n"
)
RESPONSES_STREAM = (
    event({"type": "response.created"}, "response.created")
    + event({"delta": "hi", "type": "response.output_text.delta"}, "response.output_text.delta")
    + event(
        {
            "response": {"output": ["x" * 100_000], "usage": {"input_tokens": 7, "output_tokens": 3}},
            "type": "response.completed",
        },
        "response.completed",
    )
)
ANTHROPIC_STREAM = (
    event({"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 0}}}, "message_start")
    + event({"type": "ping"}, "ping")
    + event({"type": "content_block_delta", "delta": {"text": "event: error"}}, "content_block_delta")
    + event({"type": "message_delta", "usage": {"input_tokens": 12, "output_tokens": 5}}, "message_delta")
    + event({"type": "message_stop"}, "message_stop")
)
STREAMS: list[tuple[Dialect, bytes]] = [
    (NATIVE, NATIVE_STREAM),
    (NATIVE, chunk("a") + b'{"error":"boom"}\n'),
    (NATIVE, chunk("a") + NATIVE_STREAM.rstrip(b"\n")),
    (OPENAI, OPENAI_STREAM),
    (OPENAI, OPENAI_STREAM.replace(b"\n", b"\r\n")),
    (OPENAI, RESPONSES_STREAM),
    (OPENAI, event({"error": {"message": "boom"}})),
    (ANTHROPIC, ANTHROPIC_STREAM),
    (ANTHROPIC, event({"type": "error", "error": {"type": "api_error", "message": "boom"}}, "error")),
]


def test_a_native_stream() -> None:
    stats = watch(NATIVE, NATIVE_STREAM)
    assert asdict(stats) == {
        "chunks": 3,
        "prompt_tokens": 26,
        "output_tokens": 298,
        "finished": True,
        "error": None,
        **TIMES,
    }


def test_a_native_stream_whose_last_line_is_longer_than_what_is_kept() -> None:
    record = {"model": "m", "response": "", "done": True, "context": list(range(40_000)), **DONE}
    stats = watch(NATIVE, chunk("a"), compact(record) + b"\n")
    assert (stats.finished, stats.chunks, stats.prompt_tokens, stats.total_seconds) == (True, 2, 26, 3.0)


def test_a_stream_that_just_stops_is_not_finished() -> None:
    stats = watch(NATIVE, chunk("a"), chunk("b"))
    assert (stats.finished, stats.error, stats.chunks) == (False, None, 2)


def test_a_tool_call_that_says_done_does_not_end_the_stream() -> None:
    call = {"message": {"tool_calls": [{"function": {"arguments": {"done": True, "eval_count": 7}}}]}, "done": False}
    stats = watch(NATIVE, compact(call) + b"\n")
    assert (stats.finished, stats.output_tokens) == (False, None)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'{"error":"boom"}', "boom"),
        (b'{"error":"two\\nlines"}', "two lines"),
        (b'{"error":{"message":"boom"}}', '{"error":{"message":"boom"}}'),
        (b'{"error":', '{"error":'),
        (b'{"error":""}', "internal error"),
    ],
)
def test_an_error_line_is_remembered(line: bytes, text: str) -> None:
    for stream in (True, False):
        stats = watch(NATIVE, line, stream=stream)
        assert (stats.error, stats.finished) == (text, False)


def test_native_answers_that_are_not_streamed() -> None:
    assert watch(NATIVE, compact({"response": "x" * 200_000, **DONE}), stream=False).total_seconds == 3.0
    assert watch(NATIVE, compact({"response": "x", **DONE}), stream=False).finished
    embeddings = {"model": "m", "embeddings": [[0.1] * 30_000], "total_duration": 3_000_000_000, "prompt_eval_count": 8}
    stats = watch(NATIVE, compact(embeddings), stream=False)
    assert (stats.finished, stats.chunks, stats.prompt_tokens, stats.total_seconds) == (True, 1, 8, 3.0)
    assert watch(NATIVE, compact({"embedding": [0.5] * 5}), stream=False).finished
    assert not watch(NATIVE, compact({"response": "x", "done": False}), stream=False).finished
    assert not watch(NATIVE, compact({"embeddings": [[0.1] * 30_000]})[:-5], stream=False).finished
    assert watch(NATIVE, stream=False) == Statistics()


def test_a_load_reply_ends_a_native_stream_without_a_newline() -> None:
    assert watch(NATIVE, b'{"model":"m","response":"","done":true,"done_reason":"load"}').finished


@pytest.mark.parametrize(
    "record",
    [
        b'{"done":true,"eval_count":"7"}',
        b'{"done":true,"eval_count":-7,"total_duration":-1}',
        b'{"done":true,"eval_count":1e400}',
        b'{"done":true,"eval_count":' + b"9" * 5000 + b"}",
        b'{"done":true,"x":' + b"[" * 20_000,
        b'{"done":true',
    ],
)
def test_rubbish_statistics_are_ignored(record: bytes) -> None:
    stats = watch(NATIVE, record + b"\n")
    assert stats.output_tokens is None
    assert stats.total_seconds is None


def test_an_openai_stream() -> None:
    stats = watch(OPENAI, OPENAI_STREAM)
    assert (stats.chunks, stats.prompt_tokens, stats.output_tokens, stats.finished) == (4, 11, 4, True)


def test_an_openai_stream_without_done_is_not_finished() -> None:
    assert not watch(OPENAI, OPENAI_STREAM.removesuffix(b"data: [DONE]\n\n")).finished


def test_a_responses_stream_ends_with_response_completed() -> None:
    stats = watch(OPENAI, RESPONSES_STREAM)
    assert (stats.chunks, stats.prompt_tokens, stats.output_tokens, stats.finished) == (3, 7, 3, True)


def test_openai_answers_that_are_not_streamed() -> None:
    usage = {"prompt_tokens": 11, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 0}}
    for content in ("x", "x" * 200_000):
        stats = watch(OPENAI, compact({"choices": [content], "usage": usage}) + b"\n", stream=False)
        assert (stats.chunks, stats.prompt_tokens, stats.output_tokens, stats.finished) == (1, 11, 4, True)
    stats = watch(OPENAI, compact({"error": {"message": "boom"}}), stream=False)
    assert (stats.error, stats.finished) == ("boom", False)
    assert not watch(OPENAI, b'{"choices":', stream=False).finished


@pytest.mark.parametrize(
    "body", [event({"error": {"message": "boom"}}), compact({"error": {"message": "boom"}}) + b"\n"]
)
def test_an_error_where_openai_events_were_expected(body: bytes) -> None:
    assert watch(OPENAI, body).error == "boom"


def test_an_anthropic_stream() -> None:
    stats = watch(ANTHROPIC, ANTHROPIC_STREAM)
    assert (stats.chunks, stats.prompt_tokens, stats.output_tokens) == (5, 12, 5)
    assert (stats.finished, stats.error) == (True, None)


def test_an_anthropic_error_event() -> None:
    body = event({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}, "error")
    assert watch(ANTHROPIC, body).error == "busy"
    assert watch(ANTHROPIC, body.split(b"data: ")[1].strip(), stream=False).error == "busy"


def test_anthropic_answers_that_are_not_streamed() -> None:
    stats = watch(ANTHROPIC, compact({"content": [], "usage": {"input_tokens": 3, "output_tokens": 2}}), stream=False)
    assert (stats.prompt_tokens, stats.output_tokens, stats.finished) == (3, 2, True)


@settings(deadline=None)
@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 2**17), max_size=12))
def test_what_a_tap_finds_does_not_depend_on_the_splits(case: tuple[Dialect, bytes], cuts: list[int]) -> None:
    dialect, body = case
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    pieces = [body[start:end] for start, end in pairwise(edges)]
    assert watch(dialect, *pieces) == watch(dialect, body)


@pytest.mark.parametrize(("dialect", "body"), [case for case in STREAMS if len(case[1]) < 5000])
def test_single_bytes_give_the_same_answer(dialect: Dialect, body: bytes) -> None:
    assert watch(dialect, *(body[at : at + 1] for at in range(len(body)))) == watch(dialect, body)


@given(st.sampled_from([NATIVE, OPENAI, ANTHROPIC]), st.booleans(), st.lists(st.binary(max_size=50)))
def test_rubbish_never_raises(dialect: Dialect, stream: bool, pieces: list[bytes]) -> None:
    watch(dialect, *pieces, stream=stream)


@pytest.mark.parametrize("dialect", [NATIVE, OPENAI, ANTHROPIC])
@pytest.mark.parametrize("stream", [True, False])
def test_memory_is_bounded(dialect: Dialect, stream: bool) -> None:
    tap = dialect.tap(stream=stream)
    assert isinstance(tap, LineTap)
    for size in (1, 100, 10_000, 5_000_000, 3, TAIL, KEPT):
        for _ in range(20):
            tap.feed(b"x" * size)
            assert len(tap._line) <= KEPT
