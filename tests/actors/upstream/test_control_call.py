"""What a server may answer to a call of the fleet's own: anything at all, and it costs nobody anything."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
import trio

from actors.upstream.control_client import OllamaClient
from fleet.common.errors import BackendBroke, BackendError, BadAnswer, FirstByteTimeout
from fleet.config import ServerSpec
from tests.actors.upstream.transport_kit import Handler, Peer, start

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
_CHUNKED = _HEAD + b"transfer-encoding: chunked\r\n\r\n"


def whole(body: bytes, fields: bytes = b"") -> bytes:
    return _HEAD + fields + b"content-length: %d\r\n\r\n" % len(body) + body


def endless(*parts: bytes) -> Callable[[], Iterator[bytes]]:
    """These, and then the last one again and again."""
    return lambda: itertools.chain(parts, itertools.repeat(parts[-1]))


@asynccontextmanager
async def answered(parts: Callable[[], Iterator[bytes]]) -> AsyncIterator[OllamaClient]:
    """A client of a server that says these pieces whatever it is asked, for as long as it is listened to."""

    async def handler(peer: Peer) -> None:
        try:
            while await peer.request() is not None:
                for part in parts():
                    await peer.send(part)
                    await trio.lowlevel.checkpoint()
        except trio.BrokenResourceError:
            pass

    async with served_by(handler) as client:
        yield client


@asynccontextmanager
async def served_by(handler: Handler, **more: str) -> AsyncIterator[OllamaClient]:
    async with trio.open_nursery() as nursery:
        server = await start(nursery, handler)
        client = OllamaClient(ServerSpec.model_validate({"id": "evil", "url": server.url, **more}))
        yield client
        await client.aclose()
        nursery.cancel_scope.cancel()


async def test_an_error_that_repeats_our_key_is_told_without_it() -> None:
    said = b'{"error":"Incorrect API key provided: sk-of-the-server"}'

    async def handler(peer: Peer) -> None:
        while (head := await peer.request()) is not None:
            assert b"Bearer sk-of-the-server" in head
            await peer.send(b"HTTP/1.1 401 No\r\ncontent-length: %d\r\n\r\n" % len(said) + said)

    async with served_by(handler, api_key="sk-of-the-server") as client:
        status, body = await client.delete("llama3:8b")
        assert (status, body) == (401, b'{"error":"Incorrect API key provided: ***REDACTED***"}')


WITHOUT_END = {
    "early hints": endless(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"),
    "many early hints in one piece": endless(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2000),
    "continues": endless(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "processing": endless(b"HTTP/1.1 102 Processing\r\n\r\n"),
    "fat interim answers": endless(b"HTTP/1.1 103 Early Hints\r\nx: " + b"p" * 30_000 + b"\r\n\r\n"),
    "a head": endless(b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n" * 500),
    "one field": endless(b"HTTP/1.1 200 OK\r\nx: ", b"x" * 1000),
    "a status line": endless(b"HTTP/1.1 200 ", b"O" * 1000),
    "chunks": endless(_CHUNKED, b"400\r\n" + b" " * 1024 + b"\r\n"),
    "a body until the end of the connection": endless(_HEAD + b"\r\n", b" " * 65536),
    "a trailer": endless(_CHUNKED + b"2\r\n{}\r\n0\r\n", b"x-a: b\r\n" * 500),
    "a chunk extension": endless(_CHUNKED + b"2;", b"a" * 1000),
    "a body of announced petabytes": endless(_HEAD + b"content-length: 999999999999999\r\n\r\n", b" " * 65536),
}


@pytest.mark.parametrize("what", WITHOUT_END)
async def test_an_answer_without_end_is_ended_by_us(what: str) -> None:
    """Long before the time allowed is over."""
    with trio.fail_after(20):
        async with answered(WITHOUT_END[what]) as client:
            for call in (client.tags, client.version):
                with pytest.raises(BackendBroke):
                    await call(timeout=60.0)


DRIPPING = {
    "of the head": (b"HTTP/1.1 200 OK\r\n", b"x"),
    "of the body": (_HEAD + b"content-length: 1000000\r\n\r\n", b" "),
    "of chunks": (_CHUNKED, b"1\r\n \r\n"),
    "of interim answers": (b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
}


@pytest.mark.parametrize("what", DRIPPING)
async def test_a_dripping_answer_has_a_deadline_as_a_whole(what: str) -> None:
    first, drop = DRIPPING[what]

    async def handler(peer: Peer) -> None:
        await peer.request()
        try:
            await peer.send(first)
            while True:
                await trio.sleep(0.04)
                await peer.send(drop)
        except trio.BrokenResourceError:
            pass

    with trio.fail_after(20):
        async with served_by(handler) as client:
            with pytest.raises(FirstByteTimeout, match=r"did not answer within 0\.3 s"):
                await client.tags(0.3)


_ROW = b'{"name":"m","digest":"%s"}'
REFUSED = {
    "a bomb": whole(gzip.compress(b" " * 2**24), b"content-encoding: gzip\r\n"),
    "many values": whole(b'{"models":[' + b"[]," * 70_000 + b"[]]}"),
    "many keys": whole(b'{"a":{' + b",".join(b'"%d":1' % n for n in range(70_000)) + b"}}"),
    "depth": whole(b'{"models":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a number of a million digits": whole(b'{"models":[],"n":' + b"9" * 1_000_000 + b"}"),
    "no list": whole(b'{"models":{"a":1}}'),
    "no object": whole(b"[]"),
    "a byte that is no UTF-8": whole(b'{"models":["\xff"]}'),
    "a NUL in the head": b"HTTP/1.1 200 OK\r\nx: a\x00b\r\ncontent-length: 2\r\n\r\n{}",
    "many fields": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 5000 + b"content-length: 2\r\n\r\n{}",
    "a redirect": b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
    "an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_is_no_list_of_models_is_a_bad_answer(what: str) -> None:
    with trio.fail_after(20):
        async with answered(lambda: iter([REFUSED[what]])) as client:
            with pytest.raises(BackendError) as caught:
                await client.tags(5.0)
    assert len(str(caught.value)) < 300, "nothing of what was said is quoted"


async def test_rows_are_models_with_names_that_may_stand_in_a_log() -> None:
    rows = [
        b'{"name":"good"}',
        b'{"name":"fat","digest":"' + b"d" * 1_000_000 + b'","size":7}',
        b'{"name":"' + b"n" * 1_000_000 + b'"}',
        b'{"name":"a\\u0000b"}',
        b'{"name":"a\\nERROR forged"}',
        b'{"name":"a\\n"}',
        b'{"name":"\\u001b[2J"}',
        b'{"name":7}',
        b'{"name":""}',
        b"null",
        b'"text"',
    ]
    async with answered(lambda: iter([whole(b'{"models":[' + b",".join(rows) + b"]}")])) as client:
        found = await client.tags(20.0)
    assert found == [{"name": "good"}, {"name": "fat", "size": 7}]


@pytest.mark.parametrize(
    ("said", "known"),
    [
        (b'"0.33.0"', "0.33.0"),
        (b'"0.12.6-rc0+x"', "0.12.6-rc0+x"),
        (b'"' + b"1" * 65 + b'"', None),
        (b'"0.1\\nforged"', None),
        (b'"0.1\\u0000"', None),
        (b'"\\u001b[31m"', None),
        (b'" "', None),
        (b'""', None),
        (b"7", None),
        (b"null", None),
    ],
)
async def test_a_version_is_a_short_plain_word(said: bytes, known: str | None) -> None:
    async with answered(lambda: iter([whole(b'{"version":%s}' % said)])) as client:
        assert await client.version(20.0) == known


async def test_a_long_honest_list_is_read() -> None:
    rows = b",".join(b'{"name":"m%d","size":1,"details":{"families":["llama"]}}' % n for n in range(4000))
    async with answered(lambda: iter([whole(b'{"models":[' + rows + b"]}")])) as client:
        assert len(await client.tags(20.0)) == 4000


async def test_an_answer_of_ten_megabytes_to_an_order_is_not_kept() -> None:
    async with answered(lambda: iter([whole(b" " * 10_000_000)])) as client:
        with pytest.raises(BadAnswer, match="more than 262144 bytes"):
            await client.delete("m")
