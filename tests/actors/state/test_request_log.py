"""The log of finished requests: who listens is isolated from who else does, and nobody digests for long."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock

from actors.observability.dashboard.live_requests import LiveRequests
from actors.state.messages import OURSELVES, RequestRecord
from actors.state.request_log import RequestLog
from fleet.observability.statistics.request_batch import RequestBatch
from tests.kit.cases.metrics import figures
from tests.kit.fleets.fleet import Fleet, open_fleet
from web.monitoring.exposition import Exposition
from web.monitoring.exposition_text import TEXT

MOST = 128
"""Records that may be digested in one turn of the loop."""


def record(name: str = "r", client: str = "10.0.0.1") -> RequestRecord:
    return RequestRecord(
        name, "/api/chat", "m:latest", client, "a", "completed", 200, 1, 0.0, 0.1, 0.2, 3, 5, 7, True, began=1.0
    )


def failing(batch: Sequence[RequestRecord]) -> None:
    raise RuntimeError("injected")


def failing_too(batch: Sequence[RequestRecord]) -> None:
    raise RuntimeError("injected")


# ---- listeners


async def test_a_listener_that_fails_costs_the_others_nothing(expected_errors: list[str]) -> None:
    """All behind it lost the batch, and a scrape, a feed tick or the shutdown got its error."""
    expected_errors.append("is lost to")
    heard = list[str]()
    recorder = RequestLog([failing, lambda batch: heard.extend(each.request_id for each in batch)])
    recorder.append(record("one"))
    recorder.flush()
    recorder.append(record("two"))
    await recorder.catch_up()
    assert heard == ["one", "two"]
    assert (recorder.seen, recorder.failures) == (2, 2)


async def test_a_listener_that_fails_is_named_once_and_counted_each_time(
    expected_errors: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    expected_errors.append("is lost to")
    recorder = RequestLog([failing, failing_too])
    for _ in range(5):
        recorder.append(record())
        recorder.flush()
    lines = [line for line in caplog.records if line.levelno >= logging.ERROR]
    assert len(lines) == 2
    assert "failing" in lines[0].getMessage()
    assert recorder.failures == 10


async def test_what_listeners_missed_is_a_metric(autojump_clock: MockClock, expected_errors: list[str]) -> None:
    expected_errors.append("is lost to")
    async with open_fleet("a", listeners=[failing]) as fleet:
        assert figures(fleet.system)["fleet_history_failures_total",] == 0
        fleet.system.statistics.request_log.append(record())
        assert figures(fleet.system)["fleet_history_failures_total",] == 1


async def test_all_who_listen_are_handed_one_batch_that_is_grouped_already() -> None:
    heard = list[RequestBatch[RequestRecord]]()
    recorder = RequestLog([heard.append, heard.append])
    recorder.append(record("one"))
    recorder.append(record("two", client=OURSELVES))
    recorder.append(record("three"))
    recorder.flush()
    assert heard[0] is heard[1]
    assert [[each.request_id for each in group.requests] for group in heard[0].groups] == [["one", "three"]]


# ---- no long turns


class Turns:
    """Counts the records that are digested between two turns of a task that does nothing else."""

    def __init__(self) -> None:
        self.longest = self._now = self.all = 0

    def note(self, batch: Sequence[RequestRecord]) -> None:
        self._now += len(batch)
        self.all += len(batch)
        self.longest = max(self.longest, self._now)

    async def run(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self._now = 0


async def scrape(fleet: Fleet) -> None:
    await Exposition().latest(fleet.system, TEXT, zipped=False)


async def feed(fleet: Fleet) -> None:
    await fleet.system.feed.snapshot()


async def thorough(fleet: Fleet) -> None:
    await fleet.system.monitor._look.thorough()


async def catch_up(fleet: Fleet) -> None:
    await fleet.system.statistics.request_log.catch_up()


@pytest.mark.parametrize("look", [scrape, feed, thorough, catch_up])
async def test_who_looks_at_figures_digests_one_batch_in_a_turn(autojump_clock: MockClock, look: object) -> None:
    """A scrape digested all there was in one turn: 4,096 records, 22 ms, and 107 ms when each is logged."""
    assert callable(look)
    turns = Turns()
    async with open_fleet("a", listeners=[turns.note]) as fleet, trio.open_nursery() as nursery:
        nursery.start_soon(turns.run)
        for _ in range(4096):
            fleet.system.statistics.request_log.append(record())
        await look(fleet)
        assert turns.all == 4096
        assert turns.longest <= MOST
        nursery.cancel_scope.cancel()


async def test_many_who_look_at_once_share_the_batches(autojump_clock: MockClock) -> None:
    turns = Turns()
    async with open_fleet("a", listeners=[turns.note]) as fleet, trio.open_nursery() as nursery:
        nursery.start_soon(turns.run)
        for _ in range(2000):
            fleet.system.statistics.request_log.append(record())
        async with trio.open_nursery() as looking:
            for _ in range(10):
                looking.start_soon(catch_up, fleet)
        assert turns.all == 2000
        assert turns.longest <= MOST
        nursery.cancel_scope.cancel()


async def test_who_catches_up_and_is_cancelled_loses_nothing_and_holds_up_nobody() -> None:
    recorder = RequestLog()
    for _ in range(300):
        recorder.append(record())
    with trio.CancelScope() as scope:
        scope.cancel()
        await recorder.catch_up()
    assert scope.cancelled_caught
    with trio.fail_after(5):
        await recorder.catch_up()
    assert recorder.seen == 300


async def test_who_begins_to_listen_misses_nothing_that_was_not_digested() -> None:
    live = LiveRequests()
    recorder = RequestLog([live.note])
    for number in range(200):
        recorder.append(record(str(number)))
    recorder.append(record("ours", OURSELVES))
    figures = live.begun(recorder, 0.0)
    with suppress(trio.TooSlowError), trio.fail_after(5):
        await recorder.catch_up()
    assert figures.fleet.count == 200
