"""Who does not read what the feed sends: costs nobody anything, and is told the whole state when it reads again."""

from __future__ import annotations

import gc
import random
from itertools import pairwise

import orjson
import trio
import trio.testing

from actors.observability.dashboard.feed import Subscriber, Update
from tests.kit.clients.watching import Replica, watched


def held(viewer: Subscriber) -> int:
    """Updates that wait for a viewer."""
    return len(viewer._held) + len(viewer._first) + len(viewer._latest)


def is_slow(viewer: Subscriber) -> bool:
    return viewer.slow


async def test_a_viewer_that_never_reads_holds_next_to_nothing(autojump_clock: object) -> None:
    async with watched("a") as here:
        reader = here.watch()
        stuck = [here.feed.join(f"10.0.1.{number}", "plain") for number in range(50)]
        most = []
        await trio.sleep(0.5)
        for _ in range(200):
            await trio.sleep(1)
            most.append(max(held(viewer) for viewer in stuck))
        assert max(most) <= 2
        assert set(most[5:]) == {0}, "what it missed is dropped, not kept"
        gc.collect()
        assert sum(isinstance(each, Update) for each in gc.get_objects()) < 30 + len(reader.updates)
        assert len(reader.times()) == 201
        assert reader.replica.lost == 0
        assert here.feed.skipped > 50 * 80


async def test_a_slow_viewer_gets_one_snapshot_and_goes_on_from_there(autojump_clock: object) -> None:
    async with watched("a") as here:
        viewer, replica = here.feed.join("10.0.0.1", "plain"), Replica()
        replica.take(orjson.loads((await viewer.next()).data))
        await trio.sleep(20.1)
        assert is_slow(viewer)
        assert here.feed.skipped >= 3
        skipped = here.feed.skipped
        moments = []
        for _ in range(30):
            replica.take(orjson.loads((await viewer.next()).data))
            moments.append(trio.current_time())
        assert replica.lost == 0
        assert replica.kinds[:3] == ["snapshot", "snapshot", "delta"]
        assert replica.kinds.count("snapshot") <= 4, "the first; for what it missed; for its old pace; one a minute"
        gaps = [round(after - before) for before, after in pairwise(moments)]
        assert gaps[:8] == [2] * 8, "half the pace while it counts as slow"
        assert gaps[-12:] == [1] * 12, "and the old one after ten updates in time"
        assert not is_slow(viewer)
        assert here.feed.skipped == skipped


async def test_a_viewer_that_is_always_a_little_too_slow_keeps_up_at_half_the_pace(autojump_clock: object) -> None:
    async with watched("a") as here:
        viewer, replica = here.feed.join("10.0.0.1", "plain"), Replica()
        for _ in range(100):
            replica.take(orjson.loads((await viewer.next()).data))
            await trio.sleep(1.5)
        assert replica.lost == 0
        assert replica.kinds.count("delta") > 60


async def test_asking_again_and_again_without_reading_holds_one_snapshot(autojump_clock: object) -> None:
    async with watched("a") as here:
        viewer = here.feed.join("10.0.0.1", "plain")
        for _ in range(300):
            viewer.request_update()
            viewer.set_rate(0.1 if int(trio.current_time()) % 2 else 2.0)
            assert held(viewer) <= 2
            await trio.sleep(0.5)


async def test_the_loop_waits_for_no_viewer(autojump_clock: object) -> None:
    """A viewer in the middle of a send that takes for ever, and one that is not being read at all."""
    async with watched("a") as here:
        here.feed.join("10.0.0.1", "plain")

        async def sends_for_ever() -> None:
            viewer = here.feed.join("10.0.0.2", "plain")
            await viewer.next()
            await trio.sleep_forever()

        here.nursery.start_soon(sends_for_ever)
        reader = here.watch("10.0.0.3")
        began = trio.current_time()
        await trio.sleep(100.5)
        assert [round(at - began) for at in reader.times()] == list(range(101))
        assert reader.replica.lost == 0


async def test_however_a_client_behaves_it_never_gets_a_delta_that_does_not_fit(autojump_clock: object) -> None:
    chance = random.Random(11)
    async with watched("a", "b") as here:
        viewers = [(here.feed.join(f"10.0.0.{number}", "plain"), Replica()) for number in range(8)]

        async def live(viewer: Subscriber, replica: Replica) -> None:
            while True:
                with trio.move_on_after(chance.choice((0.1, 1, 20))):
                    replica.take(orjson.loads((await viewer.next()).data))
                await trio.sleep(chance.choice((0, 0, 0, 0.3, 1.2, 7)))
                if chance.random() < 0.1:
                    viewer.request_update()
                if chance.random() < 0.1:
                    viewer.set_rate(chance.choice((0.1, 0.3, 1, 2)))

        for pair in viewers:
            here.nursery.start_soon(live, *pair)
        for step in range(400):
            here.fleet.cell(chance.choice("ab")).state.why = f"because of {step}"
            await trio.sleep(1)
        for viewer, replica in viewers:
            assert replica.lost == 0
            assert replica.kinds.count("delta") > 20
            viewer.request_update()
        await trio.sleep(60)
        assert {replica.state.servers["a"]["why"] for _, replica in viewers if replica.state} == {
            here.fleet.cell("a").state.why
        }


async def test_a_crowd_is_not_roused_in_one_turn(autojump_clock: object) -> None:
    async with watched("a") as here:
        crowd = [here.feed.join(f"10.0.{number}.1", "plain") for number in range(40)]
        moments: dict[float, int] = {}

        async def read(viewer: Subscriber) -> None:
            while True:
                await viewer.next()
                now = trio.current_time()
                moments[now] = moments.get(now, 0) + 1

        async with trio.open_nursery() as nursery:
            for viewer in crowd:
                nursery.start_soon(read, viewer)
            await trio.sleep(0.9)
            moments.clear()
            await trio.sleep(1.0)
            nursery.cancel_scope.cancel()
        assert sum(moments.values()) == len(crowd), "one update each"
        assert max(moments.values()) <= 4
        assert max(moments) - min(moments) <= 0.5, "half an interval for all of them"
