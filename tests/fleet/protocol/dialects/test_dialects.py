from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.common import errors
from fleet.protocol.dialects import (
    ANTHROPIC,
    NATIVE,
    OPENAI,
    Dialect,
    by_name,
    dialect_of,
    missing_model_text,
    use_structured,
)
from fleet.protocol.dialects.text import LONGEST

DIALECTS = [NATIVE, OPENAI, ANTHROPIC]


def _all_errors(of: type[errors.FleetError] = errors.FleetError) -> Iterator[type[errors.FleetError]]:
    for kind in of.__subclasses__():
        if kind.__module__ == errors.__name__:  # others may have loaded modules with errors of their own shape
            yield kind
        yield from _all_errors(kind)


def make(kind: type[errors.FleetError], message: str = "went wrong") -> errors.FleetError:
    if issubclass(kind, errors.BackendError):
        return kind(message, errors.Phase.HEADERS)
    return kind(message, details="do better")


def render(dialect: Dialect, error: errors.FleetError, structured: bool = False) -> dict[str, object]:
    body = dialect.error(error, structured=structured, request_id="r1", timestamp="2026-01-01T00:00:00.000Z")
    assert body.content_type.startswith(b"application/json")
    assert b"\n" not in body.body
    assert body.body.isascii()
    value = json.loads(body.body)
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("kind", list(_all_errors()))
def test_every_error_has_a_body_in_every_dialect(kind: type[errors.FleetError]) -> None:
    error = make(kind)
    assert render(NATIVE, error) == {"error": "went wrong"}
    openai = render(OPENAI, error)["error"]
    assert isinstance(openai, dict)
    assert set(openai) == {"message", "type", "param", "code"}
    anthropic = render(ANTHROPIC, error)
    assert (anthropic["type"], anthropic["request_id"]) == ("error", "r1")


def test_structured_native_errors_carry_code_reason_and_details() -> None:
    assert render(NATIVE, make(errors.QueueFull), structured=True) == {
        "error": {
            "code": "SERVICE_UNAVAILABLE",
            "message": "went wrong",
            "details": "do better",
            "reason": "QUEUE_FULL",
            "timestamp": "2026-01-01T00:00:00.000Z",
        }
    }


@pytest.mark.parametrize(
    ("kind", "openai", "code", "anthropic"),
    [
        (errors.BadRequest, "invalid_request_error", None, "invalid_request_error"),
        (errors.TooLarge, "invalid_request_error", "body_too_large", "request_too_large"),
        (errors.Unauthorized, "authentication_error", "unauthorized", "authentication_error"),
        (errors.ModelNotFound, "not_found_error", "model_not_found", "not_found_error"),
        (errors.QueueFull, "api_error", "queue_full", "overloaded_error"),
        (errors.BackendBroke, "api_error", "backend_broke", "api_error"),
        (errors.QueueTimeout, "api_error", "queue_timeout", "timeout_error"),
        (errors.FleetError, "api_error", None, "api_error"),
    ],
)
def test_the_type_follows_from_the_status(
    kind: type[errors.FleetError], openai: str, code: str | None, anthropic: str
) -> None:
    error = make(kind)
    assert render(OPENAI, error)["error"] == {"message": "went wrong", "type": openai, "param": None, "code": code}
    assert render(ANTHROPIC, error)["error"] == {"type": anthropic, "message": "went wrong"}


def test_stream_errors_are_framed_as_the_dialect_frames() -> None:
    error = make(errors.IdleTimeout)
    assert NATIVE.stream_error(error, request_id="r", sse=False) == b'{"error":"went wrong"}\n'
    assert NATIVE.stream_error(error, request_id="r", sse=True) == b'data: {"error":"went wrong"}\n\n'
    openai = OPENAI.stream_error(error, request_id="r", sse=True)
    assert openai.startswith(b'data: {"error":{"message":"went wrong"')
    assert openai.endswith(b"}\n\n")
    anthropic = ANTHROPIC.stream_error(error, request_id="r", sse=True)
    assert anthropic.startswith(b'event: error\ndata: {"type":"error","error":{')
    assert anthropic.endswith(b'"request_id":"r"}\n\n')


@given(
    st.text() | st.sampled_from(["503", "null", "NaN", "-Infinity", " true ", '{"a":1}', '"x"', "[]", "", "\n", "1e5"])
)
def test_a_native_error_is_one_line_and_never_json_by_itself(message: str) -> None:
    error = errors.FleetError(message)
    text = render(NATIVE, error)["error"]
    assert isinstance(text, str)
    assert len(text.splitlines()) == 1
    assert text.strip()
    assert text.isprintable() or not text.isascii()
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    record = NATIVE.stream_error(error, request_id="", sse=False)
    assert record.decode().splitlines(keepends=True) == [record.decode()]


@given(st.text() | st.just("x" * 100_000) | st.just("\ud800\u2028\u2029\x85\x00\x1b"))
def test_no_message_breaks_the_framing(message: str) -> None:
    for dialect in DIALECTS:
        event = dialect.stream_error(errors.FleetError(message), request_id="r", sse=True)
        lines = event.decode("ascii").splitlines()
        assert lines[-1] == ""
        assert json.loads(lines[-2].removeprefix("data: "))
        assert len(event) < 6 * LONGEST + 200


def test_long_messages_are_cut() -> None:
    text = render(NATIVE, errors.FleetError("x" * 100_000))["error"]
    assert isinstance(text, str)
    assert len(text) == LONGEST


@pytest.mark.parametrize(
    ("mode", "agent", "structured"),
    [
        ("structured", "ollama/0.33.0 (amd64 linux) Go/go1.26", True),
        ("ollama", "curl/8", False),
        ("auto", "curl/8", True),
        ("auto", "", False),
        ("auto", "CURL/7.1", True),
        ("auto", "Wget/1.21.3", True),
        ("auto", "python-requests/2.31.0", True),
        ("auto", "axios/1.6.8", True),
        ("auto", "PostmanRuntime/7.36.0", True),
        ("auto", "Python/3.11 aiohttp/3.9.5", False),
        ("auto", "node", False),
        ("auto", "undici", False),
        ("auto", "okhttp/4.12.0", False),
        ("auto", "Go-http-client/1.1", False),
        ("auto", "Mozilla/5.0 (X11; Linux x86_64) curl/8", False),
        ("auto", "curling/1", False),
        ("auto", "x" * 1_000_000 + "curl/8", False),
        ("auto", "ollama/0.33.0 (amd64 linux) Go/go1.26", False),
        ("auto", "ollama-python/0.6.3 (x86_64 linux) Python/3.12", False),
        ("auto", "ollama-js/0.6.4 (x64 linux Node.js/v22)", False),
        ("auto", "my ollama/1", False),
    ],
)
def test_only_the_tools_of_the_references_examples_get_objects(mode: str, agent: str, structured: bool) -> None:
    assert use_structured(mode, agent) is structured


@pytest.mark.parametrize(
    ("mode", "agent", "asked", "structured"),
    [
        ("auto", "", "structured", True),
        ("auto", "ollama-python/0.6.3", " Structured ", True),
        ("auto", "curl/8", "ollama", False),
        ("auto", "curl/8", "nonsense", True),
        ("auto", "okhttp/4", "nonsense", False),
        ("ollama", "", "structured", False),
        ("structured", "", "ollama", True),
    ],
)
def test_who_asks_for_a_shape_gets_it_unless_the_configuration_fixes_one(
    mode: str, agent: str, asked: str, structured: bool
) -> None:
    assert use_structured(mode, agent, asked) is structured


def test_the_details_of_an_error_are_never_empty() -> None:
    error = errors.QueueFull("no room")
    for details in ("", " ", "\n"):
        error.details = details
        assert render(NATIVE, error, structured=True)["error"]["details"] == "no room"  # type: ignore[index]


@pytest.mark.parametrize(
    ("path", "asked", "text"),
    [
        ("/api/chat", "none", "model 'none' not found"),
        ("/api/generate", "None:x", "model 'None:x' not found"),
        ("/v1/chat/completions", "none", "model 'none' not found"),
        ("/api/embed", "none", 'model "none" not found, try pulling it first'),
        ("/api/embeddings", "none", 'model "none" not found, try pulling it first'),
        ("/v1/embeddings", 'a"b', 'model "a\\"b" not found, try pulling it first'),
        ("/api/embed", "", "model '' not found"),
        ("/api/show", "none", "model 'none:latest' not found"),
        ("/v1/models/none", "none", "model 'none:latest' not found"),
        ("/api/copy", "none", 'model "none" not found'),
        ("/api/delete", "none", "model 'none' not found"),
    ],
)
def test_a_missing_model_is_reported_in_ollamas_words(path: str, asked: str, text: str) -> None:
    assert missing_model_text(path, asked) == text
    assert render(NATIVE, errors.ModelNotFound(text))["error"] == text


def test_dialects_are_found_by_name_and_by_path() -> None:
    assert [by_name(dialect.name) for dialect in DIALECTS] == DIALECTS
    with pytest.raises(KeyError):
        by_name("latin")
    assert dialect_of("/v1/messages/count_tokens") is ANTHROPIC
    assert dialect_of("/v1/anything") is OPENAI
    assert dialect_of("/api/chat") is NATIVE
