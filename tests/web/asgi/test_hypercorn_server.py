"""The server underneath: no client can take it down, hold it up, or keep it from stopping."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.web.edge.raw import Served, head, served
from web.asgi.hypercorn_connection import HypercornConnection
from web.process import raw_connection as wire
from web.process.bind import HostUnusable, PortTaken, bind
from web.process.raw_connection import wire_of


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Reads the whole body, then answers."""
    assert scope["type"] in ("http", "websocket"), "no lifespan here"
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        return
    await wire_of(scope).invite()
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


async def flood(scope: Any, receive: Any, send: Any) -> None:
    """Never stops sending."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})


async def still_works(server: Served) -> None:
    wire = await server.connect()
    assert (await wire.ask("GET", "/")).body == b"hi"
    await wire.stream.aclose()


ODD_INPUTS = {
    "websocket upgrade with bytes behind it": head(
        "GET",
        "/",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
    )
    + b"\xff\xff\xff",
    "http/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "http/2 connect without a path": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    b"\x00\x00\x0a\x01\x05\x00\x00\x00\x01\x02\x07CONNECT",
    "h2c upgrade": head("GET", "/", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABk"),
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "garbage": b"\x00\x01\x02\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two lengths": head("POST", "/", "Content-Length: 1", "Content-Length: 2") + b"x",
    "length and chunked": head("POST", "/", "Transfer-Encoding: chunked", "Content-Length: 2") + b"0\r\n\r\n",
    "bad chunk": head("POST", "/", "Transfer-Encoding: chunked") + b"zz\r\n",
    "bare line ends": b"GET / HTTP/1.1\nHost: a\n\n",
    "connect": b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
    "unknown version": b"GET / HTTP/3.7\r\nHost: a\r\n\r\n",
    "absolute target": b"GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
    "nothing": b"",
    "half a head": b"GET / HT",
}


@pytest.mark.parametrize("what", ODD_INPUTS)
async def test_an_odd_client_harms_nobody_else(what: str) -> None:
    async with served(hello) as server:
        wire = await server.connect()
        await wire.send(ODD_INPUTS[what])
        await wire.stream.send_eof()
        assert await wire.closed()
        await still_works(server)


async def test_an_http2_client_is_told_that_its_version_is_not_spoken() -> None:
    async with served(hello) as server:
        wire = await server.connect()
        await wire.send(ODD_INPUTS["http/2 preface"])
        answer = await wire.answer()
        assert (answer.status, answer.body) == (505, b'{"error":"only HTTP/1.1 is spoken here"}')
        assert await wire.closed()


async def test_an_h2c_upgrade_is_answered_in_http_1() -> None:
    async with served(hello) as server:
        wire = await server.connect()
        await wire.send(ODD_INPUTS["h2c upgrade"])
        assert (await wire.answer()).body == b"hi"


async def test_http_1_0_is_answered_and_closed() -> None:
    async with served(hello) as server:
        wire = await server.connect()
        assert (await wire.ask("GET", "/", version="1.0")).body == b"hi"
        assert await wire.closed()


@pytest.mark.parametrize(
    ("status", "phrase"), [(200, "OK"), (404, "Not Found"), (503, "Service Unavailable"), (599, "")]
)
async def test_a_status_line_has_its_reason_phrase(status: int, phrase: str) -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async with served(answer) as server:
        answered = await (await server.connect()).ask("GET", "/")
        assert (answered.status, answered.reason) == (status, phrase)


BELOW_THE_APPLICATION = {
    "garbage": 400,
    "two lengths": 400,
    "connect": 405,
    "websocket upgrade with bytes behind it": 400,
    "http/2 preface": 505,
}


@pytest.mark.parametrize("what", BELOW_THE_APPLICATION)
async def test_an_answer_from_below_the_application_has_a_request_id_and_a_reason(what: str) -> None:
    async with served(hello) as server:
        wire = await server.connect()
        await wire.send(ODD_INPUTS[what])
        answer = await wire.answer()
        assert answer.status == BELOW_THE_APPLICATION[what]
        assert (len(answer["x-request-id"]), answer.reason != "") == (16, True)


async def test_expect_100_continue_is_answered_before_the_body() -> None:
    async with served(hello) as server:
        wire = await server.connect()
        await wire.send(head("POST", "/", "Expect: 100-continue", length=3))
        with trio.fail_after(20):
            assert (await wire.stream.receive_some()).startswith(b"HTTP/1.1 100 ")
        await wire.send(b"abc")
        assert (await wire.answer()).body == b"hi"


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with served(hello) as server:
        wire = await server.connect()
        await wire.send(head("GET", "/1") + head("GET", "/2"))
        assert (await wire.answer()).body == b"hi"
        assert (await wire.answer()).body == b"hi"


async def test_an_idle_connection_is_closed_after_its_time() -> None:
    async with served(hello, idle=0.05) as server:
        wire = await server.connect()
        assert (await wire.ask("GET", "/")).status == 200
        assert await wire.closed()


async def test_idle_connections_are_closed_at_once_when_the_server_stops() -> None:
    async with served(hello, drain_timeout=60.0) as server:
        fresh, used = await server.connect(), await server.connect()
        assert (await used.ask("GET", "/")).status == 200
        server.stop.set()
        assert await used.closed()
        assert await fresh.closed()
        with trio.fail_after(30):
            await server.stopped.wait()


async def test_a_running_response_may_end_after_the_server_was_told_to_stop() -> None:
    begun, go = trio.Event(), trio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        begun.set()
        await go.wait()
        await hello(scope, receive, send)

    async with served(slow, drain_timeout=60.0) as server:
        wire = await server.connect()
        await wire.send(head("GET", "/"))
        await begun.wait()
        server.stop.set()
        with pytest.raises(OSError, match=r"refused|connect"):
            await server.connect()
        go.set()
        assert (await wire.answer()).body == b"hi"
        assert await wire.closed()
        with trio.fail_after(30):
            await server.stopped.wait()


async def test_a_client_that_stopped_reading_does_not_hold_the_exit() -> None:
    async with served(flood, drain_timeout=0.2) as server:
        wire = await server.connect()
        await wire.send(head("GET", "/"))
        with trio.fail_after(20):
            await wire.stream.receive_some(10)
        server.stop.set()
        with trio.fail_after(20):
            await server.stopped.wait()


async def test_a_client_that_does_not_read_is_dropped_after_the_write_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(HypercornConnection, "write_timeout", 0.1)
    ended = trio.Event()

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        async with trio.open_nursery() as nursery:

            async def wait_for_the_end() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                ended.set()
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait_for_the_end)
            await flood(scope, receive, send)

    async with served(watched) as server:
        wire = await server.connect()
        await wire.send(head("GET", "/"))
        with trio.fail_after(20):
            await ended.wait()


async def test_an_app_that_crashes_answers_500_and_the_server_goes_on(expected_errors: list[str]) -> None:
    expected_errors.append("Error in ASGI Framework")

    async def crash(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError(scope["type"])

    async with served(crash) as server:
        wire = await server.connect()
        assert (await wire.ask("GET", "/")).status == 500
        assert (await (await server.connect()).ask("GET", "/")).status == 500


async def test_a_write_while_the_reader_closed_after_its_client_was_an_error() -> None:
    """The client has left within its body; to close takes the reader a moment, and the stream is busy in it."""

    async def writing(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        stream: Any = scope["extensions"][wire.KEY].stream
        with stream._send_conflict_detector:
            await hello(scope, receive, send)

    async with served(writing) as server:
        client = await server.connect()
        await client.send(head("GET", "/"))
        assert await client.closed()


async def test_a_taken_port_is_explained_in_one_sentence() -> None:
    bound = bind("127.0.0.1", 0, "server.proxy_port")
    try:
        with pytest.raises(PortTaken, match=rf"127\.0\.0\.1:{bound.port}.*server\.proxy_port"):
            bind("127.0.0.1", bound.port, "server.proxy_port")
    finally:
        bound.close()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".example", "203.0.113.7"])
def test_a_host_under_which_nobody_can_listen_is_explained_in_one_sentence(host: str) -> None:
    with pytest.raises(HostUnusable, match=r"^cannot listen on .*; change server\.host$"):
        bind(host, 0, "server.proxy_port")


async def test_a_head_over_the_limit_is_refused_with_words() -> None:
    async with served(hello, header_bytes=20_000) as server:
        wire = await server.connect()
        await wire.send(head("GET", "/", f"X: {'x' * 30_000}")[:25_000])
        answer = await wire.answer()
        assert (answer.status, b"limits.header_bytes" in answer.body, "x-request-id" in answer) == (431, True, True)
        await still_works(server)
