"""Streams of requests as no client would send them: cut anywhere, pipelined, framed in every way, ending in rubbish.

Every request carries a mark that its answer has to bring back, so that an acceptor that loses its place is found out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import orjson
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.support import until
from tests.kit.clients.edge import Browser, Reply, browser, chunked, cut, generate, in_front_of, whole_answer
from tests.kit.clients.raw import request_bytes
from tests.kit.fleets.served import Served

pytestmark = pytest.mark.slow

EXAMPLES = 500
_PROMPT = re.compile(rb'"prompt": ?"([^"]*)"')


def echo(head: bytes, body: bytes) -> Sequence[bytes]:
    """The backend says the prompt back: whole, or as a stream in two pieces."""
    said = _PROMPT.search(body)
    assert said, body
    record = b'{"model":"m","response":"%b","done":true,"done_reason":"stop"}\n' % said[1]
    if re.search(b'"stream": ?false', body):
        return [whole_answer(record)]
    opening = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [opening + b"%x\r\n" % len(record), record + b"\r\n0\r\n\r\n"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One valid request. `last`: no other is answered after it; `may_close`: perhaps none is."""

    data: bytes
    method: str
    mark: str
    status: int
    said: str | None = None
    last: bool = False
    may_close: bool = False

    def check(self, reply: Reply) -> None:
        assert reply.status == self.status, (self.data, reply)
        assert reply.headers["x-request-id"] == self.mark
        assert set(reply.interim) <= {100}
        if self.said is not None:
            assert reply.json()["response"] == self.said
        assert not reply.closes or self.last or self.may_close, (self.data, reply)


FRAMINGS = st.sampled_from(["length", "length", "chunked", "extensions", "trailers"])
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='"\\'), max_size=40)


def framed(draw: st.DrawFn, how: str, body: bytes) -> tuple[str, bytes]:
    """The field that says how, and the body so framed."""
    if how == "length":
        return f"Content-Length: {len(body)}", body
    sizes = draw(st.lists(st.integers(1, 50), max_size=4))
    extension = b';a="b"' if how == "extensions" else b""
    trailer = b"X-Sum: 1\r\nContent-Length: 3\r\n" if how == "trailers" else b""
    return "Transfer-Encoding: chunked", chunked(body, sizes, extension, trailer)


def head(method: str, path: str, *fields: str, version: str = "1.1") -> bytes:
    return request_bytes(method, path, None, *fields, version=version)


@st.composite
def hot(draw: st.DrawFn) -> Ask:
    """An inference request."""
    mark, text, stream = f"h{draw(st.integers(0, 10**9))}", draw(TEXTS), draw(st.booleans())
    body = orjson.dumps({"model": "m", "prompt": text, "stream": stream})
    old = draw(st.sampled_from([False] * 5 + [True]))
    how = "length" if old else draw(FRAMINGS)
    field, data = framed(draw, how, body)
    fields = [f"X-Request-Id: {mark}", field]
    if draw(st.sampled_from([False, False, True])):
        fields.append("Expect: 100-continue")
    kept = draw(st.booleans())
    if old and kept:
        fields.append("Connection: keep-alive")
    path = draw(
        st.sampled_from(["/api/generate"] * 3 + ["/api/generate--raw", "/api/generate?x=/", "http://x/api/generate"])
    )
    opening = head("POST", path, *draw(st.permutations(fields)), version="1.0" if old else "1.1")
    # a stream to an HTTP/1.0 client ends with the connection
    return Ask(opening + data, "POST", mark, 200, text, last=old and (stream or not kept))


@st.composite
def cold(draw: st.DrawFn) -> Ask:
    """A request for the Quart app, with no body or an unwanted one, however its target is written."""
    mark = f"c{draw(st.integers(0, 10**9))}"
    method, path, status = draw(
        st.sampled_from([
            ("GET", "/", 200), ("HEAD", "/", 200), ("GET", "/api/version", 200), ("GET", "/nowhere", 404),
            ("DELETE", "/nowhere", 404), ("POST", "/nowhere", 404), ("GET", "/api/generate", 405),
        ])
    )  # fmt: skip
    body = draw(st.sampled_from([None, None, b"", b"GET /smuggled HTTP/1.1\r\n\r\n", b"0\r\n\r\n", b"x" * 5000]))
    fields, data, version = [f"X-Request-Id: {mark}"], b"", "1.1"
    if body is not None:
        field, data = framed(draw, draw(FRAMINGS), body)
        fields.append(field)
        if draw(st.sampled_from([False, False, True])):
            fields.append("Expect: 100-continue")
    elif draw(st.sampled_from([False, False, False, True])):
        version = "1.0"
    target = path if draw(st.booleans()) else f"http://localhost{path}?a=b"
    opening = head(method, target, *fields, version=version)
    return Ask(opening + data, method, mark, status, last=version == "1.0", may_close=body is not None)


RUBBISH = st.one_of(
    st.sampled_from([
        head("POST", "/api/generate", "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head("POST", "/api/generate", "Content-Length: 5", "Content-Length: 6") + b"hello",
        head("GET", "/", "X: a", " folded"), head("GET", "/", "X : a"), b"GET / HTTP/1.1\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X" * 70_000, head("CONNECT", "x:1"), b"\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        head("POST", "/api/generate", "Transfer-Encoding: chunked") + b"zz\r\nhello\r\n",
        head("POST", "/api/generate", "Transfer-Encoding: chunked") + b"5\r\nhelloX\r\n0\r\n\r\n",
        head("POST", "/api/generate", "Transfer-Encoding: chunked") + b"-5\r\nhello\r\n0\r\n\r\n",
    ]),
    st.binary(max_size=200).map(lambda data: b"\x00" + data + b"\r\n\r\n"),
)  # fmt: skip


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[Ask], bytes, list[bytes]]:
    """Requests, the rubbish after them (or none), and both as they are sent."""
    asks = draw(st.lists(st.one_of(hot(), cold()), max_size=8))
    rubbish = draw(st.one_of(st.just(b""), RUBBISH))
    ending = rubbish or head("GET", "/api/version", "Connection: close", "X-Request-Id: last")
    data = b"".join(ask.data for ask in asks) + ending
    return asks, rubbish, cut(data, draw(st.lists(st.integers(0, 1 << 20), max_size=12)))


NOISE = st.one_of(st.binary(max_size=300), conversations().map(lambda found: b"".join(found[2])[::-1]))


async def talk(client: Browser, asks: list[Ask], rubbish: bytes) -> None:
    """Read what comes of a conversation."""
    for ask in asks:
        reply = await client.answer(ask.method)
        ask.check(reply)
        if reply.closes:
            assert not await client.rest()
            return
    reply = await client.answer()
    if rubbish:
        assert 400 <= reply.status < 600, reply
        assert reply.body
    else:
        assert (reply.status, reply.headers["x-request-id"]) == (200, "last")
    assert reply.closes
    assert not await client.rest(), "nothing may follow"


async def one_client(fleet: Served, asks: list[Ask], rubbish: bytes, pieces: list[bytes]) -> None:
    client = await browser(fleet.url)
    async with client.stream, trio.open_nursery() as nursery:
        nursery.start_soon(talk, client, asks, rubbish)
        with suppress(trio.BrokenResourceError):  # it need not listen to the end
            for piece in pieces:
                await client.send(piece)
                await trio.testing.wait_all_tasks_blocked()


async def others(fleet: Served, client: Browser, number: int) -> None:
    await client.send(generate(f"other {number}", f"X-Request-Id: o{number}"))
    reply = await client.answer("POST")
    assert (reply.headers["x-request-id"], reply.json()["response"]) == (f"o{number}", f"other {number}")


async def test_requests_are_answered_in_order_up_to_the_first_rubbish() -> None:
    async with in_front_of(echo) as (fleet, _):
        other = await browser(fleet.url)
        count = 0

        async def example(asks: list[Ask], rubbish: bytes, pieces: list[bytes]) -> None:
            nonlocal count
            count += 1
            with trio.fail_after(60):
                await one_client(fleet, asks, rubbish, pieces)
                await others(fleet, other, count)
                await until(lambda: not fleet.system.in_flight)
                fleet.assert_nothing_left()

        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(conversations())
        def every(conversation: tuple[list[Ask], bytes, list[bytes]]) -> None:
            trio.from_thread.run(example, *conversation)

        await trio.to_thread.run_sync(every)
        await other.stream.aclose()


async def test_bytes_at_random_harm_nobody() -> None:
    async with in_front_of(echo, timeouts={"head": 0.2}) as (fleet, _):
        other = await browser(fleet.url)

        async def example(data: bytes, places: list[int]) -> None:
            client = await browser(fleet.url)
            async with client.stream:
                with suppress(trio.BrokenResourceError):
                    await client.send(*cut(data, places))
                    await client.stream.send_eof()  # type: ignore[attr-defined]
                for answer in re.findall(rb"HTTP/1\.1 (\d)", await client.rest()):
                    assert answer in b"12345"
            await others(fleet, other, len(data))

        @settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(NOISE, st.lists(st.integers(0, 999), max_size=3))
        def every(data: bytes, places: list[int]) -> None:
            trio.from_thread.run(example, data, places)

        await trio.to_thread.run_sync(every)
        await other.stream.aclose()
        await until(lambda: not fleet.system.in_flight)
        fleet.assert_nothing_left()
