"""Heads and bodies, however the network cuts them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.common.errors import BadRequest
from fleet.http1.body_framing import Chunked, Framing, Length, NoBody, UntilClose, WireError
from fleet.http1.response_head import HEAD_LIMIT, HeadReader, ResponseHead, parse_head, read_head, request_head

BODIES = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
EXTENSIONS = st.sampled_from([b"", b";a=b", b" ; x"])
TRAILERS = st.sampled_from([b"", b"x-sum: 1\r\n", b"a: b\r\nc: d\r\n"])


def chunked(pieces: list[bytes], extension: bytes = b"", trailer: bytes = b"") -> bytes:
    chunks = [b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces]
    return b"".join(chunks) + b"0\r\n" + trailer + b"\r\n"


def cut(data: bytes, at: set[int]) -> list[bytes]:
    edges = [0, *sorted(edge for edge in at if 0 < edge < len(data)), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


def run(framing: Framing, reads: list[bytes]) -> bytes:
    return b"".join(framing.decode(data) for data in reads)


@given(BODIES, EXTENSIONS, TRAILERS, st.sets(st.integers(1, 400)), st.binary(max_size=5))
def test_chunks_cut_anywhere_give_the_same_body(
    pieces: list[bytes], extension: bytes, trailer: bytes, at: set[int], behind: bytes
) -> None:
    wire = chunked(pieces, extension, trailer)
    reads = cut(wire + behind, at)
    framing = Chunked()
    seen = b""
    for data in reads:  # as the response does: nothing is fed to a complete message
        if not framing.complete:
            piece = framing.decode(data)
            seen += piece
            check_raw(framing, data, piece)
    assert seen == b"".join(pieces)
    assert framing.complete
    if len(reads) == 1:
        assert framing.extra == len(behind)


def check_raw(framing: Chunked, data: bytes, piece: bytes) -> None:
    """What may be passed on as it came says the same to whoever reads it, and nothing else."""
    if framing.raw:
        again = Chunked()
        assert data.startswith(framing.raw)
        assert again.decode(framing.raw) == piece
        assert again.complete == framing.complete
        assert not again.extra


def test_every_single_boundary_of_a_chunked_body() -> None:
    wire = chunked([b"hello", b"x" * 17], b";q", b"t: 1\r\n")
    for edge in range(len(wire) + 1):
        framing = Chunked()
        assert run(framing, [part for part in (wire[:edge], wire[edge:]) if part]) == b"hello" + b"x" * 17
        assert framing.complete
        assert not framing.extra


def test_a_zero_in_the_middle_is_the_end_and_what_follows_is_extra() -> None:
    for data in (b"3\r\nabc\r\n0\r\n\r\n3\r\nabc\r\n", b"0\r\n\r\n3\r\nabc\r\n"):
        for _ in range(2):  # the second time, the sizes are known
            framing = Chunked()
            framing.decode(data)
            assert framing.complete
            assert framing.extra == len(b"3\r\nabc\r\n")


@pytest.mark.parametrize("content", [b"\r\n", b"a\r\nb", b"\r\n\r\n", b"0\r\n\r\n", b"1\r\na\r\n"])
def test_contents_that_look_like_framing_are_contents(content: bytes) -> None:
    wire = chunked([content, content], b"", b"")
    for _ in range(2):
        framing = Chunked()
        assert framing.decode(wire) == content * 2
        assert framing.complete


def test_plain_chunks_may_be_passed_on_as_they_came_and_nothing_else() -> None:
    plain = chunked([b"abc", b"defg"], b"", b"")
    Chunked().decode(plain)  # now their sizes are known
    for wire, raw in (
        (plain, plain),
        (plain[:8], plain[:8]),
        (plain[:-1], b""),
        (chunked([b"abc"], b";a=b", b""), b""),
        (chunked([b"abc"], b"", b"t: 1\r\n"), b""),
        (plain + b"x", b""),
    ):
        framing = Chunked()
        framing.decode(wire)
        assert framing.raw == raw


@given(st.binary(min_size=1, max_size=200), st.sets(st.integers(1, 200)))
def test_lengths_and_closes_cut_anywhere_give_the_same_body(body: bytes, at: set[int]) -> None:
    for framing in (Length(len(body)), UntilClose()):
        assert run(framing, cut(body, at)) == body
        framing.end_of_stream()
        assert framing.complete
        assert not framing.extra


def test_bytes_behind_a_length_are_cut_off_and_noticed() -> None:
    framing = Length(3)
    assert framing.decode(b"abcdef") == b"abc"
    assert framing.complete
    assert framing.extra


@pytest.mark.parametrize(
    "wire",
    [
        b"+5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b"1_0\r\n",
        b"\r\n",
        b"g\r\n",
        b"5\nhello\r\n",
        b"5\r\nhelloXX",
        b"5\r\nhello\rX",
        b"f" * 16 + b"\r\n",
        b"1" * 20000,
        b"0\r\nbad\n\r\n",
        b"5;a\rb\r\nhello\r\n",
    ],
)
@pytest.mark.parametrize("split", [False, True])
def test_bad_chunks_are_refused(wire: bytes, split: bool) -> None:
    reads = [wire[at : at + 1] for at in range(len(wire))] if split else [wire]
    with pytest.raises(WireError):
        run(Chunked(), reads)


def test_a_trailer_without_end_is_refused() -> None:
    framing = Chunked()
    framing.decode(b"0\r\n")
    with pytest.raises(WireError):
        run(framing, [b"a: " + b"b" * 1000 + b"\r\n"] * 100)


@pytest.mark.parametrize("framing", [Length(5), Chunked()])
def test_an_early_end_is_an_error(framing: Framing) -> None:
    framing.decode(b"4\r\n")
    with pytest.raises(WireError):
        framing.end_of_stream()


def found_in(wire: bytes, size: int) -> tuple[ResponseHead, bytes] | None:
    reader = HeadReader()
    for at in range(0, len(wire), size):
        if found := reader.feed(wire[at : at + size]):
            return found[0], found[2] + wire[at + size :]
    return None


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_interim_answers_are_skipped_and_the_body_stays(size: int) -> None:
    wire = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 200 Fine\r\nA: b \t\r\n\r\nbody"
    found = found_in(wire, size)
    assert found is not None
    assert (found[0].status, found[0].fields, found[1]) == (200, ((b"a", b"b"),), b"body")


FINAL = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-OpenSSH_9\r\n",
        b"{}",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 99 x\r\n\r\n",
        b"HTTP/1.1 2000 x\r\n\r\n",
        b"HTTP/1.1 abc x\r\n\r\n",
        FINAL + b"bad header\r\n\r\n",
        FINAL + b"a : b\r\n\r\n",
        FINAL + b"content-length: 1\r\ncontent-length: 1\r\n\r\n",
        FINAL + b"content-length: +1\r\n\r\n",
        FINAL + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        FINAL + b"a: b\r\n" * 101 + b"\r\n",
        b"HTTP/1.1 101 Up\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 101 Up\r\n\r\n",
        FINAL + b"a: " + b"b" * HEAD_LIMIT,
        b"HTTP/1.1 102 Wait\r\n\r\n" * 101,
        FINAL + b"a: b\r\n c\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused(wire: bytes) -> None:
    with pytest.raises(WireError):
        found_in(wire, 65_536)


@pytest.mark.parametrize(
    ("fields", "method", "kind"),
    [
        (b"content-length: 5", "GET", "length"),
        (b"content-length: 5", "HEAD", "none"),
        (b"transfer-encoding: Chunked", "GET", "chunked"),
        (b"a: b", "GET", "close"),
    ],
)
def test_framing_follows_the_fields(fields: bytes, method: str, kind: str) -> None:
    head, length = read_head(FINAL + fields + b"\r\n\r\n")
    assert head.framing(method, length).kind == kind


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_some_statuses_have_no_body(status: bytes) -> None:
    framing = read_head(b"HTTP/1.1 %b\r\ncontent-length: 7\r\n\r\n" % status)[0].framing("GET", 7)
    assert isinstance(framing, NoBody)
    assert framing.complete


def test_an_unknown_coding_is_refused() -> None:
    with pytest.raises(WireError):
        parse_head(FINAL + b"transfer-encoding: gzip, chunked\r\n\r\n").framing("GET", None)


@pytest.mark.parametrize(
    ("version", "fields", "kept"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"connection: close\r\n", False),
        (b"1.1", b"Connection: keep-alive, Close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"connection: keep-alive\r\n", False),
    ],
)
def test_keep_alive(version: bytes, fields: bytes, kept: bool) -> None:
    assert parse_head(b"HTTP/%b 200 OK\r\n%b\r\n" % (version, fields)).keep_alive is kept


def test_a_request_head() -> None:
    head = request_head("POST", "/a?b=c", b"h:1", [(b"x", b"y")], b"content-length: 3\r\n")
    assert head == b"POST /a?b=c HTTP/1.1\r\nhost: h:1\r\nx: y\r\ncontent-length: 3\r\n\r\n"


@pytest.mark.parametrize(
    "build",
    [
        lambda: request_head("GET", "/a b", b"h", [], b""),
        lambda: request_head("GET", "a", b"h", [], b""),
        lambda: request_head("GET", "/ä", b"h", [], b""),
        lambda: request_head("GET", "/\r\nx: y", b"h", [], b""),
        lambda: request_head("GET", "/", b"h", [(b"a", b"b\r\nc: d")], b""),
        lambda: request_head("GET", "/", b"h", [(b"a", b"b\nc: d")], b""),
        lambda: request_head("GET", "/", b"h", [(b"a", b"b\rc: d")], b""),
        lambda: request_head("GET\r\n", "/", b"h", [], b""),
    ],
)
def test_a_request_that_would_smuggle_lines_is_refused(build: Callable[[], bytes]) -> None:
    with pytest.raises(BadRequest):
        build()
