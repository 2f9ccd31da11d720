"""python-socketio's own client, unchanged, in a thread of its own, against the dashboard's port."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
import socketio
import socketio.exceptions
import trio

from tests.kit.fleets.live import FORGIVING, THREE, dashboard, fleet_with_alerts

KEY = "fleet_" + "k" * 43
EVENTS = [each.event for each in THREE]
WAYS = {"polling": ["polling"], "websocket": ["websocket"], "upgrade": ["polling", "websocket"]}
PATIENCE = 60.0

# A websocket that the server has closed is left to the garbage collector by this client.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    yield
    gc.collect()


class Watcher:
    """One client; its methods wait, so they belong into a thread."""

    def __init__(self, *, again: bool = False) -> None:
        self.seen: dict[str, list[Any]] = {}
        self.refused: list[Any] = []
        self.connects = 0
        self._changed = threading.Condition()
        self._client = socketio.Client(
            reconnection=again, reconnection_delay=0.1, reconnection_delay_max=0.2, handle_sigint=False
        )
        for event in EVENTS:
            self._client.on(event, partial(self._note, event))
        self._client.on("connect", self._connected)
        self._client.on("connect_error", self.refused.append)

    def connect(self, url: str, transports: Sequence[str], auth: Any = None) -> str:
        """Connect; by which transport that was."""
        self._client.connect(url, transports=list(transports), auth=auth, wait_timeout=PATIENCE)
        return str(self._client.transport())

    def ask(self, event: str, value: Any = None) -> Any:
        return self._client.call(event, value, timeout=PATIENCE)

    def until(self, holds: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(holds, timeout=PATIENCE)

    def leave(self) -> None:
        self._client.disconnect()
        self._client.eio.wait()

    def _note(self, event: str, payload: Any) -> None:
        with self._changed:
            self.seen.setdefault(event, []).append(payload)
            self._changed.notify_all()

    def _connected(self) -> None:
        with self._changed:
            self.connects += 1
            self._changed.notify_all()


async def in_thread(work: Callable[..., Any], *given: Any) -> Any:
    with trio.fail_after(2 * PATIENCE):
        return await trio.to_thread.run_sync(work, *given)


@pytest.mark.parametrize("way", WAYS)
async def test_it_watches(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch) as board:
        watcher = Watcher()
        assert await in_thread(watcher.connect, board.url, WAYS[way]) == (
            "polling" if way == "polling" else "websocket"
        )
        await board.feed.until(1)
        board.feed.tell(*THREE)
        await in_thread(watcher.until, lambda: set(watcher.seen) == set(EVENTS))
        assert await in_thread(watcher.ask, "request_update") == {"ok": True}
        assert await in_thread(watcher.ask, "set_rate", {"hz": 0.5}) == {"ok": True, "hz": 0.5}
        assert board.feed.only.rate == 0.5
        await in_thread(watcher.until, lambda: len(watcher.seen["metrics_update"]) == 2)
        assert watcher.seen == {
            "metrics_update": [{"seq": 0}, {"seq": 1}],
            "ai_status_update": [{"text": "all is well"}],
            "system_alert": [{"rule": "ServerDown"}],
        }
        await in_thread(watcher.leave)
        await board.feed.until(0)


async def test_it_watches_a_real_fleet_and_is_told_when_a_server_dies_and_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with fleet_with_alerts(monkeypatch, "a", "b") as fleet:
        watcher = Watcher()
        await in_thread(watcher.connect, fleet.dashboard_url, WAYS["upgrade"])
        await in_thread(watcher.until, lambda: {"metrics_update", "ai_status_update"} <= set(watcher.seen))
        first = watcher.seen["metrics_update"][0]
        assert first["kind"] == "snapshot"
        assert len(first["metrics"]) == 8
        assert [server["id"] for server in first["servers"]] == ["a", "b"]
        assert fleet.system.feed.clients["websocket"] == 1
        await in_thread(watcher.ask, "request_update")
        await in_thread(watcher.until, lambda: watcher.seen["metrics_update"][-1]["seq"] > first["seq"])
        await fleet.sims["b"].kill()
        await in_thread(watcher.until, lambda: "system_alert" in watcher.seen)
        await fleet.sims["b"].restart()
        await in_thread(watcher.until, lambda: len(watcher.seen["system_alert"]) == 2)
        fired, over = watcher.seen["system_alert"]
        assert fired.items() >= {"rule": "FleetServerDown", "state": "firing", "subject": {"server": "b"}}.items()
        assert (over["id"], over["state"]) == (fired["id"], "resolved")
        assert watcher.seen["ai_status_update"][-1]["source"] == "rules"
        await in_thread(watcher.leave)


async def test_it_answers_pings_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch, timing=FORGIVING) as board:
        watchers = [Watcher(), Watcher()]
        for watcher, way in zip(watchers, ("polling", "websocket"), strict=True):
            await in_thread(watcher.connect, board.url, WAYS[way])
        await trio.sleep(0.6)
        assert len(board.feed.viewers) == 2
        for watcher in watchers:
            await in_thread(watcher.leave)


async def test_it_shows_a_key_and_is_refused_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch, security={"require_api_key": True, "api_keys": [KEY]}) as board:
        stranger, friend = Watcher(), Watcher()
        with pytest.raises(socketio.exceptions.ConnectionError):
            await in_thread(stranger.connect, board.url, WAYS["websocket"], {"token": "wrong"})
        (refusal,) = stranger.refused
        assert refusal["message"] == "a valid API key is needed"
        await in_thread(friend.connect, board.url, WAYS["upgrade"], {"token": KEY})
        assert board.feed.joined == 1
        await in_thread(friend.leave)


async def test_it_comes_back_by_itself_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    watchers = [Watcher(again=True) for _ in WAYS]
    async with dashboard(monkeypatch) as board:
        for watcher, way in zip(watchers, WAYS, strict=True):
            await in_thread(watcher.connect, board.url, WAYS[way])
        await board.feed.until(3)
        board.fleet.stop.set()
        await board.feed.until(0)
    async with dashboard(monkeypatch, port=board.port) as again:
        await again.feed.until(3, within=2 * PATIENCE)
        again.feed.tell(*THREE)
        for watcher in watchers:
            await in_thread(watcher.until, lambda watcher=watcher: set(watcher.seen) == set(EVENTS))
            assert watcher.connects == 2
            await in_thread(watcher.leave)
