"""Those who watch in the benchmark: they hear what the dashboard says, and notice when they do not."""

from __future__ import annotations

import json

import pytest
import trio

from bench.disturbance import dashboards, watchers
from bench.disturbance.watchers import PLAIN, SOCKET_IO, Refused, Watcher, never_reads, shake_hands, summary
from bench.measure import NotMeasured
from tests.kit.fleets.served import served

GOOD = {"lost": [], "least": 5, "updates": 500, "bytes": 9, "gap": 1.0}


async def test_both_kinds_hear_updates_beside_one_who_never_reads() -> None:
    async with served("a", dashboard={"interval": 0.25}) as fleet, trio.open_nursery() as nursery:
        host, _, port = fleet.dashboard_url.removeprefix("http://").partition(":")
        watching, deaf = [Watcher(SOCKET_IO), Watcher(PLAIN)], trio.Event()
        nursery.start_soon(never_reads, host, int(port), SOCKET_IO, deaf)
        for watcher in watching:
            nursery.start_soon(watcher.run, host, int(port))
        with trio.fail_after(60):
            await deaf.wait()
            while min(watcher.updates for watcher in watching) < 2:
                await trio.sleep(0.01)
            told = summary(watching)
            fleet.stop.set()
            while not all(watcher.lost for watcher in watching):
                await trio.sleep(0.01)
        assert told["lost"] == []
        assert int(str(told["least"])) >= 2
        nursery.cancel_scope.cancel()


async def test_who_is_refused_says_so() -> None:
    async with served("a") as fleet:
        host, _, port = fleet.url.removeprefix("http://").partition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            with trio.fail_after(60), pytest.raises(Refused):
                await shake_hands(stream, host, watchers.PLAIN)  # not on this port


def test_figures_count_only_if_everybody_watched() -> None:
    dashboards._check(json.dumps(GOOD), 6.0)
    for wrong in ({"lost": ["EOF"]}, {"least": 2}):
        with pytest.raises(NotMeasured):
            dashboards._check(json.dumps({**GOOD, **wrong}), 6.0)
