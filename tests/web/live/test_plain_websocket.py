"""The feed over a plain websocket: real sockets, from the dashboard's port to the simulated servers."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from socket import SO_RCVBUF, SOL_SOCKET
from types import SimpleNamespace
from typing import Any

import httpx
import orjson
import pytest
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream

from actors.observability.dashboard.collector import Collector
from fleet.observability.dashboard.snapshot import FleetSnapshot
from tests.kit.clients.raw import request_bytes
from tests.kit.clients.watching import Replica, watched
from tests.kit.fleets.served import Served, served
from web.asgi import hypercorn_connection
from web.live import plain_websocket
from web.live.admission import Credentials

KEYS: dict[str, Any] = {
    "require_api_key": True,
    "keys": [{"name": role, "role": role, "key": f"{role}-key-0123456789"} for role in ("client", "operator")],
}
QUICK = {"interval": 0.2}
"""Seconds; as little as may be configured."""
HANDSHAKE = request_bytes(
    "GET",
    "/ws",
    None,
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)
NONSENSE = ("", "{", "[]", '{"event": 7}', '{"event": "sudo"}', '{"event": "set_rate", "data": {}}')


def address(fleet: Served) -> tuple[str, int]:
    host, port = fleet.dashboard_url.partition("://")[2].split(":")
    return host, int(port)


@asynccontextmanager
async def watching(fleet: Served, **headers: str) -> AsyncIterator[WebSocketConnection]:
    """A client, closed whatever comes of it."""
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    async with await trio.open_tcp_stream(*address(fleet)) as stream, trio.open_nursery() as nursery:
        socket = await wrap_client_stream(nursery, stream, "127.0.0.1", "/ws", extra_headers=fields)
        yield socket
        with trio.move_on_after(5):
            await socket.aclose()


def hurry(fleet: Served, interval: float = 0.05) -> None:
    """Updates more often than may be configured."""
    config = fleet.system.config
    dashboard = config.dashboard.model_copy(update={"interval": interval})
    fleet.system.config_ref.put(config.model_copy(update={"dashboard": dashboard}))


async def narrow(fleet: Served) -> trio.SocketStream:
    """A connection for which the kernel does not keep megabytes."""
    socket = trio.socket.socket()
    socket.setsockopt(SOL_SOCKET, SO_RCVBUF, 4096)
    await socket.connect(address(fleet))
    return trio.SocketStream(socket)


async def told(socket: WebSocketConnection, event: str = "metrics_update") -> Any:
    """The data of the next such event."""
    while True:
        message = orjson.loads(await socket.get_message())
        assert set(message) == {"event", "data"}
        if message["event"] == event:
            return message["data"]


async def ending(socket: WebSocketConnection) -> int:
    """The code with which the fleet closes it."""
    try:
        while True:
            await socket.get_message()
    except ConnectionClosed as closed:
        return int(closed.reason.code) if closed.reason else 0


async def refused(fleet: Served, **headers: str) -> int:
    """The status with which a handshake is refused."""
    with pytest.raises(BaseExceptionGroup) as caught:
        async with watching(fleet, **headers):
            raise AssertionError("it was let in")
    (error,) = caught.value.exceptions
    assert isinstance(error, ConnectionRejected), error
    return int(error.status_code)


async def until_gone(fleet: Served, left: int = 0) -> None:
    with trio.fail_after(60):
        while fleet.system.feed.clients["plain"] != left:
            await trio.sleep(0.01)


async def test_snapshots_and_deltas_make_a_state_and_wishes_are_heard() -> None:
    async with served("a") as fleet:
        hurry(fleet)
        with trio.fail_after(60):
            async with watching(fleet) as socket:
                replica = Replica()
                for _ in range(4):
                    replica.take(await told(socket))
                assert replica.kinds == ["snapshot", "delta", "delta", "delta"]
                await socket.send_message('{"event": "request_update"}')
                while replica.kinds[-1] != "snapshot":
                    replica.take(await told(socket))
                assert replica.lost == 0
                assert replica.state is not None
                assert replica.state.servers["a"]["state"] == "ok"
                assert (await told(socket))["metrics"]["active_requests"] == 0
                async with httpx.AsyncClient(base_url=fleet.dashboard_url, trust_env=False) as client:
                    status = (await client.get("/api/status")).json()
                assert status["connected_clients"] == 1
            await until_gone(fleet)


async def test_nonsense_is_answered_and_what_is_no_text_ends_it() -> None:
    async with served("a", dashboard={"message_bytes": 1024}) as fleet:
        with trio.fail_after(60):
            async with watching(fleet) as socket:
                for nonsense in NONSENSE:
                    await socket.send_message(nonsense)
                    assert (await told(socket, "error"))["code"] == "INVALID_REQUEST"
                await socket.send_message('{"event": "set_rate", "data": {"hz": 0.5}}')
                await socket.send_message(b"\x00\x01")
                assert await ending(socket) == plain_websocket.NOT_TEXT
            for long in ("x" * 1025, "\N{SNOWMAN}" * 400):
                async with watching(fleet) as socket:
                    await socket.send_message(long)
                    assert await ending(socket) == plain_websocket.TOO_LONG
            await until_gone(fleet)


async def test_only_operators_may_watch_and_only_from_pages_of_ours() -> None:
    async with served("a", security=KEYS) as fleet:
        with trio.fail_after(60):
            assert await refused(fleet) == 401
            assert await refused(fleet, authorization="Bearer wrong-key-0123456789") == 401
            assert await refused(fleet, authorization="Bearer client-key-0123456789") == 403
            good = {"authorization": "Bearer operator-key-0123456789"}
            assert await refused(fleet, origin="https://evil.example", **good) == 403
            async with watching(fleet, **good) as socket:
                assert (await told(socket))["kind"] == "snapshot"


async def test_a_key_that_is_revoked_ends_the_feed() -> None:
    async with served("a", security=KEYS, dashboard=QUICK) as fleet:
        with trio.fail_after(60):
            async with watching(fleet, x_api_key="operator-key-0123456789") as socket:
                await told(socket)
                config = fleet.system.config
                security = config.security.model_copy(update={"keys": config.security.keys[:1]})
                fleet.system.config_ref.put(config.model_copy(update={"security": security}))
                assert await ending(socket) == plain_websocket.UNWANTED


async def test_one_client_too_many_is_refused_until_one_leaves() -> None:
    async with served("a", dashboard={"max_clients": 1}) as fleet:
        with trio.fail_after(60):
            async with watching(fleet) as socket:
                await told(socket)
                assert await refused(fleet) == 503
            await until_gone(fleet)
            async with watching(fleet) as socket:
                await told(socket)


async def test_when_the_fleet_stops_clients_are_told_to_come_back() -> None:
    async with served("a") as fleet:
        with trio.fail_after(60):
            async with watching(fleet) as socket:
                await told(socket)
                fleet.stop.set()
                assert await ending(socket) == plain_websocket.STOPPING


async def test_a_client_that_never_reads_is_let_go_and_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_websocket, "DRAIN", 0.4)
    real = Collector._collect

    async def big(collector: Collector, now: float) -> FleetSnapshot:
        state = await real(collector, now)
        return replace(state, fleet={**state.fleet, "headline": secrets.token_hex(500_000)})

    async with served("a") as fleet:
        hurry(fleet)
        with trio.fail_after(60):
            async with await narrow(fleet) as stuck, watching(fleet) as socket:
                await stuck.send_all(HANDSHAKE)
                await stuck.receive_some(1000)
                while fleet.system.feed.clients["plain"] < 2:
                    await told(socket)
                monkeypatch.setattr(Collector, "_collect", big)
                heard = 0
                while fleet.system.feed.clients["plain"] == 2:
                    await told(socket)
                    heard += 1
                assert heard > 1, "nobody waits for the one that is stuck"
                assert fleet.system.feed.skipped > 0
                await told(socket)


@pytest.mark.parametrize(
    "data", [b"\x82\x80AAAA", b"\x81\xff" + (2**20 + 2).to_bytes(8, "big") + b"AAAA" + b"9" * (2**20 + 2)]
)
async def test_a_client_that_ignores_our_farewell_loses_its_place_and_its_connection(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes, and more text than is gathered at all."""
    monkeypatch.setattr(hypercorn_connection, "GOODBYE", 0.05)
    async with served("a") as fleet:
        with trio.fail_after(60):
            async with await trio.open_tcp_stream(*address(fleet)) as stream:
                await stream.send_all(HANDSHAKE)
                await stream.receive_some(1000)
                await stream.send_all(data)
                await until_gone(fleet)
                while await stream.receive_some(65536):
                    pass


async def test_whoever_is_said_to_have_gone_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Quart says it since 0.23, from either direction."""

    class Gone(Exception):
        pass

    async def gone(*_said: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise Gone

    monkeypatch.setattr(plain_websocket, "GONE", (Gone,))
    monkeypatch.setattr(plain_websocket, "websocket", SimpleNamespace(receive=gone, send=gone))
    async with watched("a") as here:
        viewer = here.feed.join("10.0.0.1", "plain")
        with trio.fail_after(60):
            await plain_websocket._Talk(here.system, viewer, Credentials((), here.system)).run()
