"""Request heads: what is taken, what is refused and how, and that h11 agrees about the meaning of what is taken."""

from __future__ import annotations

from typing import Any

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from web.edge.request_head import BadHead, Heads, RequestHead

HOST = b"Host: localhost"
CHAT = b"POST /api/chat HTTP/1.1"


def raw(*lines: bytes) -> bytes:
    return b"\r\n".join([*lines, b"", b""])


def post(*fields: bytes) -> bytes:
    return raw(CHAT, HOST, *fields)


def get(*fields: bytes) -> bytes:
    return raw(b"GET / HTTP/1.1", HOST, *fields)


def status_of(data: bytes) -> int:
    """What a fresh and a well-used reader say about a head; 200: it is taken."""
    used = Heads(100)
    for known in (raw(CHAT, HOST), raw(b"GET / HTTP/1.1", HOST), data, data):
        first = _status(used, known)
    assert first == _status(Heads(100), data)
    return first


def _status(heads: Heads, data: bytes) -> int:
    got = understood(heads, data)
    return got if isinstance(got, int) else 200


REFUSED: list[tuple[int, bytes]] = [
    # two lengths, in every mixture
    (400, post(b"Content-Length: 5", b"Content-Length: 6")),
    (400, post(b"Content-Length: 5", b"Content-Length: 5")),
    (400, post(b"Content-Length: 5", b"content-length: 5")),
    (400, post(b"Content-Length: 5", b"X: y", b"CONTENT-LENGTH:5")),
    (400, post(b"Content-Length: 5, 5")),
    (400, post(b"Content-Length: 5,6")),
    (400, post(b"Content-Length: 5", b"Content-Length:")),
    (400, post(b"Content-Length:", b"Content-Length: 5")),
    (400, post(b"Content-Length: x", b"Content-Length: 5")),
    (400, post(b"Content-Length: 5", b"Content-Length: -5")),
    (400, post(b"Content-Length: 5", b"Content-Length : 5")),
    # lengths that are no lengths
    *[(400, post(b"Content-Length: " + value)) for value in (
        b"+5", b"-1", b"-0", b"0x5", b"0X10", b"5.0", b"5e1", b"1_000", b"five", b"", b" ", b"5 5", b"5;", b'"5"',
        b"\xb2", b"9" * 16, b"9" * 20, b"18446744073709551616", b"18446744073709551621", b"9" * 1000, b"5\x0b",
    )],
    (400, post(b"Content-Length : 5")),
    (400, post(b"Content-Length\t: 5")),
    (400, post(b" Content-Length: 5")),
    (400, post(b"Content-Length 5")),
    # length and coding
    (400, post(b"Content-Length: 5", b"Transfer-Encoding: chunked")),
    (400, post(b"Transfer-Encoding: chunked", b"Content-Length: 5")),
    (400, post(b"Transfer-Encoding: chunked", b"Content-Length: 0")),
    (400, post(b"transfer-encoding:chunked", b"X: y", b"content-length:0")),
    (400, post(b"Content-Length: 5", b"Transfer-Encoding:\tchunked")),
    # codings
    (501, post(b"Transfer-Encoding: gzip, chunked")),
    (400, post(b"Transfer-Encoding: chunked, gzip, chunked")),
    (400, post(b"Transfer-Encoding: gzip")),
    (400, post(b"Transfer-Encoding: identity")),
    (400, post(b"Transfer-Encoding: xchunked")),
    (400, post(b"Transfer-Encoding: chunked;q=1")),
    (400, post(b"Transfer-Encoding: \x0bchunked")),
    (400, post(b"Transfer-Encoding: chunked\x0b")),
    (400, post(b"Transfer-Encoding : chunked")),
    (400, post(b" Transfer-Encoding: chunked")),
    (400, raw(b"POST /api/chat HTTP/1.0", HOST, b"Transfer-Encoding: chunked")),
    # folded lines, above all around the line that is cut out before parsing
    (400, post(b"X: a", b" folded")),
    (400, post(b"X: a", b"\tfolded")),
    (400, post(b"Content-Length: 5", b" 6")),
    (400, post(b"Content-Length: 5", b"\t6")),
    (400, post(b"Content-Length:", b" 5")),
    (400, post(b"X: a", b"Content-Length: 5", b" folded")),
    (400, post(b"X: a", b"Content-Length: 5", b"\t")),
    (400, raw(CHAT, b"Content-Length: 5", b" folded", HOST)),
    (400, raw(CHAT, b"Content-Length: 5", b" : folded", HOST)),
    (400, post(b"X: a", b" Content-Length: 5")),
    (400, post(b"Transfer-Encoding:", b"Content-Length: 5", b" chunked")),
    (400, post(b"Transfer-Encoding: ", b" chunked")),
    (400, post(b"Trans", b"Content-Length: 5", b"fer-Encoding: chunked")),
    # line ends
    (400, CHAT + b"\n" + HOST + b"\r\n\r\n"),
    (400, CHAT + b"\r\n" + HOST + b"\nX: y\r\n\r\n"),
    (400, CHAT + b"\r\n" + HOST + b"\n\nGET /smuggled HTTP/1.1\r\n\r\n"),
    (400, CHAT + b"\r\n" + HOST + b"\rX: y\r\n\r\n"),
    (400, CHAT + b"\r" + HOST + b"\r\n\r\n"),
    (400, CHAT + b"\r\r\n" + HOST + b"\r\n\r\n"),
    (400, post(b"X: y\r")),
    (400, post(b"X: y\nContent-Length: 5")),
    (400, post(b"X: y\rContent-Length: 5")),
    (400, post(b"Content-Length: 5\nX: y")),
    (400, post(b"Content-Length: 5\r")),
    (400, post(b"Content-Length: 5\n")),
    (400, post(b"\rContent-Length: 5")),
    # characters
    (400, post(b"X: a\x00b")),
    (400, post(b"X\x00: a")),
    (400, post(b"Content-Length: 5\x00")),
    (400, post(b"Content-Length\x00: 5")),
    (400, post(b"X Y: a")),
    (400, post(b"X : a")),
    (400, post(b": a")),
    (400, post(b"no colon")),
    (400, post(b"X(Y): a")),
    (400, post(b"\xc3\xa4: a")),
    (400, post(b"X: a\x7f")),
    (400, post(b"X: a\x01")),
    # Host
    (400, raw(CHAT)),
    (400, raw(CHAT, b"Content-Length: 5")),
    (400, raw(CHAT, HOST, HOST)),
    (400, raw(CHAT, HOST, b"host: other")),
    (400, raw(CHAT, b"Host: a", b"Content-Length: 5", b"Host: b")),
    (400, raw(b"POST /api/chat HTTP/1.0", HOST, HOST)),
    (400, raw(CHAT, b"Host : localhost")),
    (400, raw(CHAT, b"Hostt: localhost")),
    # request lines
    *[(505, raw(b"GET / HTTP/" + version, HOST)) for version in (
        b"1.2", b"1.9", b"0.9", b"2.0", b"3.0", b"9.9", b"2", b"1", b"1.11")],
    *[(400, raw(line, HOST)) for line in (
        b"GET /", b"GET", b"", b" GET / HTTP/1.1", b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b"GET / HTTP/1.1 ",
        b"GET / http/1.1", b"GET / HTTP/1,1", b"GET / HTTP/01.1", b"GET\t/ HTTP/1.1", b"GET /\tHTTP/1.1",
        b"GET /a b HTTP/1.1", b"GET /\x00 HTTP/1.1", b"GET /\x7f HTTP/1.1", b"GET /\xff HTTP/1.1", b"G(T / HTTP/1.1",
        b"GET / HTTPS/1.1", b"GET / HTTP/", b"GET / HTTP/1.", b"GET HTTP/1.1", b"A" * 33 + b" / HTTP/1.1",
    )],
    (505, raw(b"PRI * HTTP/2.0")),
    (501, raw(b"BREW / HTTP/1.1", HOST)),
    (501, raw(b"get / HTTP/1.1", HOST)),
    (405, raw(b"CONNECT example.com:443 HTTP/1.1", b"Host: example.com:443")),
    # expectations, and too many fields
    (417, post(b"Expect: tea")),
    (417, post(b"Expect: 100-continue, tea", b"Content-Length: 5")),
    (417, post(b"Expect:")),
    (431, post(*[b"X-%d: y" % number for number in range(100)])),
]  # fmt: skip


@pytest.mark.parametrize(("status", "data"), REFUSED, ids=lambda value: repr(value)[2:70])
def test_two_meanings_are_refused(status: int, data: bytes) -> None:
    assert status_of(data) == status


TAKEN: list[tuple[bytes, dict[str, Any], int | None]] = [
    (get(), {"method": "GET", "keep_alive": True, "old": False, "chunked": False}, None),
    (post(b"Content-Length: 5"), {}, 5),
    (post(b"content-length:5"), {}, 5),
    (post(b"CONTENT-LENGTH:\t 5 \t"), {}, 5),
    (raw(CHAT, b"Content-Length: 5", HOST), {}, 5),
    (post(b"Content-Length: 0"), {}, 0),
    (post(b"Content-Length: 007"), {}, 7),
    (post(b"Content-Length: " + b"9" * 15), {}, 10**15 - 1),
    (post(b"X: Content-Length: 5"), {}, None),
    (post(b"X-Content-Length: 5"), {}, None),
    (post(b"Content-Length-X: 5"), {}, None),
    (post(b"Transfer-Encoding: chunked"), {"chunked": True}, None),
    (post(b"Transfer-Encoding:  Chunked"), {"chunked": True}, None),
    (post(b"Expect: 100-Continue", b"Content-Length: 5"), {"expecting": True}, 5),
    (raw(b"POST / HTTP/1.0", b"Expect: 100-continue"), {"expecting": False, "old": True}, None),
    (raw(b"GET / HTTP/1.0"), {"keep_alive": False, "old": True}, None),
    (raw(b"GET / HTTP/1.0", b"Connection: Keep-Alive"), {"keep_alive": True}, None),
    (get(b"Connection: close"), {"keep_alive": False}, None),
    (get(b"Connection: a, CLOSE ,b"), {"keep_alive": False}, None),
    (get(b"Connection: keep-alive", b"Connection: close"), {"keep_alive": False}, None),
    (get(b"Connection: closed"), {"keep_alive": True}, None),
    (raw(b"GET http://else.where/x HTTP/1.1", HOST), {"target": b"http://else.where/x"}, None),
    (raw(b"OPTIONS * HTTP/1.1", HOST), {"target": b"*"}, None),
    (raw(b"GET / HTTP/1.1", b"Host:"), {}, None),
    (get(b"Upgrade: WebSocket", b"Connection: keep-alive, Upgrade"), {"upgrade": True}, None),
    (get(b"Upgrade: websocket"), {"upgrade": False}, None),
    (get(b"Connection: upgrade"), {"upgrade": False}, None),
    (get(b"Upgrade: h2c", b"Connection: Upgrade", b"HTTP2-Settings: AA"), {"upgrade": False}, None),
    (post(b"Upgrade: websocket", b"Connection: upgrade"), {"upgrade": False}, None),
    (get(b"X: " + b"y" * 60_000), {}, None),
    (get(b"X: \xff\xfe"), {}, None),
    (get(b"X:"), {}, None),
    (post(*[b"X-%d: y" % number for number in range(98)], b"Content-Length: 5"), {}, 5),
]


@pytest.mark.parametrize(("data", "expected", "length"), TAKEN, ids=lambda value: repr(value)[:60])
def test_good_heads_are_taken(data: bytes, expected: dict[str, Any], length: int | None) -> None:
    heads = Heads(100)
    for _ in range(2):
        head, found = heads.read(data)
        assert found == length
        assert {name: getattr(head, name) for name in expected} == expected


# -- a second opinion ------------------------------------------------------------------------------------------------

TOKENS = st.sampled_from([b"X", b"Accept", b"User-Agent", b"X-Request-Id", b"A" * 40, b"!#$%&'*+.^_`|~9"])
VALUES = st.sampled_from(
    [b"", b"a", b"a b", b"  a\t", b"\xe4", b"a,b;c", b"content-length: 5", b"x" * 300, b"HTTP/1.1"]
)
FRAMINGS = st.sampled_from([
    [], [], [b"Content-Length: 5"], [b"content-length:  0005"], [b"Transfer-Encoding: chunked"],
    [b"Content-Length: 5", b"Transfer-Encoding: chunked"], [b"Content-Length: 5", b"Content-Length: 7"],
    [b"Content-Length: 5", b" 7"], [b"Content-Length:", b"\t5"], [b"Transfer-Encoding: chunked", b" , gzip"],
    [b"Content-Length: 0x5"], [b"Content-Length: +5"], [b"Transfer-Encoding : chunked"],
])  # fmt: skip
LINES = st.sampled_from([
    CHAT, CHAT, b"GET / HTTP/1.1", b"GET /a?b=c&d HTTP/1.0", b"HEAD http://x/y HTTP/1.1", b"OPTIONS * HTTP/1.1",
    b"PUT /%20 HTTP/1.1", b"CONNECT x:1 HTTP/1.1", b"GET / HTTP/1.2", b"GET /a b HTTP/1.1",
])  # fmt: skip


@st.composite
def plausible(draw: st.DrawFn) -> bytes:
    """Heads that are right or nearly so."""
    fields = [name + draw(st.sampled_from([b":", b": ", b":\t"])) + draw(VALUES) for name in draw(st.lists(TOKENS))]
    fields += [HOST] * draw(st.sampled_from([1, 1, 1, 1, 0, 2])) + draw(FRAMINGS)
    if draw(st.booleans()):
        fields = list(draw(st.permutations(fields)))
    return raw(draw(LINES), *fields)


BITS = st.sampled_from([
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"\x00", b":", b"\r\n ", b"\r\nContent-Length: 9",
    b"\r\ncontent-length:9\r\n ", b"5", b"\r\nTransfer-Encoding: chunked", b"\xff", b"\x0b", b",", b"chunked",
    b"\r\nHost: b",
])  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Bits put in, taken out or doubled in such a head, which still ends where it ends."""
    data = draw(plausible())[:-4]
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        gone = draw(st.sampled_from([0, 0, 0, 1, 2, 5]))
        data = data[:at] + draw(BITS) + data[at + gone :]
    while b"\r\n\r\n" in data:  # the intake ends a head at the first
        data = data.replace(b"\r\n\r\n", b"\r\n")
    return data.rstrip(b"\r\n") + b"\r\n\r\n"


WARM = Heads(100)
"""Used by all examples: what one head leaves behind must not change what another means."""


def understood(heads: Heads, data: bytes) -> tuple[RequestHead, int | None] | int:
    try:
        return heads.read(data)
    except BadHead as bad:
        return bad.status if bad.text else 0


def second_opinion(data: bytes) -> h11.Request | None:
    """As h11 reads it; None: it refuses."""
    other = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    other.receive_data(data)
    try:
        event = other.next_event()
    except h11.RemoteProtocolError:
        return None
    return event if isinstance(event, h11.Request) else None


@settings(max_examples=1500, deadline=None)
@given(st.one_of(plausible(), mutated()))
def test_what_is_taken_means_to_h11_what_it_means_to_us(data: bytes) -> None:
    got = understood(WARM, data)
    alone = understood(Heads(100), data)
    if isinstance(got, int) or isinstance(alone, int):
        assert got == alone
        assert got in (400, 405, 417, 431, 501, 505)
        return
    head, length = got
    assert (head.headers, length) == (alone[0].headers, alone[1])
    other = second_opinion(data)
    assert other is not None, "we are never laxer than h11"
    assert (other.method, other.target) == (head.method.encode(), head.target)
    assert (other.http_version == b"1.0") == head.old
    theirs = [(bytes(name), bytes(value)) for name, value in other.headers]
    assert [pair for pair in theirs if pair[0] != b"content-length"] == list(head.headers)
    lengths = {int(value) for name, value in theirs if name == b"content-length"}
    assert lengths == (set() if length is None else {length})
    assert ((b"transfer-encoding", b"chunked") in theirs) == head.chunked


@settings(max_examples=600, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda junk: CHAT + b"\r\n" + junk)))
def test_rubbish_raises_nothing_but_bad_head(data: bytes) -> None:
    understood(WARM, data + b"\r\n\r\n")


# -- the cache --------------------------------------------------------------------------------------------------------


def test_one_head_with_different_lengths_is_read_once_and_each_has_its_own() -> None:
    heads = Heads(100)
    found = [heads.read(post(b"Content-Length: %d" % length, b"X: y")) for length in (5, 0, 77)]
    assert [length for _, length in found] == [5, 0, 77]
    assert len({id(head) for head, _ in found}) == 1
    head, length = heads.read(post(b"X: y"))
    assert (head, length) == (found[0][0], None)


def test_a_known_head_is_still_refused_when_a_length_comes_on_top() -> None:
    heads = Heads(100)
    assert heads.read(post(b"Transfer-Encoding: chunked"))[0].chunked
    for _ in range(2):
        with pytest.raises(BadHead):
            heads.read(post(b"Transfer-Encoding: chunked", b"Content-Length: 5"))
    assert heads.read(post(b"Transfer-Encoding: chunked"))[0].chunked


def test_a_refused_head_is_not_remembered_as_a_good_one() -> None:
    heads = Heads(2)
    for _ in range(2):
        with pytest.raises(BadHead):
            heads.read(post(b"A: a", b"B: b"))


def test_the_cache_stays_small() -> None:
    heads = Heads(100)
    for number in range(3000):
        head, _ = heads.read(post(b"X: %d" % number))
        assert (b"x", b"%d" % number) in head.headers
    heads.read(post(b"X: " + b"y" * 10_000))
    assert len(heads._known) <= 512
    assert max(map(len, heads._known)) <= 4096
