from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.protocol.ndjson_to_sse import NdjsonToSse


def reframe(*pieces: bytes, longest: int = 1000) -> bytes:
    framer = NdjsonToSse(longest)
    return b"".join(framer.feed(piece) for piece in pieces) + framer.finish()


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b"", b""),
        (b'{"a":1}\n', b'data: {"a":1}\n\n'),
        (b'{"a":1}', b'data: {"a":1}\n\n'),
        (b'{"a":1}\n{"b":2}\n', b'data: {"a":1}\n\ndata: {"b":2}\n\n'),
        (b'{"a":1}\r\n\r\n\n{"b":2}', b'data: {"a":1}\n\ndata: {"b":2}\n\n'),
        (b"\n\n", b""),
    ],
)
def test_lines_become_events(body: bytes, wanted: bytes) -> None:
    assert reframe(body) == wanted


def test_an_unfinished_line_is_held_back_until_it_is_whole() -> None:
    framer = NdjsonToSse()
    assert framer.feed(b'{"a":') == b""
    assert framer.feed(b"1}") == b""
    assert framer.feed(b'\n{"b"') == b'data: {"a":1}\n\n'
    assert framer.finish() == b'data: {"b"\n\n'
    assert framer.finish() == b""


def test_a_line_without_end_is_let_through() -> None:
    framer = NdjsonToSse(longest=10)
    assert framer.feed(b"12345678901") == b"data: 12345678901"
    assert framer.feed(b"2345") == b"2345"
    assert framer.feed(b"6\nnext\n") == b"6\n\ndata: next\n\n"
    assert framer.feed(b"x" * 11) == b"data: " + b"x" * 11
    assert framer.finish() == b"\n\n"


@given(st.lists(st.sampled_from([b'{"a":1}', b"\n", b"\r\n", b" ", b"x" * 9, b"y" * 30]), max_size=20), st.data())
def test_the_events_do_not_depend_on_the_splits(parts: list[bytes], data: st.DataObject) -> None:
    body = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    edges = [0, *cuts, len(body)]
    pieces = [body[start:end] for start, end in pairwise(edges)]
    assert reframe(*pieces, longest=20) == reframe(body, longest=20)
