"""Whether a 200 is an answer of its endpoint, by its type and first bytes."""

from __future__ import annotations

import pytest

from fleet.protocol.answer_check import ended, is_error, media_of, strange_document, strange_stream
from fleet.protocol.endpoints import ENDPOINTS

JSON, NDJSON, SSE, HTML = b"application/json", b"application/x-ndjson", b"text/event-stream", b"text/html"

GOOD: dict[str, bytes] = {
    "/api/chat": b'{"model":"m","message":{"role":"assistant","content":"x"},"done":true}',
    "/api/generate": b'{"model":"m","response":"x","done":true}',
    "/api/embed": b'{"model":"m","embeddings":[[0.1]]}',
    "/api/embeddings": b'{"embedding":[0.1]}',
    "/api/show": b'{"license":"MIT","details":{"format":"gguf"}}',
    "/v1/chat/completions": b'{"id":"x","choices":[]}\n',
    "/v1/completions": b'{"id":"x","choices":[{"text":"x"}]}\n',
    "/v1/embeddings": b'{"object":"list","data":[]}\n',
    "/v1/responses": b'{"id":"resp_1","output":[]}\n',
    "/v1/messages": b'{"id":"msg_1","type":"message","content":[]}\n',
    "/v1/audio/transcriptions": b'{"text":"hello"}',
}
STRANGE: list[tuple[bytes, bytes]] = [
    (JSON, b""),
    (JSON, b"  \n"),
    (HTML, b"<html>login please</html>"),
    (JSON, b"<!DOCTYPE html><html></html>"),
    (b"", b"<html></html>"),
    (HTML, b"login please"),
    (JSON, b"[]"),
    (JSON, b"null"),
    (JSON, b"true"),
    (JSON, b'"ok"'),
    (JSON, b"please log in"),
    (b"text/plain", b"please log in"),
    (JSON, b'{"foo":1}'),
    (JSON, b"{}"),
    (JSON, b'{"status":"ok"}'),
    (JSON, b'{"message":"please log in"}'),
    (JSON, b'{"detail":"not here"}'),
    (JSON, b'{"model":"m","mess'),
    (JSON, b'{"a":' * 2000),
]  # fmt: skip


def test_every_endpoint_has_an_answer_here() -> None:
    assert GOOD.keys() == ENDPOINTS.keys()


@pytest.mark.parametrize("path", GOOD)
def test_an_answer_of_the_endpoint_is_one_and_half_of_it_is_not(path: str) -> None:
    body = GOOD[path]
    assert not strange_document(path, JSON, body, complete=True)
    assert not strange_document(path, JSON, b"\n  " + body.replace(b":", b" : "), complete=True)
    assert strange_document(path, JSON, body.rstrip()[:-1], complete=True)


@pytest.mark.parametrize(("media", "body"), STRANGE)
@pytest.mark.parametrize("path", GOOD)
def test_what_is_no_answer_of_any_endpoint(path: str, media: bytes, body: bytes) -> None:
    spoken = path == "/v1/audio/transcriptions" and media == b"text/plain"
    assert bool(strange_document(path, media, body, complete=True)) is not spoken


@pytest.mark.parametrize("value", [b"null", b'""', b"[]", b"{}", b"-1", b"1.5", b"true", b"[null]"])
@pytest.mark.parametrize("word", ["model_info", "modelfile", "capabilities"])
def test_a_description_is_known_by_its_own_words_whatever_they_are_set_to(word: str, value: bytes) -> None:
    """A field of a wrong type is mended, and no reason to say that the server has answered something else."""
    assert not strange_document("/api/show", JSON, b'{"%b":%b}' % (word.encode(), value), complete=True)


@pytest.mark.parametrize("body", [b'{"details":"not here"}', b'{"details":[]}', b'{"license":5}', b'{"template":{}}'])
def test_words_that_others_use_too_make_no_description(body: bytes) -> None:
    assert strange_document("/api/show", JSON, body, complete=True)


@pytest.mark.parametrize("path", GOOD)
def test_an_answer_of_another_endpoint_is_none_of_this_one(path: str) -> None:
    other = b'{"models":[]}' if path != "/api/show" else GOOD["/api/embed"]
    assert strange_document(path, JSON, other, complete=True)


@pytest.mark.parametrize(("media", "body"), [pair for pair in STRANGE if pair[1] != b'{"model":"m","mess'])
@pytest.mark.parametrize(("path", "native"), [("/api/chat", True), ("/v1/chat/completions", False)])
def test_a_stream_that_begins_with_something_else(path: str, native: bool, media: bytes, body: bytes) -> None:
    assert strange_stream(path, media, body, native=native, complete=True)


@pytest.mark.parametrize(
    ("path", "media", "begin", "complete"),
    [
        ("/api/chat", NDJSON, b'{"model":"m","created_at":"x"', False),
        ("/api/chat", NDJSON, b"{", False),
        ("/api/chat", b"", b'{"message":{"content":"a"}}', False),
        ("/api/chat", NDJSON, b'{"done":false}\n', False),
        ("/api/chat", NDJSON, b'{"message":{}}\n{"x":"\xff"}\n{"done":true}\n', True),
        ("/api/chat", JSON, b'{\n  "message": {},\n  "done": true\n}', True),
        ("/v1/chat/completions", SSE, b"d", False),
        ("/v1/chat/completions", SSE, b'data: {"x"', False),
        ("/v1/chat/completions", SSE, b": comment\n\n", False),
        ("/v1/chat/completions", SSE, b"\n\ndata: {}\n\n", False),
        ("/v1/messages", SSE, b"event: message_start\n", False),
        ("/v1/chat/completions", JSON, b'{"choices":[]}', True),
    ],
)
def test_beginnings_of_streams(path: str, media: bytes, begin: bytes, complete: bool) -> None:
    assert not strange_stream(path, media, begin, native=path.startswith("/api/"), complete=complete)


BOM = b"\xef\xbb\xbf"
NEVER_LISTED = [
    b"Infinity",
    b"-Infinity",
    b"NaN",
    b"1e999",
    b"9" * 3000,
    b'"\\ud83d"',
    b'"\xff\xc3"',
    b'"a\tb\nc"',
    b"[" * 99 + b"]" * 99,
]


@pytest.mark.parametrize("value", NEVER_LISTED)
@pytest.mark.parametrize("path", GOOD)
def test_what_generous_readers_take_is_an_answer_and_half_of_it_is_none(path: str, value: bytes) -> None:
    body = b'{"x":' + value + b"," + GOOD[path].strip()[1:]
    for whole in (body, body + b"\r\n", BOM + body, b" \r\n\t" + body + b" \n"):
        assert not strange_document(path, JSON, whole, complete=True)
        assert not strange_document(path, b"", whole, complete=True)
    assert strange_document(path, JSON, body[:-1], complete=True)
    assert strange_document(path, JSON, b'{"x":' + value + b"}", complete=True)


@pytest.mark.parametrize("path", GOOD)
def test_a_field_may_be_anywhere_and_the_beginning_of_a_long_answer_may_lack_it(path: str) -> None:
    huge = b'{"x":"' + b"y" * 70_000
    assert not strange_document(path, JSON, huge, complete=False)
    assert not strange_document(path, JSON, huge + b'",' + GOOD[path].strip()[1:], complete=True)
    assert not strange_document(path, JSON, b" " * 70_000, complete=False)


@pytest.mark.parametrize(("path", "native"), [("/api/chat", True), ("/v1/chat/completions", False)])
def test_no_place_to_cut_a_stream_makes_it_strange(path: str, native: bool) -> None:
    record = GOOD[path].strip()
    for lead in (b"", BOM, b"\r\n", b"\n\n "):
        stream = lead + (record if native else b": hello\r\n\r\nid: 1\r\ndata: " + record) + b"\r\n\r\n"
        for place in range(1, len(stream)):
            assert not strange_stream(path, NDJSON if native else SSE, stream[:place], native=native, complete=False)


@pytest.mark.parametrize("body", [b"", b"\n", b"<unk> well", b"<|en|>", b"1\n00:00:00,000 --> 00:00:01,000\nHi\n"])
@pytest.mark.parametrize("media", [b"text/plain", b"text/vtt", b"application/x-subrip"])
def test_what_was_said_may_be_any_text_or_none(media: bytes, body: bytes) -> None:
    assert not strange_document("/v1/audio/transcriptions", media, body, complete=True)
    assert strange_document("/v1/audio/transcriptions", media, b" <!DOCTYPE html><p>", complete=True)


@pytest.mark.parametrize("body", [b'{"error":null}', b'{"x":1,"error":null}'])
def test_an_error_that_is_none_is_no_answer(body: bytes) -> None:
    assert strange_document("/api/chat", JSON, body, complete=True)


@pytest.mark.parametrize(
    ("begin", "error"),
    [
        (b'{"error":"x"}\n', True),
        (b'data: {"error":{"message":"x"}}\n\n', True),
        (b"event: error\n", True),
        (b"event:error\n", True),
        (b'{ "error": "x" }', True),
        (b'{\r\n  "error" : {\r\n    "message": "x"', True),
        (b'data:{"error":{"message":"x"}}\n\n', True),
        (b'{"type": "error", "error": {}}', True),
        (b'{"error":null,"done":false}\n', False),
        (b'{ "error" : null }', False),
        (b'{"errors":1}', False),
        (b"event: errors\n", False),
        (b'{"model":"m"}', False),
    ],
)
def test_an_error_at_the_beginning_of_a_200(begin: bytes, error: bool) -> None:
    assert is_error(begin) is error


def test_the_end_of_events_is_told_by_a_reason_too() -> None:
    assert ended(b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n')
    assert ended(b'event: response.failed\ndata: {"type":"response.failed"}\n\n')
    assert not ended(b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":null}]}\n\n')
    assert not ended(b"")


def test_the_type_of_a_body_without_its_parameters() -> None:
    assert media_of([(b"x", b"y"), (b"content-type", b"Text/HTML; charset=utf-8")]) == HTML
    assert media_of([]) == b""
