"""Socket.IO's own JavaScript client, unchanged, against the dashboard's port."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest
import trio

from tests.kit.fleets.live import THREE, Dashboard, dashboard, fleet_with_alerts, metrics
from tests.kit.places import ROOT

FOLDER = ROOT / "tests" / "js"
NODE = shutil.which("node")
KEY = "fleet_" + "k" * 43

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NODE is None, reason="node is not on PATH"),
    pytest.mark.skipif(
        not (FOLDER / "node_modules" / "socket.io-client").is_dir(),
        reason="socket.io-client is not installed: cd tests/js && npm install --no-package-lock",
    ),
]


class Player:
    """One run of live.mjs; `result` is there at its end."""

    def __init__(self) -> None:
        self.result: dict[str, Any] = {}

    async def play(self, url: str, scenario: str, *more: str) -> None:
        command = [str(NODE), "live.mjs", url, scenario, *more]
        with trio.fail_after(60):
            ended = await trio.run_process(command, cwd=FOLDER, capture_stdout=True, stderr=subprocess.STDOUT)
        self.result = dict(json.loads(ended.stdout))


async def greeted(board: Dashboard) -> None:
    """Tell whoever has come all there is to tell."""
    told: set[Any] = set()
    while True:
        for viewer in set(board.feed.viewers) - told:
            told.add(viewer)
            for each in THREE:
                viewer.tell(each)
        await trio.sleep(0.01)


async def played(board: Dashboard, scenario: str, *more: str) -> dict[str, Any]:
    player = Player()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(greeted, board)
        await player.play(board.url, scenario, *more)
        nursery.cancel_scope.cancel()
    await board.feed.until(0)
    return player.result


async def test_it_watches_by_polling_by_websocket_and_by_upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch) as board:
        found = await played(board, "watch")
        assert {name: each["transport"] for name, each in found.items()} == {
            "polling": "polling",
            "websocket": "websocket",
            "upgrade": "websocket",
        }
        for each in found.values():
            assert each["answer"] == {"ok": True}
            assert each["rate"] == {"ok": True, "hz": 0.5}
            assert each["topics"] == {"ok": True, "topics": ["system_alert"]}
            assert sorted(update["seq"] for update in each["seen"]["metrics_update"]) == [0, 1]
            assert each["seen"]["ai_status_update"] == [{"text": "all is well"}]
            assert each["seen"]["system_alert"] == [{"rule": "ServerDown"}]
        assert board.feed.joined == 3


async def test_it_needs_no_options_to_be_told_all_of_a_real_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the reference: `io("http://localhost:3001")`, and three events."""
    player = Player()
    async with fleet_with_alerts(monkeypatch, "a", "b") as fleet, trio.open_nursery() as nursery:
        port = fleet.dashboard_url.rpartition(":")[2]
        nursery.start_soon(player.play, f"http://localhost:{port}", "reference")
        with trio.fail_after(60):
            while not fleet.system.feed.clients["websocket"]:
                await trio.sleep(0.01)
        await fleet.sims["b"].kill()
    assert set(player.result["metrics"]) == {
        "active_requests", "queue_size", "avg_latency", "tokens_per_second", "cpu_percent", "memory_percent",
        "gpu_percent", "power_watts",
    }  # fmt: skip
    assert player.result["status"] == "healthy"
    assert player.result["text"]
    assert (player.result["alert"], player.result["server"]) == ("FleetServerDown", "b")


async def test_it_confirms_what_it_has_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch) as board:
        player = Player()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(player.play, board.url, "confirm")
            await board.feed.until(1)
            board.feed.tell(*(metrics(number) for number in range(8)))
        assert player.result["seen"]["metrics_update"] == [{"seq": number} for number in range(8)]


async def test_it_shows_a_key_and_stays_away_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(monkeypatch, security={"require_api_key": True, "api_keys": [KEY]}) as board:
        found = await played(board, "keys", KEY)
        assert found == {
            "message": "a valid API key is needed",
            "reason": "UNAUTHORIZED",
            "again": False,
            "transport": "websocket",
            "namespace": {"message": "Invalid namespace", "data": None, "again": False},
        }


async def test_it_comes_back_by_itself_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    player = Player()
    async with trio.open_nursery() as nursery:
        async with dashboard(monkeypatch) as board:
            nursery.start_soon(player.play, board.url, "restart")
            with trio.fail_after(60):
                while [viewer.rate for viewer in board.feed.viewers] != [0.5] * 3:
                    await trio.sleep(0.005)
            board.fleet.stop.set()
            await board.feed.until(0)
        async with dashboard(monkeypatch, port=board.port) as again, trio.open_nursery() as greeting:
            greeting.start_soon(greeted, again)  # whoever comes, however often: one may be cut off once more on its way
            await again.feed.until(3)
            await again.feed.until(0)
            greeting.cancel_scope.cancel()
    assert set(player.result["reasons"]) <= {"transport close", "transport error"}  # and no "io server disconnect"
