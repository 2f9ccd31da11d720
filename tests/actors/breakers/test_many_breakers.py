"""As many breakers as there may be: another failure costs no look at all of them."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fleet.breakers.outcomes import Signal
from fleet.breakers.state_machine import BreakerState
from fleet.common.ids import ModelName, Pair, ServerId
from tests.actors.breakers.breaker_bench import A, B, Bench, C

LATE = [Pair(ServerId("s3"), ModelName(f"m{number}")) for number in range(50)]


@pytest.fixture
async def bench(nursery: trio.Nursery) -> Bench:
    bench = Bench(limit=3)
    await nursery.start(bench.registry.run)
    for pair in (A, B, C):
        await bench.fail(pair)
    return bench


def looks(caplog: pytest.LogCaptureFixture) -> int:
    """How often all breakers were looked at in vain."""
    return sum("none of them closed" in record.getMessage() for record in caplog.records)


async def test_failures_of_many_pairs_look_for_room_once(
    autojump_clock: MockClock, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Each failure looked at all breakers, and wrote a line: 5 ms with 10,000 of them."""
    for pair in LATE:
        bench.attempt(Signal.FAILURE, pair)
    await wait_all_tasks_blocked()
    assert (len(bench.registry), looks(caplog)) == (3, 1)


async def test_there_is_room_again_when_one_ends(
    autojump_clock: MockClock, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.attempt(Signal.FAILURE, LATE[0])
    bench.registry.forget_server(C.server)
    bench.attempt(Signal.FAILURE, LATE[1])
    await wait_all_tasks_blocked()
    assert LATE[1] in bench.gates
    for pair in LATE[2:]:
        bench.attempt(Signal.FAILURE, pair)
    assert len(bench.registry) == 3


async def test_there_is_room_again_when_one_closes(
    autojump_clock: MockClock, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.attempt(Signal.FAILURE, LATE[0])
    bench.registry.force(C, BreakerState.CLOSED, "me")
    await wait_all_tasks_blocked()
    bench.attempt(Signal.FAILURE, LATE[1])
    assert LATE[1] not in bench.gates, "somebody wants it to be there"
    bench.registry.reset(C)
    await wait_all_tasks_blocked()
    bench.attempt(Signal.FAILURE, LATE[2])
    assert LATE[2] in bench.gates
