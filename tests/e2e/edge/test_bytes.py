"""Thousands of answers, byte for byte, through both lanes, however the backend frames and cuts them."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pytest
import trio

from tests.e2e.support import is_whole
from tests.kit.clients.edge import Reply, browser, chunked, cut, generate, in_front_of
from tests.kit.clients.edge import whole_answer as with_length
from tests.kit.clients.lanes import EDGE, QUART
from tests.kit.clients.raw import request_bytes

pytestmark = pytest.mark.slow

CLIENTS = 8
EDGES = (0, 1, 2, 3, 16, 100, 1000, 4095, 4096, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 131_072, 200_000)
SMALL = 40
_NUMBER = re.compile(rb'"prompt": ?"(\d+)"')
DONE = b'{"model":"m","response":"","done":true,"done_reason":"stop"}\n'


@dataclass(frozen=True, slots=True)
class Case:
    """One answer of the backend, in pieces, and the body that is in it."""

    stream: bool
    framing: str
    body: bytes
    pieces: tuple[bytes, ...]


def filler(dice: random.Random, size: int) -> bytes:
    """Bytes that would like to be taken for framing."""
    words = (
        b"\r\n",
        b"0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"a\r\n",
        b"5\r\nhello\r\n",
        b"\x00\xff",
        b"\r",
        b"\n",
        b"x" * 50,
    )
    pieces, have = [], 0
    while have < size:
        pieces.append(dice.choice(words) if dice.random() < 0.3 else dice.randbytes(min(size, dice.choice((7, 900)))))
        have += len(pieces[-1])
    return b"".join(pieces)[: max(0, size)]


def document(dice: random.Random, size: int) -> bytes:
    """An answer in one piece of that many bytes, or as few as it takes; what it quotes is the filler."""
    begin, end = b'{"done":true,"response":"', b'"}'
    return begin + filler(dice, size - len(begin) - len(end)).translate(None, b'"\\') + end


def records(dice: random.Random, size: int) -> bytes:
    """A native stream of about that many bytes."""
    lines = []
    while size > 0:
        text = b"x" * min(size, dice.choice((1, 10, 100, 5000, 20_000)))
        lines.append(b'{"model":"m","response":"%b","done":false}\n' % text)
        size -= len(lines[-1])
    return b"".join(lines) + DONE


def a_size(dice: random.Random) -> int:
    if dice.random() < 0.75:
        return max(0, dice.choice(EDGES[:9]) + dice.randint(-2, 2))
    return max(0, dice.choice(EDGES) + dice.randint(-3, 3)) if dice.random() < 0.6 else dice.randrange(200_000)


def framed(dice: random.Random, framing: str, body: bytes, kind: bytes) -> bytes:
    if framing == "length":
        return with_length(body, kind=kind)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\n"
    if framing == "close":
        return head + b"Connection: close\r\n\r\n" + body
    sizes = [dice.choice((1, 2, 15, 16, 255, 4096, 16_384, 65_536)) for _ in range(dice.choice((0, 1, 3, 20)))]
    extension = dice.choice((b"", b"", b";a=b"))
    trailer = dice.choice((b"", b"", b"X-Trailer: 1\r\n"))
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, sizes, extension, trailer)


def a_case(dice: random.Random) -> Case:
    stream = dice.random() < 0.5
    body = records(dice, a_size(dice)) if stream else document(dice, a_size(dice))
    framing = dice.choice(("length", "chunked", "chunked", "close"))
    data = framed(dice, framing, body, b"application/x-ndjson" if stream else b"application/json")
    places = [dice.randrange(1 << 30) for _ in range(dice.choice((0, 1, 2, 5)))]
    near = [dice.choice((data.find(b"\r\n\r\n") + dice.randint(0, 6), len(data) - dice.randint(0, 7)))]
    pieces = cut(data, places + near if dice.random() < 0.5 else places)
    return Case(stream, framing, body, (*pieces, b"") if framing == "close" else tuple(pieces))


def every_cut(dice: random.Random) -> list[Case]:
    """Small answers, cut in two at every byte."""
    cases = []
    for framing in ("length", "chunked", "close"):
        for stream, body in ((False, document(dice, SMALL)), (True, DONE), (False, b'{"done":true}')):
            data = framed(dice, framing, body, b"application/x-ndjson" if stream else b"application/json")
            ending = (b"",) if framing == "close" else ()
            cases += [Case(stream, framing, body, (*cut(data, [place]), *ending)) for place in range(len(data))]
    return cases


class Library:
    """The backend's script, by the number in the prompt."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = cases

    def answer(self, head: bytes, body: bytes) -> Sequence[bytes]:
        found = _NUMBER.search(body)
        assert found
        return self.cases[int(found[1])].pieces


def check(case: Case, reply: Reply) -> None:
    assert reply.status == 200
    assert reply.body == case.body, f"{case.framing} {len(case.pieces)} pieces, {len(case.body)} bytes"
    assert reply.framing == ("length" if case.framing == "length" else "chunked")
    assert not reply.closes


async def reading(url: str, library: Library, numbers: range) -> None:
    client = await browser(url)
    for number in numbers:
        case = library.cases[number]
        await client.send(generate(str(number), f"X-Request-Id: n{number}", stream=case.stream))
        reply = await client.answer("POST")
        assert reply.headers["x-request-id"] == f"n{number}"
        check(case, reply)
    assert not client.data
    await client.stream.aclose()


@pytest.mark.parametrize(("way", "count"), [(EDGE, 3_000), (QUART, 800)])
async def test_every_byte_arrives_and_no_other(way: str, count: int) -> None:
    dice = random.Random(count)
    library = Library([a_case(dice) for _ in range(count)] + every_cut(dice))
    total = len(library.cases)
    async with in_front_of(library.answer) as (fleet, _), trio.open_nursery() as nursery:
        for first in range(CLIENTS):
            nursery.start_soon(reading, fleet.lanes[way], library, range(first, total, CLIENTS))


def an_upload(dice: random.Random, number: int) -> tuple[bytes, bytes]:
    """A request with a body of some size, framed in some way: the bytes to send, and the body."""
    mark = f"X-Request-Id: u{number}"
    if dice.random() < 0.3:
        body = filler(dice, a_size(dice))
        fields = (mark, f"Content-Length: {len(body)}")
        return request_bytes("POST", f"/api/blobs/sha256:{number:064x}", None, *fields) + body, body
    body = b'{"model":"m","stream":false,"prompt":"%b"}' % (b"0\\r\\n" * (a_size(dice) // 5))
    if dice.random() < 0.5:
        return request_bytes("POST", "/api/generate", body, mark), body
    sizes = [dice.choice((1, 2, 16, 4096, 65_536)) for _ in range(dice.choice((0, 1, 5)))]
    head = request_bytes("POST", "/api/generate", None, mark, "Transfer-Encoding: chunked")
    return head + chunked(body, sizes, dice.choice((b"", b";x")), dice.choice((b"", b"T: 1\r\n"))), body


async def test_every_byte_of_a_request_arrives() -> None:
    dice = random.Random(9)
    async with in_front_of(lambda head, body: [with_length(DONE)]) as (fleet, backend):
        client = await browser(fleet.url)
        for number in range(600):
            data, body = an_upload(dice, number)
            await client.send(*cut(data, [dice.randrange(1 << 30) for _ in range(dice.choice((0, 0, 1, 4)))]))
            reply = await client.answer("POST")
            assert (reply.status, reply.headers["x-request-id"], reply.closes) == (200, f"u{number}", False)
            head, arrived = backend.seen[-1]
            assert arrived == body, head
            assert b"x-request-id: u%d\r\n" % number in head + b"\r\n"
        assert len(backend.seen) == 600
        await client.stream.aclose()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_cut_anywhere_is_never_taken_for_whole(version: str, stream: bool) -> None:
    """Whatever the backend's last byte was: an error, or an answer that its framing shows to be unfinished."""
    line = b'{"model":"m","response":"x","done":false}\n'
    body = line + DONE if stream else line.replace(b"false", b"true")
    for framing in ("length", "chunked"):
        whole = framed(random.Random(1), framing, body, b"application/x-ndjson" if stream else b"application/json")
        end = whole.index(b'"done":true')
        cuts = iter([whole[:place] for place in range(1, end)])
        script = partial(one_after_the_other, cuts)
        async with in_front_of(script, retry={"max_attempts": 1}, **BREAKER) as (fleet, _):
            for _ in range(1, end):
                assert await is_visibly_cut(fleet.url, version, stream)


BREAKER = {"enable_circuit_breaker": False}


def one_after_the_other(cuts: Iterator[bytes], head: bytes, body: bytes) -> Sequence[bytes]:
    return [next(cuts), b""]


async def is_visibly_cut(url: str, version: str, stream: bool) -> bool:
    """Ask; whether the client can tell that it did not get everything."""
    asked = {"model": "m", "prompt": "x", "stream": stream}
    client = await browser(url)
    async with client.stream:
        await client.send(request_bytes("POST", "/api/generate", asked, version=version))
        data = b""
        try:
            while piece := await client.stream.receive_some():
                data += bytes(piece)
                if b"keep-alive" in data or is_whole(data):
                    break
        except trio.BrokenResourceError:
            return True
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200") or b'"error"' in body:
        return True
    return not is_whole(data) and (b"transfer-encoding" in head or b"content-length" in head)
