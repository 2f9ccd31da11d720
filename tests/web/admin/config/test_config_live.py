"""What the front end is told to do differently it does, from the next connection, request or byte on."""

from __future__ import annotations

import json
import logging
import math
import socket
import time
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import zstandard

from fleet.config import Config
from tests.kit.clients.admin import ask
from tests.kit.clients.lanes import EDGE
from tests.kit.clients.raw import request_bytes
from tests.kit.fleets.served import Served, served
from tests.web.fake_system import FakeSystem
from tests.web.test_serve import Draining, start
from web.app_reload import follower, patience
from web.asgi.quart_connection import TERMS_KEY
from web.edge.acceptor import Edge
from web.http.body_limits import BodyTerms
from web.process.bind import bind
from web.process.private_listener import private_socket
from web.security.request_gate import RequestGate

SHORT = {"model": "tiny", "prompt": "x", "stream": False, "options": {"num_predict": 1}}


async def patch(here: Served, section: str, **body: Any) -> None:
    await ask(here, "PATCH", f"/config/{section}", body)


async def connect(here: Served) -> trio.SocketStream:
    address = here.lanes[EDGE].partition("://")[2].split(":")
    return await trio.open_tcp_stream(address[0], int(address[1]))


async def said(stream: trio.SocketStream) -> bytes:
    """Until the other side closes; a reset counts."""
    found = b""
    try:
        while data := await stream.receive_some(65536):
            found += data
    except trio.BrokenResourceError:
        pass
    await trio.aclose_forcefully(stream)
    return found


async def test_the_size_of_bodies() -> None:
    async with served("a") as here, here.client() as client:
        big = {**SHORT, "prompt": "x" * 3000}
        copy = {"source": "tiny", "destination": "other", "more": "x" * 3000}
        assert (await client.post("/api/generate", json=big)).status_code == 200
        await patch(here, "limits", bodyBytes=2000)
        assert (await client.post("/api/generate", json=big)).status_code == 413
        assert (await client.post("/api/copy", json=copy)).status_code == 413  # not on the hot lane
        assert (await client.post("/api/generate", json=SHORT)).status_code == 200
        await patch(here, "limits", bodyBytes=100_000)
        assert (await client.post("/api/generate", json=big)).status_code == 200


async def test_the_size_of_bodies_after_decompression() -> None:
    async with served("a") as here, here.client(**{"content-encoding": "zstd"}) as client:
        body = zstandard.compress(json.dumps({"model": "tiny", "prompt": "x" * 5000, "max_tokens": 1}).encode())
        assert (await client.post("/v1/completions", content=body)).status_code == 200
        await patch(here, "limits", decodedBytes=2000)
        assert (await client.post("/v1/completions", content=body)).status_code == 413


async def test_the_memory_of_all_bodies() -> None:
    async with served("a") as here, here.client() as client:
        big = {**SHORT, "prompt": "x" * 3000}
        await patch(here, "limits", bufferedBytes=2000)
        answer = await client.post("/api/generate", json=big)
        assert (answer.status_code, answer.headers["x-fleet-error"]) == (503, "BODY_BUDGET")
        await patch(here, "limits", bufferedBytes=200_000)
        assert (await client.post("/api/generate", json=big)).status_code == 200


async def test_the_number_of_header_fields_also_of_heads_that_were_seen_before() -> None:
    async with served("a") as here:
        fields = [f"x-{number}: 1" for number in range(20)]
        head = request_bytes("GET", "/", None, *fields, "connection: close")
        for limit, status in ((100, b" 200 "), (16, b" 431 "), (50, b" 200 ")):
            await patch(here, "limits", headers=limit)
            stream = await connect(here)
            await stream.send_all(head)
            assert status in (await said(stream))[:20]


async def test_the_number_of_connections() -> None:
    async with served("a") as here:
        await patch(here, "limits", connections=2)
        first, second = await connect(here), await connect(here)
        for stream in (first, second):
            await stream.send_all(request_bytes("GET", "/"))
            assert b" 200 " in await stream.receive_some(65536)
        assert b" 503 " in (await said(await connect(here)))[:20]
        await first.aclose()
        await second.aclose()


async def test_how_long_clients_may_be_slow_or_idle() -> None:
    async with served("a") as here:
        with trio.fail_after(60):
            await patch(here, "timeouts", head=0.2)
            stream = await connect(here)
            await stream.send_all(b"GET / HT")
            assert b" 408 " in await said(stream)
            await patch(here, "timeouts", head=30, bodyIdle=0.2)
            stream = await connect(here)
            await stream.send_all(b"POST /api/generate HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{")
            assert b" 408 " in await said(stream)
            idle = await connect(here)
            await idle.send_all(request_bytes("GET", "/"))
            assert b" 200 " in await idle.receive_some(65536)
            await patch(here, "timeouts", keepAlive=0.1)
            assert await said(idle) == b""


async def test_whose_word_about_the_client_is_believed(caplog: pytest.LogCaptureFixture) -> None:
    async with served("a", security={"anonymous_role": "admin"}) as here:

        async def seen() -> str:
            stream = await connect(here)
            fields = ("x-forwarded-for: 10.1.2.3", "connection: close", "content-type: application/json")
            await stream.send_all(request_bytes("PATCH", "/api/orchestrator/config/queue", {}, *fields))
            assert b" 200 " in await said(stream)
            lines = [each for each in caplog.records if each.name == "fleet.admin"]
            return str(lines[-1].client)  # type: ignore[attr-defined]

        caplog.set_level(logging.INFO, "fleet.admin")
        assert await seen() == "127.0.0.1"
        await patch(here, "server", trustedProxies=["127.0.0.1"])
        assert await seen() == "10.1.2.3"
        await patch(here, "server", trustedProxies=[])
        assert await seen() == "127.0.0.1"


async def test_the_shape_of_errors_and_the_names_of_the_host() -> None:
    async with served("a") as here, here.client() as client:
        bad = {"model": "none-such", "prompt": "x"}
        for shape, kind in (("structured", dict), ("ollama", str), ("structured", dict)):
            await patch(here, "compat", nativeErrors=shape)
            answer = await client.post("/api/generate", json=bad)
            assert answer.status_code == 404
            assert isinstance(answer.json()["error"], kind)
        foreign = {"host": "fleet.example"}
        assert (await client.get("/api/tags", headers=foreign)).status_code == 403
        await patch(here, "security", allowedHosts=["fleet.example"])
        assert (await client.get("/api/tags", headers=foreign)).status_code == 200


async def test_what_was_limited_by_the_system_at_the_start_follows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.edge.acceptor.most_clients", lambda config: min(config.limits.connections, 500))
    bound = bind("127.0.0.1", 0, "test")
    system = FakeSystem()
    try:
        with private_socket(time.time()) as inner:
            terms = BodyTerms()
            edge = Edge(system.handle, RequestGate(system.handle), inner, terms, None, most=100)
            app = SimpleNamespace(config={TERMS_KEY: terms, "MAX_CONTENT_LENGTH": 1})
            follow = follower([app], edge, [bound])
            more = Config.model_validate({"limits": {"connections": 300}, "timeouts": {"write": 100}})
            follow(system.config, more)
            assert edge.most == 300
            assert edge.terms is app.config[TERMS_KEY]
            assert edge.terms.budget is terms.budget
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                options = {sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) for sock in bound.sockets}
                assert options == {130_000}
            edge = Edge(system.handle, RequestGate(system.handle), inner, terms, None)
            follow = follower([app], edge, [bound])
            follow(more, Config.model_validate({"limits": {"connections": 200}}))
            assert edge.most == math.inf  # nobody has counted descriptors here
            assert patience(Config()) == 90.0
    finally:
        bound.close()


async def test_a_drain_takes_as_long_as_the_latest_configuration_says() -> None:
    system, stop = Draining(drain_timeout=1000), trio.Event()
    system.open = 1
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await start(nursery, system, stop)
            system.config = system.config.model_copy(update={"drain_timeout": 0.1})
            stop.set()
            await system.revoked.wait()
