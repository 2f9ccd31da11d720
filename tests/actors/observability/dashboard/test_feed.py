"""The live feed: what who watches is told, when, and what it costs."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import orjson
import pytest
import trio
import trio.testing

from actors.observability.dashboard.collector import Collector
from actors.observability.dashboard.feed import Subscriber, Update
from fleet.common.errors import TooManyClients
from fleet.common.ids import ModelName, ServerId
from fleet.config import ServerSpec
from fleet.observability.dashboard.live_figures import LiveFigures
from fleet.observability.dashboard.snapshot import FleetSnapshot
from tests.kit.clients.watching import Replica, Watched, watched
from tests.kit.fleets.fleet import Client, chat


class Counting:
    """How often the fleet was looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looks = 0
        real = Collector._collect

        async def counted(collector: Collector, now: float) -> FleetSnapshot:
            self.looks += 1
            return await real(collector, now)

        monkeypatch.setattr(Collector, "_collect", counted)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


async def test_nothing_happens_while_nobody_watches(autojump_clock: object, counting: Counting) -> None:
    async with watched("a") as here:
        await trio.sleep(1000)
        assert here.system.live_requests.is_resting()
        assert counting.looks == 0
        watcher = here.watch()
        await trio.sleep(2.5)
        assert not here.system.live_requests.is_resting()
        watcher.viewer.leave()
        await trio.sleep(1000)
        assert counting.looks == 3
        assert here.system.live_requests.is_resting()


async def test_a_snapshot_at_once_and_then_a_delta_per_interval(autojump_clock: object) -> None:
    async with watched("a", dashboard={"interval": 2.0}) as here:
        watcher = here.watch()
        began = trio.current_time()
        await trio.sleep(7)
        assert watcher.replica.kinds == ["snapshot", "delta", "delta", "delta"]
        assert [at - began for at in watcher.times()] == pytest.approx([0, 2, 4, 6])
        assert watcher.replica.lost == 0


async def test_everybody_gets_the_same_message_made_once(autojump_clock: object, counting: Counting) -> None:
    async with watched("a") as here:
        watchers = [here.watch(f"10.0.0.{number}") for number in range(20)]
        await trio.sleep(3.5)
        first, *others = watchers
        assert len(first.updates) == 4
        for other in others:
            assert all(ours is theirs for ours, theirs in zip(first.updates, other.updates, strict=True))
        assert counting.looks == 4


async def test_who_comes_late_gets_the_last_state_at_once(autojump_clock: object, counting: Counting) -> None:
    async with watched("a") as here:
        early = here.watch()
        await trio.sleep(1.5)
        late = [here.watch(f"10.0.1.{number}") for number in range(10)]
        await trio.sleep(0.1)
        assert counting.looks == 2
        assert len({id(each.updates[0]) for each in late}) == 1
        assert late[0].replica.state == early.replica.state
        await trio.sleep(1)
        assert late[0].updates[1] is early.updates[2]
        assert late[0].replica.lost == 0


def disturb(here: Watched, chance: random.Random, step: int) -> None:
    """Change something that is shown."""
    cells = list(here.system.servers.values())
    state = chance.choice(cells).state
    match chance.randrange(6):
        case 0:
            state.resident = {m: {"size_vram": chance.randrange(9)} for m in state.models if chance.random() < 0.5}
        case 1:
            state.models = {ModelName(f"m{number}"): {} for number in range(chance.randrange(6))}
        case 2 if len(cells) < 6:
            here.fleet.memory.backends = {**here.fleet.memory.backends, f"x{step}": here.fleet["a"]}
            here.system.add_server(ServerSpec(id=ServerId(f"x{step}"), url=f"http://127.0.0.1:{2000 + step}"))
        case 3 if len(cells) > 2:
            here.nursery.start_soon(here.system.remove_server, cells[-1].state.id)
        case 4:
            state.why = f"because of {step}"
        case 5:
            state.barred = {model for model in state.models if chance.random() < 0.3}


async def test_two_hundred_random_ticks_replayed_give_the_state(autojump_clock: object) -> None:
    chance = random.Random(7)
    async with watched("a", "b") as here:
        watcher = here.watch()
        for step in range(200):
            await trio.sleep(1)
            disturb(here, chance, step)
        await trio.sleep(1.5)
        fresh = here.watch("10.0.0.2")
        await trio.sleep(0.1)
        assert watcher.replica.lost == 0
        assert watcher.replica.kinds.count("snapshot") == 4, "the first, and one a minute"
        assert fresh.replica.state == watcher.replica.state
        assert len(watcher.replica.kinds) == 202


async def test_a_request_that_ran_is_in_the_figures(autojump_clock: object) -> None:
    async with watched("a") as here:
        for _ in range(3):
            await here.system.exchange(chat("m", tokens=50), Client())
        await here.system.probe(ServerId("a"), 5.0)
        await trio.sleep(0.2)
        here.system.monitor.evaluate()
        watcher = here.watch()
        await trio.sleep(0.1)
        shown = watcher.of("metrics_update")[0]
        assert shown["metrics"]["avg_latency"] > 0
        assert shown["metrics"]["tokens_per_second"] > 0
        assert shown["fleet"]["err"] == 0
        assert shown["fleet"]["ttft_p95"] > 0
        (server,) = shown["servers"]
        assert server["tps"] > 0
        assert server["hot"] == 1
        assert shown["matrix"]["rows"]["a"][shown["matrix"]["models"].index("m:latest")] == "#"
        await trio.sleep(62)
        assert watcher.replica.state is not None
        assert watcher.replica.state.metrics["avg_latency"] is None, "a minute later nobody knows"
        assert watcher.replica.state.fleet["err"] is None


async def test_a_wish_is_granted_three_times_and_then_once_per_second(autojump_clock: object) -> None:
    async with watched("a", dashboard={"interval": 30.0}) as here:
        watcher = here.watch()
        await trio.sleep(1)
        for _ in range(40):
            watcher.viewer.request_update()
            await trio.sleep(0.1)
        assert watcher.replica.kinds == ["snapshot"] * (1 + 3 + 3)


async def test_whoever_lost_something_gets_all_of_it_by_asking(autojump_clock: object) -> None:
    async with watched("a", "b") as here:
        watcher = here.watch()
        await trio.sleep(1.5)
        watcher.replica.seq = 99
        await trio.sleep(1)
        assert watcher.replica.lost == 1
        watcher.viewer.request_update()
        await trio.sleep(2)
        assert watcher.replica.lost == 1
        assert watcher.replica.kinds[-3:] == ["snapshot", "delta", "delta"]


@pytest.mark.parametrize(
    ("hz", "every"), [(0.1, 10), (0.5, 2), (1.0, 1), (2.0, 1), (50.0, 1), (0.0, 10), (-3.0, 10), (float("inf"), 1)]
)
async def test_everybody_sets_a_pace_of_its_own(autojump_clock: object, hz: float, every: int) -> None:
    async with watched("a") as here:
        usual, own = here.watch(), here.watch()
        await trio.sleep(0.5)
        own.viewer.set_rate(hz)
        own.viewer.set_rate(float("nan"))
        await trio.sleep(60)
        gaps = [after - before for before, after in pairwise(own.times()[3:])]
        assert gaps == pytest.approx([every] * len(gaps))
        assert len(gaps) >= 60 // every - 3
        assert own.replica.lost == usual.replica.lost == 0
        assert len(usual.times()) == 61


async def test_a_slow_pace_does_not_mean_an_old_answer(autojump_clock: object) -> None:
    async with watched("a", "b") as here:
        watcher = here.watch()
        watcher.viewer.set_rate(0.1)
        await trio.sleep(14)
        here.fleet.cell("b").state.why = "something new"
        watcher.viewer.request_update()
        await trio.sleep(0.2)
        assert watcher.replica.state is not None
        assert watcher.replica.state.servers["b"]["why"] == "something new"


async def test_the_interval_follows_the_configuration(autojump_clock: object) -> None:
    async with watched("a") as here:
        watcher = here.watch()
        await trio.sleep(3.5)
        set_interval(here, 5.0)
        await trio.sleep(16)
        assert watcher.times()[-3:] == pytest.approx([watcher.times()[3] + n for n in (5, 10, 15)])
        set_interval(here, 60.0)
        await trio.sleep(10)
        set_interval(here, 1.0)
        seen = len(watcher.times())
        await trio.sleep(3.1)
        assert len(watcher.times()) >= seen + 3, "not only when the old one is over"


def set_interval(here: Watched, interval: float) -> None:
    config = here.system.config
    dashboard = config.dashboard.model_copy(update={"interval": interval})
    here.system.config_ref.put(config.model_copy(update={"dashboard": dashboard}))


async def test_only_so_many_may_watch_in_all_and_from_one_address(autojump_clock: object) -> None:
    limits = {"max_clients": 5, "max_clients_per_address": 2}
    async with watched("a", dashboard=limits) as here:
        mine = [here.feed.join("10.0.0.1", "polling") for _ in range(2)]
        with pytest.raises(TooManyClients, match="of this address"):
            here.feed.join("10.0.0.1", "websocket")
        for number in range(3):
            here.feed.join(f"10.0.1.{number}", "plain")
        with pytest.raises(TooManyClients, match="5 clients watch already") as refused:
            here.feed.join("10.0.9.9", "plain")
        assert refused.value.status == 503
        assert refused.value.retry_after
        assert here.feed.clients == {"polling": 2, "websocket": 0, "plain": 3}
        mine[0].transport = "websocket"
        assert here.feed.clients == {"polling": 1, "websocket": 1, "plain": 3}
        for viewer in mine:
            viewer.leave()
            viewer.leave()
        here.feed.join("10.0.0.1", "websocket").leave()
        assert here.feed.clients == {"polling": 0, "websocket": 0, "plain": 3}


async def test_leaving_wakes_who_waits_and_cancelling_loses_nothing(autojump_clock: object) -> None:
    async with watched("a") as here:
        viewer = here.feed.join("10.0.0.1", "plain")
        replica = Replica()
        for _ in range(200):
            with trio.move_on_after(0.07):
                replica.take(orjson.loads((await viewer.next()).data))
        assert replica.lost == 0
        assert replica.kinds.count("delta") >= 12
        ended: list[Any] = []

        async def wait() -> None:
            try:
                while True:
                    await viewer.next()
            except trio.ClosedResourceError:
                ended.append(trio.current_time())

        here.nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        viewer.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert ended
        assert here.feed.clients["plain"] == 0


async def test_a_crash_of_the_loop_costs_no_viewer(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    expected_errors.append("feed")
    async with watched("a") as here:
        real, bugs = Collector._collect, [RuntimeError("a bug")]

        async def crashing(collector: Collector, now: float) -> FleetSnapshot:
            if bugs:
                raise bugs.pop()
            return await real(collector, now)

        watcher = here.watch()
        await trio.sleep(1.5)
        monkeypatch.setattr(Collector, "_collect", crashing)
        await trio.sleep(30)
        assert not bugs
        assert len(watcher.times()) > 20
        assert watcher.replica.lost == 0


async def test_a_crash_in_the_middle_of_telling_leaves_nobody_with_half_a_state(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    expected_errors.append("feed")
    async with watched("a") as here:
        watchers = [here.watch(f"10.0.0.{number}") for number in range(3)]
        watchers[2].viewer.set_rate(0.5)
        await trio.sleep(5.5)
        real, bugs = Subscriber.offer, [RuntimeError("a bug")]

        def crashing(viewer: Subscriber, update: Update) -> int:
            if viewer is watchers[1].viewer and bugs:
                raise bugs.pop()
            return real(viewer, update)

        monkeypatch.setattr(Subscriber, "offer", crashing)
        here.fleet.cell("a").state.why = "something new"
        await trio.sleep(9)
        assert not bugs
        for watcher in watchers:
            assert watcher.replica.lost == 0, "the first was told a step that the second was not"
            assert watcher.replica.state is not None
            assert watcher.replica.state.servers["a"]["why"] == "something new"
        assert watchers[1].replica.kinds.count("snapshot") == 2
        assert [after - before for before, after in pairwise(watchers[2].times()[-3:])] == pytest.approx([2, 2])


async def test_a_crash_in_the_figures_does_not_stop_them_for_good(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    expected_errors.append("feed")
    async with watched("a") as here:
        real, bugs = LiveFigures.note, [RuntimeError("a bug")]

        def crashing(figures: LiveFigures, finished: Any) -> None:
            if bugs:
                raise bugs.pop()
            real(figures, finished)

        monkeypatch.setattr(LiveFigures, "note", crashing)
        watcher = here.watch()
        await trio.sleep(2)
        await here.system.exchange(chat("m", tokens=50), Client())
        await trio.sleep(2)
        assert not bugs
        assert watcher.replica.state is not None
        assert watcher.replica.state.fleet["err"] == 0


async def test_a_server_that_is_down_says_why_since_when_and_when_it_is_looked_at_again(autojump_clock: object) -> None:
    async with watched("a", "b", health={"failures": 1, "interval": 5.0}) as here:
        watcher = here.watch()
        here.fleet["b"].kill()
        await here.system.probe(ServerId("b"), 20.0)
        await trio.sleep(1.5)
        assert watcher.replica.state is not None
        shown = watcher.replica.state.servers["b"]
        wall = here.system.clock.wall()
        assert shown["state"] == "crit"
        assert shown["why"]
        assert wall - 3 < shown["since"] <= wall
        assert wall < shown["next"] < wall + 60
        assert watcher.replica.state.fleet["up"] == 1
        assert watcher.replica.state.ollama_status == "healthy", (
            "the monitor, which would say otherwise, is not running"
        )
