"""Engine.IO by websocket, over real sockets: from the start, taken over from polling, slow clients, ends."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import replace
from itertools import count
from random import Random
from typing import Any

import pytest
import trio
from hypercorn.protocol.ws_stream import FrameTooLargeError
from trio_websocket import ConnectionClosed
from wsproto.events import TextMessage
from wsproto.utilities import LocalProtocolError

from tests.kit.clients.edge import noted_edges
from tests.kit.clients.leavers import broken_off
from tests.kit.fleets.live import (
    CALM,
    FORGIVING,
    QUICK,
    THREE,
    Dashboard,
    FakeFeed,
    dashboard,
    message,
    metrics,
    quick,
    update,
)
from tests.web.edge.test_websocket_tunnel import frame, upgrade
from web.asgi.hypercorn_connection import Gathered

KEY = "fleet_" + "k" * 43
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


async def code_of(socket: Any) -> int:
    """The code with which the server closes; what comes before is dropped."""
    with trio.fail_after(60), contextlib.suppress(ConnectionClosed):
        while True:
            await socket.get_message()
    return int(socket.closed.code)


async def connected(socket: Any) -> None:
    assert (await message(socket)).startswith('0{"sid":"')
    await socket.send_message("40")
    while (said := await message(socket)) == "2":  # whoever is slow is asked whether it is there before
        await socket.send_message("3")
    assert said.startswith('40{"sid":"')


async def test_a_websocket_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch) as board:
        async with board.websocket() as socket:
            opened = json.loads((await message(socket))[1:])
            assert opened["upgrades"] == []
            await socket.send_message("40")
            assert (await message(socket)).startswith('40{"sid":"')
            assert board.feed.only.transport == "websocket"
            board.feed.tell(*THREE)
            heard = [json.loads((await message(socket))[2:])[0] for _ in THREE]
            assert heard == [each.event for each in THREE]
            await socket.send_message('421["request_update"]')
            assert [await message(socket), await message(socket)] == [
                '431[{"ok":true}]',
                '42["metrics_update",{"seq":1}]',
            ]
            async with board.client() as http:
                answer = await http.get(f"/socket.io/?EIO=4&transport=polling&sid={opened['sid']}")
                assert answer.json()["code"] == 3
        await board.feed.until(0)
        assert len(board.sessions) == 0


async def test_a_websocket_takes_over_from_polling_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch) as board, board.polling() as client:
        await client.connect()
        heard: list[str] = []

        async def listen() -> None:
            heard.extend(await client.poll())

        async with board.websocket(client.sid) as socket:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                await board.until_polled(client)
                await socket.send_message("2probe")
                assert await message(socket) == "3probe"
            assert heard == ["6"]
            assert await client.poll() == ["6"]  # asked before it knew of the probe
            board.feed.tell(metrics(1))
            assert board.feed.clients == {"polling": 1}
            await socket.send_message("5")
            assert await message(socket) == '42["metrics_update",{"seq":1}]'
            assert board.feed.clients == {"websocket": 1}
            assert (await client.http.get(client.path)).json()["code"] == 3
            assert (await client.post("3")).json()["code"] == 3
            refused = await client.http.get(f"/socket.io/?transport=websocket&sid={client.sid}", headers=UPGRADE)
            assert refused.json()["message"] == "the session has a websocket already"
            await socket.send_message('421["subscribe"]')
            assert await message(socket) == '431[{"ok":true,"topics":[]}]'
        await board.feed.until(0)


FAILURES: list[list[Any]] = [["2"], ["40"], ["2probe", "2probe"], ["2probe", "40"], [b"2probe"], []]


async def test_a_websocket_that_fails_to_take_over_leaves_polling_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch) as board, board.polling() as client:
        await client.connect()
        for number, said in enumerate(FAILURES):
            async with board.websocket(client.sid) as socket:
                for each in said:
                    await socket.send_message(each)
                if said:
                    await code_of(socket)
            board.feed.tell(metrics(number))
            while (packet := await client.next()) == "6":
                pass
            assert packet == f'42["metrics_update",{{"seq":{number}}}]', said


async def test_a_websocket_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async with quick(monkeypatch) as board, board.polling() as client, board.websocket(client.sid) as socket:
        assert await code_of(socket) == 1000


REFUSED = [
    ("EIO=3&transport=websocket", {"code": 5, "message": "Unsupported protocol version"}),
    ("transport=websocket", {"code": 5, "message": "Unsupported protocol version"}),
    ("EIO=4&transport=polling", {"code": 0, "message": "Transport unknown"}),
    ("EIO=4", {"code": 0, "message": "Transport unknown"}),
    ("EIO=4&transport=websocket&sid=x", {"code": 1, "message": "Session ID unknown"}),
]


async def test_handshakes_outside_the_protocol_are_refused_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch) as board, board.client() as http:
        for query, body in REFUSED:
            answer = await http.get(f"/socket.io/?{query}", headers=UPGRADE)
            assert (answer.status_code, answer.json()) == (400, body), query


ENDS: list[tuple[Any, int]] = [
    ("abc", 1002), ("4abc", 1002), (b"bytes", 1002), ("2", 1002), ("", 1002), ("1", 1000), ("4" * 70_000, 1009),
]  # fmt: skip


async def test_each_end_has_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch) as board:
        for said, code in ENDS:
            async with board.websocket() as socket:
                await connected(socket)
                await socket.send_message(said)
                assert await code_of(socket) == code, said[:10]
                await board.feed.until(0)


async def test_a_message_that_does_not_end_is_not_gathered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hypercorn told its sender that this is too much, and went on collecting."""
    async with dashboard(monkeypatch) as board, board.websocket() as socket:
        await connected(socket)
        sent = 0
        with trio.fail_after(60), contextlib.suppress(ConnectionClosed, LocalProtocolError):
            while board.feed.viewers:
                await socket._send(TextMessage(data="4" * 60_000, message_finished=False))
                sent += 1
                await trio.sleep(0.01)
        assert sent > 1


def test_what_is_too_large_is_let_go_and_stays_too_large() -> None:
    gathered = Gathered(10)
    gathered.extend(TextMessage(data="1234567890"))
    for _ in range(2):
        with pytest.raises(FrameTooLargeError):
            gathered.extend(TextMessage(data="1"))
        assert gathered.value is None


async def test_a_client_that_answers_pings_stays_and_a_silent_one_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch, timing=FORGIVING) as board, board.websocket() as socket:
        await connected(socket)
        for _ in range(3):
            assert await message(socket) == "2"
            await socket.send_message("3")
        assert len(board.feed.viewers) == 1
        board.sessions.timing = QUICK
        assert await code_of(socket) == 1001
        assert not board.feed.viewers


async def test_at_the_end_websockets_are_closed_so_that_clients_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch) as board, board.websocket() as socket:
        await connected(socket)
        board.fleet.stop.set()
        assert await code_of(socket) == 1012


async def test_a_client_that_leaves_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch) as board:
        for _ in range(3):
            async with board.websocket() as socket:
                await connected(socket)
                await board.feed.until(1)
            await board.feed.until(0)
        assert len(board.sessions) == 0


async def test_keys_and_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    secured = {"require_api_key": True, "api_keys": [KEY]}
    async with dashboard(monkeypatch, security=secured, cors={"origins": ["http://page.example"]}) as board:
        async with board.websocket() as socket:
            await message(socket)
            await socket.send_message("40")
            assert (await message(socket)).startswith('44{"message":"a valid API key is needed"')
            await socket.send_message(f'40{{"token":"{KEY}"}}')
            assert (await message(socket)).startswith("40{")
        async with board.websocket(
            headers=[("Authorization", f"Bearer {KEY}"), ("Origin", "http://page.example")]
        ) as socket:
            await connected(socket)
        async with board.client(origin="http://localhost:5173") as http:
            assert (await http.get("/socket.io/?EIO=4&transport=websocket", headers=UPGRADE)).status_code == 403


async def test_a_client_that_never_reads_costs_nobody_anything_and_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch, timing=replace(CALM, drain=0.3)) as board:
        deaf = await _deaf(board)
        async with board.websocket() as socket:
            await connected(socket)
            await board.feed.until(2)
            with trio.fail_after(60):
                for number in count():
                    board.feed.tell(update("metrics_update", seq=number, filler="x" * 500_000))
                    assert (await message(socket)).startswith(f'42["metrics_update",{{"seq":{number},')
                    if len(board.feed.viewers) == 1:
                        break
                    await trio.sleep(0.01)
        await deaf.aclose()


async def test_whoever_leaves_in_whatever_state_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A storm of clients that break off anywhere: in a handshake, a poll, a post, an upgrade, in the midst of words."""
    edges = noted_edges(monkeypatch)
    room = {"max_clients": 1000, "max_clients_per_address": 1000}
    timing = replace(QUICK, pong=5.0, connect=5.0)  # else on a slow machine hardly anybody comes in
    async with dashboard(monkeypatch, timing=timing, feed=FakeFeed(most=1000), dashboard=room) as board:
        before = len(os.listdir("/dev/fd"))
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for seed in range(100):
                    nursery.start_soon(broken_off, board.port, Random(seed))
                while len(nursery.child_tasks):
                    board.feed.tell(metrics(0))
                    await trio.sleep(0.02)
            while board.sessions or board.feed.viewers or edges[-1].connections:
                await trio.sleep(0.02)
            pool = edges[-1].cold._pool  # idle connections to the app may stay; both their ends are ours
            while len(os.listdir("/dev/fd")) - before > 2 * pool.idle:
                await trio.sleep(0.02)
        assert board.feed.joined > 30


async def _deaf(board: Dashboard) -> trio.SocketStream:
    """A client that connects, and then reads nothing any more."""
    stream = await trio.open_tcp_stream("127.0.0.1", board.port)
    await stream.send_all(upgrade("/socket.io/?EIO=4&transport=websocket"))
    heard = b""
    while b"pingInterval" not in heard:
        heard += await stream.receive_some(1000)
    await stream.send_all(frame(b"40"))
    return stream
