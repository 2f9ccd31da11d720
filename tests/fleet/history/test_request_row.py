from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.history.request_row import (
    SEQUENCE_BITS,
    RequestRow,
    RowNumbers,
    client_name,
    ended_at,
    fingerprint,
    first_number,
    outcome_class,
)

ROW = RequestRow(
    request="r1",
    trace=None,
    began=1000.0,
    queue=0.5,
    load=None,
    first_byte=0.7,
    total=2.0,
    slot=1.5,
    wasted=0.0,
    endpoint="/api/chat",
    model="tiny:latest",
    server="a",
    client="key:alice",
    outcome="completed",
    status=200,
    prompt_tokens=10,
    output_tokens=20,
    stream=True,
)


def row(**other: Any) -> RequestRow:
    return msgspec.structs.replace(ROW, **other)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("completed", "answered"),
        ("incomplete", "answered"),
        ("client_left", "left"),
        ("refused_404", "refused"),
        ("queue_full", "failed"),
        ("backend_broke", "failed"),
        ("model_not_found", "refused"),
        ("never heard of", "failed"),
    ],
)
def test_an_outcome_has_one_class(outcome: str, expected: str) -> None:
    assert outcome_class(outcome) == expected
    assert row(outcome=outcome).outcome_class == expected


@pytest.mark.parametrize(("load", "cold"), [(None, False), (0.05, False), (0.1, True), (9.0, True)])
def test_cold_is_who_waited_for_a_real_load(load: float | None, cold: bool) -> None:
    assert row(load=load).cold is cold


@given(st.lists(st.floats(min_value=0.0, max_value=4e9), max_size=30))
def test_numbers_only_grow_whatever_the_clock_does(times: list[float]) -> None:
    numbers = RowNumbers()
    given_out = [numbers.next(at) for at in times]
    assert given_out == sorted(set(given_out))
    assert all(number >= first_number(at) for number, at in zip(given_out, times, strict=True))
    assert all(0 < number < 2**63 for number in given_out if number)


def test_a_number_tells_when_its_row_ended() -> None:
    number = RowNumbers().next(1_700_000_000.123)
    assert ended_at(number) == pytest.approx(1_700_000_000.123, abs=0.0011)
    assert number >> SEQUENCE_BITS == 1_700_000_000_123


def test_numbers_go_on_after_a_restart() -> None:
    first = RowNumbers().next(100.0)
    assert RowNumbers(first).next(100.0) == first + 1


def test_a_client_is_known_by_its_key_or_by_a_hash_of_its_address() -> None:
    assert client_name("alice", "192.0.2.1", b"k") == "key:alice"
    hashed = client_name("", "192.0.2.1", b"k")
    assert hashed == client_name("", "192.0.2.1", b"k") != client_name("", "192.0.2.2", b"k")
    assert hashed != client_name("", "192.0.2.1", b"another")
    assert "192" not in hashed


def test_options_have_equal_fingerprints_whatever_their_order() -> None:
    assert fingerprint({"num_ctx": 4, "num_gpu": 1}) == fingerprint({"num_gpu": 1, "num_ctx": 4})
    assert fingerprint({"num_ctx": 4}) != fingerprint({"num_ctx": 8})
    assert fingerprint(None) is fingerprint({}) is None
