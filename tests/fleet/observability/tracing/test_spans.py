"""The span tree of a finished request, as a table of requests."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from actors.state.messages import RequestRecord, Try
from fleet.observability.tracing.spans import Span, tree, waits
from fleet.observability.tracing.trace_context import Parent, Trace

OFFSET = 1_000_000.0
ADDRESSES = {"a": ("10.0.0.1", 11434)}


def trace(parent: Parent | None = None, attempts: int = 0, **named: Any) -> Trace:
    numbers: Iterator[int] = count(1)
    made = Trace(parent, 99, 1, lambda: next(numbers), dialect="native", **named)
    for _ in range(attempts):
        made.attempt()
    return made


def record(*tries: Try, **named: Any) -> RequestRecord:
    base: dict[str, Any] = {
        "request_id": "r1",
        "endpoint": "/api/chat",
        "model": "m:latest",
        "client": "",
        "server": tries[-1].server if tries else "",
        "outcome": tries[-1].outcome if tries else "queue_timeout",
        "status": 200 if tries else 504,
        "attempts": len(tries),
        "queue_seconds": 0.0,
        "first_byte_seconds": None,
        "total_seconds": 5.0,
        "chunks": 0,
        "prompt_tokens": 6,
        "output_tokens": 7,
        "stream": True,
        "began": 10.0,
    }
    return RequestRecord(**{**base, **named}, tries=tries)


def made(done: RequestRecord, place: Trace) -> list[Span]:
    return tree(done, place, OFFSET, ADDRESSES)


def seconds(span: Span) -> tuple[float, float]:
    return span.start / 1e9 - OFFSET, span.end / 1e9 - OFFSET


def test_a_plain_request() -> None:
    place = trace(attempts=1, asked_model="m")
    whole, queue, attempt = made(record(Try("a", "completed", 11.0, 12.0, 15.0)), place)
    assert (whole.name, whole.kind, whole.span_id, whole.parent) == ("POST /api/chat", "server", 1, None)
    assert whole.attributes["http.response.status_code"] == 200
    assert not whole.failed
    assert seconds(whole) == (10.0, 15.0)
    assert (queue.name, queue.parent, seconds(queue)) == ("queue", 1, (10.0, 11.0))
    assert (attempt.name, attempt.kind, attempt.span_id, attempt.parent) == ("chat m", "client", 2, 1)
    assert seconds(attempt) == (11.0, 15.0)
    assert attempt.events == (("first token", round((12.0 + OFFSET) * 1e9)),)
    assert attempt.attributes == {
        "http.request.method": "POST",
        "fleet.server": "a",
        "fleet.attempt": 1,
        "fleet.outcome": "completed",
        "gen_ai.provider.name": "ollama",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m:latest",
        "gen_ai.usage.input_tokens": 6,
        "gen_ai.usage.output_tokens": 7,
        "server.address": "10.0.0.1",
        "server.port": 11434,
        "http.response.status_code": 200,
    }


def test_a_failover_is_two_attempts_with_their_own_words() -> None:
    tries = (Try("a", "refused_503", 10.0, None, 11.0), Try("gone", "completed", 11.5, 12.0, 15.0))
    whole, *below = made(record(*tries, queue_seconds=0.5), trace(Parent(99, 55, 1), attempts=2))
    assert whole.parent == 55
    assert [span.name for span in below] == ["queue", "queue", "chat m:latest", "chat m:latest"]
    assert [seconds(span) for span in below[:2]] == [(10.0, 10.0), (11.0, 11.5)]
    first, second = below[2:]
    assert (first.failed, first.attributes["error.type"], first.attributes["http.response.status_code"]) == (
        True,
        "refused_503",
        503,
    )
    assert "gen_ai.usage.output_tokens" not in first.attributes
    assert "server.address" not in second.attributes, "it is not there any more"
    assert (second.failed, second.attributes["fleet.attempt"]) == (False, 2)


def test_nobody_was_found() -> None:
    whole, queue = made(record(), trace())
    assert (whole.failed, whole.attributes["error.type"]) == (True, "queue_timeout")
    assert seconds(queue) == (10.0, 15.0)
    refused, _ = made(record(outcome="model_not_found", status=404, total_seconds=0.0), trace())
    assert (refused.failed, refused.attributes["error.type"]) == (False, "model_not_found")


def test_a_wait_that_ended_in_nothing_is_a_wait_too() -> None:
    failed = Try("a", "backend_broke", 11.0, None, 12.0)
    assert waits(record(failed, outcome="queue_timeout", queue_seconds=3.0)) == [(10.0, 11.0), (12.0, 14.0)]
    assert waits(record(failed, outcome="client_left", queue_seconds=1.0)) == [(10.0, 11.0), (12.0, 15.0)]
    assert waits(record(failed, queue_seconds=1.0)) == [(10.0, 11.0)]


def test_an_answer_in_one_piece_has_no_first_token() -> None:
    *_, attempt = made(record(Try("a", "completed", 10.0, 12.0, 15.0), stream=False), trace(attempts=1))
    assert attempt.events[0][0] == "first byte"


def test_what_has_no_name_in_the_convention_gets_none() -> None:
    *_, attempt = made(record(Try("a", "completed", 10.0, 12.0, 15.0), endpoint="/api/show"), trace(attempts=1))
    assert attempt.name == "attempt m:latest"
    assert "gen_ai.operation.name" not in attempt.attributes


def test_a_clients_words_are_cut() -> None:
    whole, *_ = made(record(), trace(asked_model="x" * 400 + "\udcff"))
    assert whole.attributes["gen_ai.request.model"] == "x" * 256
    odd, *_ = made(record(), trace(asked_model="\udcff\x00\x1b[31m\u202e"))
    assert odd.attributes["gen_ai.request.model"] == "???[31m?"


def test_an_attempt_that_was_over_before_it_was_sent_has_an_id_all_the_same() -> None:
    *_, attempt = made(record(Try("a", "client_left", 10.0, None, 10.0)), trace())
    assert attempt.span_id
