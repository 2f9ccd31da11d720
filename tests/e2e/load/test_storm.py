"""Many clients at once: nothing is lost that need not be, and nothing is left over."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pytest
import trio

from fleet.common.ids import ServerId
from fleet.scheduling.server_state import Health, Order
from fleet.simulator import Profile
from tests.e2e.load.storm import Tally, chat_request, one_stream, trouble
from tests.e2e.support import connect, descriptors, first_answer, inference_seen, is_idle, until
from tests.kit.fleets.served import Served, served

pytestmark = pytest.mark.slow

STREAMS = 1000


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


def idle_tasks(fleet: Served) -> int:
    """Tasks apart from those that serve an idle connection on the simulated side."""
    return (
        tasks() - sum(sim.host.open_connections for sim in fleet.sims.values()) - len(fleet.system.breakers.describe())
    )


async def test_a_thousand_streams_through_a_storm_leave_nothing_behind() -> None:
    before = descriptors(), tasks()
    dice = random.Random(7)
    profile = Profile(load_seconds=0.05, slots=64, tokens_per_second=40.0, prefill_per_second=5000.0)
    quick = {"interval": 0.5, "max_backoff": 1.0}
    config: dict[str, Any] = {
        "health": quick,
        "timeouts": {"idle": 2.0},
        "queue": {"max_size": 2000},
        "retry": {"budget_floor": 500},
    }
    async with served("a", "b", "c", "d", profile=profile, slots=64, **config) as fleet:
        calm = idle_tasks(fleet)
        tally = Tally()
        async with trio.open_nursery() as around:
            around.start_soon(trouble, fleet, random.Random(8))
            async with trio.open_nursery() as nursery:
                for number in range(STREAMS):
                    leaves = dice.choice([0, 1, 500, 1500]) if dice.random() < 0.2 else None
                    nursery.start_soon(_stream, fleet, number, tally, dice.randint(2, 30), leaves)
            around.cancel_scope.cancel()
        assert tally.total == STREAMS
        assert tally.ends["done"] > STREAMS / 2, tally.ends
        assert not tally.ends["cut"], tally.ends
        assert set(tally.ends) <= {"done", "left", "error_record", "refused_503", "refused_502", "refused_504"}
        for sim in fleet.sims.values():
            sim.host.faults.clear()
        await until(lambda: is_idle(fleet), 60.0)
        fleet.assert_nothing_left()
        await until(lambda: idle_tasks(fleet) <= calm, 60.0)
    assert tasks() == before[1]
    assert descriptors() <= before[0]


async def _stream(fleet: Served, number: int, tally: Tally, tokens: int, leaves: int | None) -> None:
    await one_stream(fleet, number, tally, tokens=tokens, leave_after=leaves)


async def test_200_streams_on_8_slots_all_end_in_order_of_arrival_per_class() -> None:
    profile = Profile(load_seconds=0.0, slots=8, tokens_per_second=1000.0, prefill_per_second=100_000.0, jitter=0.0)
    async with served("a", profile=profile, slots=8) as fleet:
        fleet.system.pause(True)
        classes: dict[int, str] = {}
        answers = 0

        async def one(number: int, stream: trio.SocketStream) -> None:
            nonlocal answers
            async with stream:
                answer = await first_answer(stream, 30.0)
                assert answer.status == 200
                assert answer.lines[-1]["done"]
                answers += 1

        async with trio.open_nursery() as nursery:
            for number in range(200):
                classes[number] = "high" if number % 4 == 0 else "normal"
                stream = await connect(fleet.url)
                await stream.send_all(chat_request(number, 5, f"X-Priority: {classes[number]}"))
                await until(lambda number=number: len(fleet.system.scheduler.tickets) == number + 1)  # type: ignore[misc]
                nursery.start_soon(one, number, stream)
            fleet.system.pause(False)
        assert answers == 200
        came = [int(str(seen.header("x-request-id"))[1:]) for seen in inference_seen(fleet.sims["a"].host)]
        for name in ("high", "normal"):
            order = [number for number in came if classes[number] == name]
            # eight connections carry the requests: neighbours may overtake each other on the wire, no others
            assert all(abs(order.index(number) - place) < 8 for place, number in enumerate(sorted(order)))
        assert max(came.index(n) for n in came if classes[n] == "high") < 50 + 8
        assert fleet.sims["a"].host.max_active <= 8
        await until(lambda: is_idle(fleet))
        fleet.assert_nothing_left()


async def test_killing_a_server_in_mid_load_loses_no_request_that_had_no_byte_yet() -> None:
    # a prefill of about half a second: everything is under way, nobody has a byte
    profile = Profile(load_seconds=0.0, slots=8, tokens_per_second=500.0, prefill_per_second=40.0)
    async with served("a", "b", "c", profile=profile, slots=8) as fleet:
        tally = Tally()
        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(_stream, fleet, number, tally, 5, None)
            await until(lambda: all(sim.host.active_requests == 8 for sim in fleet.sims.values()))
            assert not tally.total
            await fleet.sims["b"].kill()
        assert tally.ends == {"done": 60}
        await until(lambda: is_idle(fleet))
        fleet.assert_nothing_left()


async def _served_by(fleet: Served, count: int) -> dict[str, int]:
    """Send that many requests, ten at a time; how many each server answered, and how often more than one was asked."""
    found: dict[str, int] = defaultdict(int)

    async def some(first: int) -> None:
        for number in range(first, first + count // 10):
            async with await connect(fleet.url) as stream:
                await stream.send_all(chat_request(number))
                answer = await first_answer(stream)
                assert answer.status == 200
                found[answer.headers["x-fleet-server"]] += 1
                found["retried"] += answer.headers["x-fleet-attempts"] != "1"

    async with trio.open_nursery() as nursery:
        for first in range(10):
            nursery.start_soon(some, first * count)
    return found


async def test_a_drained_server_gets_nothing() -> None:
    async with served("a", "b", "c") as fleet:
        fleet.system.order(ServerId("b"), Order.DRAIN, "a test")
        await until(lambda: not fleet.system.servers[ServerId("b")].state.usable)
        found = await _served_by(fleet, 40)
        assert found["a"] + found["c"] == 40
        assert not inference_seen(fleet.sims["b"].host)
        fleet.system.order(ServerId("b"), Order.ACTIVATE, "a test")
        await until(lambda: fleet.system.servers[ServerId("b")].state.usable)
        assert (await _served_by(fleet, 40))["b"] > 0


async def test_a_dead_server_gets_nothing_and_is_used_again_when_it_is_back() -> None:
    async with served("a", "b", health={"interval": 0.2, "max_backoff": 0.3, "failures": 1}) as fleet:
        state = fleet.system.servers[ServerId("b")].state
        await fleet.sims["b"].kill()
        await until(lambda: state.health is not Health.HEALTHY)
        found = await _served_by(fleet, 40)
        assert (found["a"], found["b"], found["retried"]) == (40, 0, 0)
        await fleet.sims["b"].restart()
        await until(lambda: state.health is Health.HEALTHY)
        assert (await _served_by(fleet, 40))["b"] > 0
