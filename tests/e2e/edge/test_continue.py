"""`Expect: 100-continue`: nobody is invited before his body is wanted, and whoever is not invited is told why."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from tests.kit.clients.edge import browser, in_front_of, whole_answer
from tests.kit.clients.raw import request_bytes

DONE = b'{"model":"m","response":"","done":true,"done_reason":"stop"}\n'
BODY = b'{"model":"m","prompt":"x","stream":false}'
EXPECT = "Expect: 100-continue"
INVITATION = b"HTTP/1.1 100 Continue\r\n\r\n"
BLOB = "/api/blobs/sha256:" + "0" * 64


def whole(head: bytes, body: bytes) -> Sequence[bytes]:
    return [whole_answer(DONE)]


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("path", ["/api/generate", "/api/copy", "/api/generate--raw"])
async def test_a_client_that_waits_is_invited_and_keeps_its_connection(path: str, framing: str) -> None:
    body = BODY if framing == "length" else b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    field = f"Content-Length: {len(BODY)}" if framing == "length" else "Transfer-Encoding: chunked"
    async with in_front_of(whole) as (fleet, _):
        client = await browser(fleet.url)
        async with client.stream:
            for _ in range(2):
                await client.send(request_bytes("POST", path, None, EXPECT, field))
                assert await client._exactly(len(INVITATION)) == INVITATION
                await client.send(body)
                reply = await client.answer("POST")
                assert (reply.closes, reply.interim) == (False, ())
                assert reply.status in (200, 400), "copy lacks its names"


@pytest.mark.parametrize("path", ["/api/generate", BLOB])
async def test_a_body_that_comes_uninvited_is_taken(path: str) -> None:
    async with in_front_of(whole) as (fleet, backend):
        client = await browser(fleet.url)
        async with client.stream:
            for _ in range(2):
                await client.send(request_bytes("POST", path, BODY, EXPECT))
                reply = await client.answer("POST")
                assert (reply.status, reply.closes) == (200, False)
                assert set(reply.interim) <= {100}
        assert [body for _, body in backend.seen] == [BODY, BODY]


REFUSED = [
    ("/api/generate", ("Content-Length: 200000000",), 413),
    ("/api/pull", ("Content-Length: 200000000",), 413),
    ("/nowhere", ("Content-Length: 5",), 404),
    ("/nowhere", ("Transfer-Encoding: chunked",), 404),
    ("/api/generate", ("Content-Length: 5", "Origin: http://evil.example"), 403),
    ("/api/pull", ("Content-Length: 5", "Origin: http://evil.example"), 403),
]


@pytest.mark.parametrize(("path", "fields", "status"), REFUSED)
async def test_whoever_is_refused_is_not_invited(path: str, fields: tuple[str, ...], status: int) -> None:
    async with in_front_of(whole) as (fleet, backend):
        client = await browser(fleet.url)
        async with client.stream:
            await client.send(request_bytes("POST", path, None, EXPECT, *fields))
            reply = await client.answer("POST")
            assert (reply.status, reply.interim, reply.closes) == (status, (), True)
            assert not await client.rest(5.0)
        assert not backend.seen


@pytest.mark.parametrize("path", ["/api/generate", BLOB])
async def test_nobody_waits_for_ever_for_an_invited_body(path: str) -> None:
    async with in_front_of(whole, timeouts={"body_idle": 0.4}) as (fleet, _):
        client = await browser(fleet.url)
        async with client.stream:
            await client.send(request_bytes("POST", path, None, EXPECT, "Content-Length: 5"))
            assert await client._exactly(len(INVITATION)) == INVITATION
            reply = await client.answer("POST", within=20.0)
            assert (reply.status, reply.closes) == (408, True)
            assert not await client.rest(5.0)


async def test_an_invited_client_that_leaves_frees_everything() -> None:
    async with in_front_of(whole) as (fleet, _):
        for path in ("/api/generate", BLOB):
            client = await browser(fleet.url)
            await client.send(request_bytes("POST", path, None, EXPECT, "Content-Length: 5"))
            assert await client._exactly(len(INVITATION)) == INVITATION
            await client.stream.aclose()
            await trio.testing.wait_all_tasks_blocked(0.02)
            fleet.assert_nothing_left()
