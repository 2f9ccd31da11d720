"""Trace context: what is believed of a client, what goes on, and that nothing hostile breaks anything."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.observability.tracing.trace_context import (
    Parent,
    Trace,
    chosen,
    parent_of,
    read_parent,
    read_state,
    without_context,
    write_parent,
)
from fleet.protocol.headers import forwarded_headers

TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
GOOD = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (GOOD, 1),
        (GOOD[:-2] + b"00", 0),
        (GOOD[:-2] + b"03", 3),
        (GOOD[:-2] + b"ff", 3),  # what we do not know is not passed on
        (b"cc" + GOOD[2:], 1),
        (b"cc" + GOOD[2:] + b"-what-the-future-brings", 1),
    ],
)
def test_a_good_parent_is_read(value: bytes, flags: int) -> None:
    assert read_parent(value) == Parent(TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        GOOD + b"-more",  # version 00 ends there
        GOOD + b"0",
        b"cc" + GOOD[2:] + b".more",
        b"ff" + GOOD[2:],
        GOOD.upper(),
        GOOD.replace(b"-", b"_"),
        b"00-" + b"0" * 32 + GOOD[35:],
        GOOD[:36] + b"0" * 16 + b"-01",
        GOOD[:-1],
        b" " + GOOD,
        GOOD + b"\n",
        b"cc" + GOOD[2:] + b"-" + b"x" * 4096,
    ],
)
def test_anything_else_is_nothing(value: bytes) -> None:
    assert read_parent(value) is None


def test_two_parents_are_none() -> None:
    assert parent_of([(b"traceparent", GOOD)]) == Parent(TRACE, SPAN, 1)
    assert parent_of([(b"Traceparent", b" " + GOOD + b" ")]) == Parent(TRACE, SPAN, 1)
    assert parent_of([(b"traceparent", GOOD), (b"TraceParent", GOOD)]) is None
    assert parent_of([(b"tracestate", b"a=1")]) is None


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ([b"a=1"], "a=1"),
        ([b"a=1", b"b=2,c=3"], "a=1,b=2,c=3"),
        ([b" a=1 ,\t, b=2 "], "a=1,b=2"),
        ([b"fw529a3039@dt=FfAAAAA*", b"rojo=00f067aa0ba902b7"], "fw529a3039@dt=FfAAAAA*,rojo=00f067aa0ba902b7"),
        ([b"a=1,a=2"], ""),
        ([b"A=1"], ""),
        ([b"a"], ""),
        ([b"a=b=c"], ""),
        ([b"a=1\r\nx: y"], ""),
        ([b"a=\xff"], ""),
        ([b"a=1"] * 9, ""),
        ([",".join(f"k{number}=v" for number in range(33)).encode()], ""),
        (
            [b"a=1," + b"b=" + b"x" * 240 + b",c=" + b"y" * 240 + b",d=2"],
            "a=1,b=" + "x" * 240 + ",c=" + "y" * 240 + ",d=2",
        ),
        ([b"a=1," + b"b=" + b"x" * 250 + b",c=" + b"y" * 255 + b",d=2"], "a=1,d=2"),
    ],
)
def test_a_state_is_taken_whole_or_not_at_all(values: list[bytes], state: str) -> None:
    assert read_state(values) == state


def test_a_long_state_loses_its_end() -> None:
    kept = read_state([",".join(f"key{number:02}={'v' * 40}" for number in range(20)).encode()])
    assert kept.startswith("key00=")
    assert len(kept) <= 512
    assert kept.endswith("v" * 40)


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 3))
def test_what_is_written_is_read(trace: int, span: int, flags: int) -> None:
    assert read_parent(write_parent(trace, span, flags)) == Parent(trace, span, flags)


FIELDS = st.lists(
    st.tuples(
        st.sampled_from([b"traceparent", b"tracestate", b"TraceParent", b"x-other"]),
        st.binary(max_size=600) | st.sampled_from([GOOD, b"a=1", b"cc" + GOOD[2:] + b"-x", b"a=1,b=2"]),
    ),
    max_size=12,
)


@given(FIELDS)
def test_whatever_a_client_sends_a_backend_gets_one_clean_context(headers: list[tuple[bytes, bytes]]) -> None:
    parent = parent_of(headers)
    dice = random.Random(1)
    trace = Trace(parent, 7 if parent is None else parent.trace_id, 1, lambda: dice.getrandbits(64) or 1)
    fields = dict(trace.attempt())
    assert read_parent(fields[b"traceparent"]) == Parent(trace.trace_id, trace.attempts[0], 1)
    state = fields.get(b"tracestate", b"")
    assert len(state) <= 512
    assert not set(state) & set(b"\r\n\0")
    if parent is not None:
        assert read_state([state]) == parent.state
    lines = without_context(forwarded_headers(headers).lines)
    assert b"\ntrace" not in b"\n" + lines
    assert lines.count(b"x-other: ") == forwarded_headers(headers).lines.count(b"x-other: ")


def test_only_the_context_is_taken_away() -> None:
    lines = b"traceparent: x\r\nx-traceparent: y\r\ntracestate: a=1\r\naccept: traceparent: z\r\n"
    assert without_context(lines) == b"x-traceparent: y\r\naccept: traceparent: z\r\n"
    assert without_context(b"accept: */*\r\n") == b"accept: */*\r\n"


def test_a_share_of_the_traces_is_chosen_by_their_ids() -> None:
    dice = random.Random(3)
    ids = [dice.getrandbits(128) for _ in range(4000)]
    assert not any(chosen(each, 0.0) for each in ids)
    assert all(chosen(each, 1.0) for each in ids)
    assert 850 < sum(chosen(each, 0.25) for each in ids) < 1150
