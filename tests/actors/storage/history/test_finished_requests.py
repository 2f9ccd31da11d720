from __future__ import annotations

from typing import Any

import pytest

from actors.state.messages import RequestRecord, Try
from actors.storage.history.finished_requests import row_of
from fleet.history.request_row import AttemptRow

SECRET = b"s" * 32


def record(**other: Any) -> RequestRecord:
    given: dict[str, Any] = {
        "request_id": "r1",
        "endpoint": "/api/chat",
        "model": "tiny:latest",
        "client": "10.0.0.9",
        "server": "a",
        "outcome": "completed",
        "status": 200,
        "attempts": 1,
        "queue_seconds": 0.5,
        "first_byte_seconds": 1.0,
        "total_seconds": 4.0,
        "chunks": 9,
        "prompt_tokens": 5,
        "output_tokens": 7,
        "stream": True,
        "began": 100.0,
    }
    return RequestRecord(**{**given, **other})


FAILED = Try("b", "backend_broke", 100.5, None, 101.0)
SERVED = Try("a", "completed", 101.0, 101.5, 104.0)


def test_a_record_becomes_a_row_of_the_time_at_which_it_ended() -> None:
    ended, row = row_of(record(tries=(SERVED,), by="alice"), 1_000.0, SECRET)
    assert (ended, row.began, row.total) == (1_104.0, 1_100.0, 4.0)
    assert (row.client, row.slot, row.wasted, row.attempts) == ("key:alice", 3.0, 0.0, ())


def test_no_address_is_kept() -> None:
    _, row = row_of(record(), 0.0, SECRET)
    assert row.client.startswith("address:")
    assert "10.0.0.9" not in repr(row)


@pytest.mark.parametrize(
    ("outcome", "tries", "slot", "wasted"),
    [
        ("completed", (FAILED, SERVED), 3.5, 0.5),
        ("client_left", (FAILED, SERVED), 3.5, 3.5),
        ("backend_broke", (FAILED,), 0.5, 0.5),
        ("queue_full", (), 0.0, 0.0),
    ],
)
def test_what_gave_nobody_an_answer_is_wasted(outcome: str, tries: tuple[Try, ...], slot: float, wasted: float) -> None:
    _, row = row_of(record(outcome=outcome, tries=tries), 0.0, SECRET)
    assert (row.slot, row.wasted) == (slot, wasted)


def test_attempts_are_kept_if_there_were_several() -> None:
    _, row = row_of(record(attempts=2, tries=(FAILED, SERVED)), 0.0, SECRET)
    assert row.attempts == [
        AttemptRow("b", "backend_broke", 0.5, 0.5, None),
        AttemptRow("a", "completed", 1.0, 3.0, 0.5),
    ]


@pytest.mark.parametrize(
    ("told", "kept"), [(float("nan"), None), (float("inf"), None), (-1.0, 0.0), (1e300, 2_592_000.0), (0.5, 0.5)]
)
def test_what_a_server_tells_is_kept_within_reason(told: float, kept: float | None) -> None:
    _, row = row_of(record(load_seconds=told, prompt_tokens=10**30, output_tokens=-4), 0.0, SECRET)
    assert (row.load, row.prompt_tokens, row.output_tokens) == (kept, 2**40, 0)
