"""Engine.IO by polling, over real sockets: handshake, polls, posts, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import trio

import web.edge.connection
from tests.e2e.support import until
from tests.kit.fleets.live import FORGIVING, QUICK, THREE, dashboard, metrics, quick

HANDSHAKE = "/socket.io/?EIO=4&transport=polling"
KEY = "fleet_" + "k" * 43

REFUSED: list[tuple[str, str, str, dict[str, Any]]] = [
    ("no version", "GET", "transport=polling", {"code": 5, "message": "Unsupported protocol version"}),
    ("version 3", "GET", "EIO=3&transport=polling", {"code": 5, "message": "Unsupported protocol version"}),
    ("no transport", "GET", "EIO=4", {"code": 0, "message": "Transport unknown"}),
    ("odd transport", "GET", "EIO=4&transport=abc", {"code": 0, "message": "Transport unknown"}),
    ("no upgrade", "GET", "EIO=4&transport=websocket", {"code": 3, "message": "a websocket begins with an upgrade"}),
    ("POST", "POST", "EIO=4&transport=polling", {"code": 2, "message": "Bad handshake method"}),
    ("PUT", "PUT", "EIO=4&transport=polling", {"code": 2, "message": "Bad handshake method"}),
    ("HEAD", "HEAD", "EIO=4&transport=polling", {}),
    ("unknown id", "GET", "EIO=4&transport=polling&sid=x", {"code": 1, "message": "Session ID unknown"}),
    ("post, unknown id", "POST", "EIO=4&transport=polling&sid=x", {"code": 1, "message": "Session ID unknown"}),
]


async def test_requests_outside_the_protocol_are_refused_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch) as board, board.client() as http:
        for name, method, query, body in REFUSED:
            answer = await http.request(method, f"/socket.io/?{query}")
            assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json"), name
            assert method == "HEAD" or answer.json() == body, name
        assert len(board.sessions) == 0
        assert (await http.get("/socket.io/more?EIO=4&transport=polling")).status_code == 404
        async with board.fleet.client() as proxy:
            assert (await proxy.get(HANDSHAKE)).status_code == 404


@pytest.mark.parametrize("path", ["/socket.io/", "/socket.io"])
async def test_a_session_from_its_handshake_to_its_end(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch) as board, board.client() as http:
        answer = await http.get(f"{path}?EIO=4&transport=polling&t=abc")
        assert answer.headers["content-type"] == "text/plain; charset=UTF-8"
        assert answer.headers["cache-control"] == "no-store"
        opened = json.loads(answer.text[1:])
        sid = opened.pop("sid")
        assert len(sid) >= 20
        assert opened == {"upgrades": ["websocket"], "pingInterval": 25000, "pingTimeout": 20000, "maxPayload": 65536}
        session = f"{path}?EIO=4&transport=polling&sid={sid}"
        assert (await http.post(session, content=b"40")).text == "ok"
        assert (await http.get(session)).text.startswith('40{"sid":"')
        board.feed.tell(*THREE)
        heard = [(await http.get(session)).text for _ in THREE]
        assert [json.loads(each[2:])[0] for each in heard] == [each.event for each in THREE]
        assert (await http.post(session, content=b"1")).text == "ok"
        assert (await http.get(session)).json() == {"code": 1, "message": "Session ID unknown"}
        assert not board.feed.viewers


async def test_several_packets_and_bytes_in_one_post(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch) as board, board.polling() as client:
        await client.connect()
        event = '451-1["request_update",{"_placeholder":true,"num":0}]'
        assert (await client.post("3", event, "bAQID", '422["set_rate",0.5]')).text == "ok"
        assert [await client.next() for _ in range(3)] == [
            '431[{"ok":true}]',
            '432[{"ok":true,"hz":0.5}]',
            '42["metrics_update",{"seq":1}]',
        ]
        assert board.feed.only.rate == 0.5


async def test_a_poll_waits_for_something_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch) as board, board.polling() as client, trio.open_nursery() as nursery:
        await client.connect()
        heard: list[str] = []

        async def listen() -> None:
            heard.extend(await client.poll())

        nursery.start_soon(listen)
        await board.until_polled(client)
        assert not heard
        await client.post('427["subscribe"]')
        await until(lambda: heard)
        assert heard == ['437[{"ok":true,"topics":[]}]']


async def test_whoever_polls_twice_at_once_loses_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch) as board, board.polling() as client, trio.open_nursery() as nursery:
        await client.connect()
        first: list[httpx.Response] = []

        async def listen() -> None:
            first.append(await client.http.get(client.path))

        nursery.start_soon(listen)
        await board.until_polled(client)
        assert (await client.http.get(client.path)).json()["code"] == 3
        await until(lambda: first)
        assert first[0].json()["code"] == 1
        assert (await client.http.get(client.path)).json()["code"] == 1
        assert not board.feed.viewers


async def test_whoever_hangs_up_during_a_poll_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web.edge.connection, "_GRACE", 0.05)
    async with dashboard(monkeypatch) as board, board.polling() as client:
        await client.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.poll)
            await board.until_polled(client)
            nursery.cancel_scope.cancel()
        await board.feed.until(0)
        assert len(board.sessions) == 0


async def test_a_goodbye_frees_an_open_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch) as board, board.polling() as client, trio.open_nursery() as nursery:
        await client.connect()
        heard: list[str] = []

        async def listen() -> None:
            heard.extend(await client.poll())

        nursery.start_soon(listen)
        await board.until_polled(client)
        assert (await client.post("1")).text == "ok"
        await until(lambda: heard)
        assert heard == ["6"]
        assert not board.feed.viewers


async def test_a_bad_post_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch) as board:
        for body in (b"abc", b"\xff", b"4abc", b"42[]", b"2", b"b****", b"3\x1e" * 100, b"40"):
            async with board.polling() as client:
                await client.connect()
                answer = await client.http.post(client.path, content=body)
                assert (answer.status_code, answer.json()["code"]) == (400, 3), body
                assert (await client.http.get(client.path)).json()["code"] == 1, body
                assert not board.feed.viewers, body


@pytest.mark.parametrize("announced", [True, False])
async def test_a_post_that_is_too_large_is_not_taken(announced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch, dashboard={"message_bytes": 2000}) as board, board.polling() as client:
        await client.connect()
        assert (await client.post('42["subscribe","' + "x" * 1900 + '"]')).status_code == 200

        async def pieces() -> Any:
            for _ in range(30):
                yield b"4" * 100

        body: Any = b"4" * 3000 if announced else pieces()
        answer = await client.http.post(client.path, content=body)
        assert (answer.status_code, answer.headers["x-fleet-error"]) == (413, "BODY_TOO_LARGE")
        assert not board.feed.viewers


async def test_two_posts_at_once_would_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch) as board, board.polling() as client, trio.open_nursery() as nursery:
        await client.connect()

        refused = trio.Event()

        async def slowly() -> Any:
            yield b"3\x1e"
            await refused.wait()
            yield b"3"

        async def post() -> None:
            await client.http.post(client.path, content=slowly())

        nursery.start_soon(post)
        await until(lambda: board.sessions.find(client.sid).posting)
        assert (await client.post("3")).json() == {"code": 3, "message": "one post at a time"}
        refused.set()
        assert not board.feed.viewers


async def test_a_client_that_answers_pings_stays_and_one_that_stops_polling_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with dashboard(monkeypatch, timing=FORGIVING) as board, board.polling() as client:
        assert client.opened["pingInterval"] == 100
        await client.connect()
        for _ in range(3):
            assert await client.next() == "2"
            await client.post("3")
        assert len(board.feed.viewers) == 1
        board.sessions.timing = QUICK
        await board.feed.until(0)
        assert (await client.http.get(client.path)).json()["code"] == 1


async def test_a_client_that_never_connects_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with quick(monkeypatch) as board, board.polling() as client:
        with trio.fail_after(60):
            while (answer := await client.http.get(client.path)).status_code == 200:
                assert answer.text == "2"
        assert answer.json()["code"] == 1
        assert len(board.sessions) == 0


async def test_too_many_clients_are_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch, dashboard={"max_clients_per_address": 1}) as board, board.polling() as client:
        await client.connect()
        answer = await client.http.get(HANDSHAKE)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        await client.post("1")
        assert (await client.http.get(HANDSHAKE)).status_code == 200


async def test_at_the_end_an_open_poll_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch) as board, board.polling() as client, trio.open_nursery() as nursery:
        await client.connect()
        told: list[httpx.Response] = []

        async def listen() -> None:
            told.append(await client.http.get(client.path))

        nursery.start_soon(listen)
        await board.until_polled(client)
        board.fleet.stop.set()
        with trio.fail_after(20):
            while not told:
                await trio.sleep(0.01)
        assert (told[0].status_code, told[0].json()["code"]) == (400, 1)


async def test_with_keys_a_client_gets_in_without_one_and_learns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    secured = {"require_api_key": True, "api_keys": [KEY]}
    async with dashboard(monkeypatch, security=secured) as board:
        async with board.polling() as client:
            assert (await client.connect()).startswith('44{"message":"a valid API key is needed"')
            assert (await client.connect('40{"token":"nonsense"}')).startswith("44{")
            board.feed.tell(metrics(1))
            assert not board.feed.viewers
            assert (await client.connect(f'40{{"token":"{KEY}"}}')).startswith("40{")
        async with board.polling(**{"x-api-key": KEY}) as client:
            assert (await client.connect()).startswith("40{")
        async with board.client() as http:
            assert (await http.get("/api/orchestrator/servers")).status_code == 401
        async with board.fleet.client() as proxy:
            assert (await proxy.get(HANDSHAKE)).status_code == 401


ORIGINS = [
    ("http://evil.example", "", 403),
    ("http://localhost:5173", "", 403),
    ("http://page.example", "", 200),
    ("", "cross-site", 403),
    ("", "same-origin", 200),
]


async def test_pages_of_other_origins_are_kept_out_unless_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch, cors={"origins": ["http://page.example"]}) as board, board.client() as http:
        for origin, site, status in ORIGINS:
            fields = {"origin": origin} if origin else {"sec-fetch-site": site}
            answer = await http.get(HANDSHAKE, headers=fields)
            assert answer.status_code == status, (origin, site)
            if origin and status == 200:
                assert answer.headers["access-control-allow-origin"] == origin
        same = await http.get(HANDSHAKE, headers={"origin": board.url})
        assert same.status_code == 200
