"""Things that went wrong once with what is kept, lost or paid for, each named after what went wrong."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.dispatch import dispatcher
from actors.state.lease import Lease
from actors.state.messages import RequestRecord
from actors.state.request_log import RequestLog
from actors.upstream.pool import BackendAddress, Pool, UpstreamRequest
from fleet.breakers.outcomes import Signal
from fleet.breakers.state_machine import BreakerSettings
from fleet.common.ids import Pair, ServerId
from fleet.scheduling.rates import RetryBudget
from tests.actors.breakers.breaker_bench import PERIOD, Bench, Script
from tests.fleet import builders
from tests.kit.fleets.fleet import Client, chat, error_of, open_fleet
from tests.kit.fleets.memory import MemoryEnd, memory_pair
from tests.kit.suite.records import recent

A = ServerId("a")


async def drained(pool: Pool) -> None:
    response = await pool.open(UpstreamRequest("POST", "/", [], b"x"), connect_timeout=1)
    while await response.receive():
        pass
    response.release()


async def test_a_lease_that_could_not_be_made_kept_slot_and_permit(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    expected_errors += ["actor dispatcher crashed", "request cannot be dispatched"]
    made = iter(range(1, 100))

    def flaky(*given: Any) -> Lease:
        if next(made) in (2, 4, 5):
            raise RuntimeError("injected")
        return Lease(*given)

    async with open_fleet("a", slots=1) as fleet:
        monkeypatch.setattr(dispatcher, "Lease", flaky)
        ends: list[str] = []

        async def one() -> None:
            ends.append(await error_of(fleet, chat()))

        with trio.fail_after(60.0):
            async with trio.open_nursery() as nursery:
                for _ in range(6):
                    nursery.start_soon(one)
        assert Counter(ends)[""] >= 4
        fleet.assert_nothing_left()


def record(name: str) -> RequestRecord:
    return RequestRecord(name, "e", "m", "", "", "ok", 200, 1, 0.0, None, 0.0, 0, None, None, True)


def names(recorder: RequestLog) -> list[str]:
    return [entry.request_id for entry in recent(recorder)]


async def test_the_record_handed_to_the_resting_recorder_was_missing_and_came_last(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    recorder = RequestLog()
    nursery.start_soon(recorder.run)
    await wait_all_tasks_blocked()
    recorder.append(record("1"))
    assert names(recorder) == ["1"]
    recorder.append(record("2"))
    assert names(recorder) == ["1", "2"]
    await trio.sleep(1.0)
    recorder.append(record("3"))
    await trio.sleep(1.0)
    assert [entry.request_id for entry in recorder._recent] == ["1", "2", "3"]


async def test_a_refund_was_paid_for_a_retry_that_cost_nothing(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    refunds: list[RetryBudget] = []

    def refund(budget: RetryBudget) -> None:
        refunds.append(budget)

    monkeypatch.setattr(RetryBudget, "refund", refund)
    async with open_fleet("a") as fleet:
        fleet["a"].host.faults.set("status:404:model 'm' not found")
        await fleet.system.exchange(chat(), client := Client())
        assert client.status == 404
        assert refunds == []
        await fleet.system.probe(A, 10.0)  # the inventory is looked at again; not to be cut off in the middle
        fleet["a"].host.faults.set("status:503:no")
        await error_of(fleet, chat("n"))
        assert len(refunds) == 1


def test_a_removed_server_came_back_among_those_with_free_slots() -> None:
    server = builders.make_server("a", "m", slots=1)
    board = builders.make_board(server)
    grant = board.submit(builders.make_ticket(), 0.0)
    assert grant is not None
    assert board.submit(builders.make_ticket(), 0.0) is None
    builders.release(board, grant)
    for _, given in board.serve(server, 0.0):
        board.undo(given)
        board.index.remove(server, 0.0)  # as the dispatcher does for a cell that is gone
    assert server not in board.index._free.places


async def test_a_connection_that_the_server_had_closed_went_back_to_the_pool(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def serve(far: MemoryEnd) -> None:
        await far.receive_some()
        await far.send_all(b"HTTP/1.1 200 OK\r\n\r\nhello")
        far.close()

    async def dial() -> trio.abc.Stream:
        near, far = memory_pair()
        nursery.start_soon(serve, far)
        return near

    pool = Pool(BackendAddress.parse("http://h:1"), dial=dial)
    await drained(pool)
    assert (pool.idle, pool.open_count) == (0, 0)


async def test_a_body_in_memory_was_asked_for_before_it_was_sent(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads: list[bytes] = []
    original: Callable[[UpstreamRequest, BackendAddress], bytes] = UpstreamRequest.head

    def head(request: UpstreamRequest, endpoint: BackendAddress) -> bytes:
        heads.append(original(request, endpoint))
        return heads[-1]

    async with open_fleet("a") as fleet:
        monkeypatch.setattr(UpstreamRequest, "head", head)
        headers = [(b"expect", b"100-continue")]
        call = dataclasses.replace(chat(), target="/api/show", body=b'{"model":"m"}', headers=headers)
        await fleet.system.relay_to(A, call, client := Client())
        assert client.status == 200
        assert b"expect" not in heads[0]


async def test_the_dispatcher_heard_of_a_test_before_it_was_under_way(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    class Curious(Bench):
        def hear(self, pair: Pair) -> None:
            super().hear(pair)
            view = self.registry.get(pair)
            if view is not None and not self.gates[pair].admits and self.gates[pair].trials_out:
                testing.append(view.active_tests)

    testing: list[int] = []
    bench = Curious(Script(True))
    bench.registry.settings = BreakerSettings(half_open_max_requests=1)
    await nursery.start(bench.registry.run)
    for _ in range(3):
        bench.attempt(Signal.FAILURE)
    await trio.sleep(PERIOD + 1.0)
    assert set(testing) == {1}
