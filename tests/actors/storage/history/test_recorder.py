"""The history's actor: batches, bounds, and everything that may be wrong with a disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
import trio
from sqlalchemy.exc import DatabaseError, DataError
from trio.testing import MockClock

from actors.storage.database_file import StoreLost, StoreUnusable
from actors.storage.history import recorder as module
from actors.storage.history.database import DAY
from actors.storage.history.recorder import AT_ONCE, MOST_RETRY, PAUSE, PRUNE_EVERY, WRITE_WITHIN
from fleet.config import Config
from tests.actors.storage.history.test_finished_requests import record
from tests.kit.fleets.fleet import Client, chat, open_fleet
from tests.kit.fleets.history import FakeHistory, history_of, recorder_of


async def test_requests_are_written_together_once_a_second(autojump_clock: MockClock) -> None:
    fake = FakeHistory()
    history = recorder_of(fake)
    async with open_fleet("a", history=history_of(history)) as fleet:
        for _ in range(5):
            await fleet.system.exchange(chat(), Client())
        await trio.sleep(3 * PAUSE)
        assert [row.server for row in fake.kept] == ["a"] * 5
        assert len(fake.batches) <= 2
        assert (history.counts.written, history.counts.waiting, history.counts.dropped) == (5, 0, 0)
        fleet.assert_nothing_left()


async def test_what_was_noted_last_is_written_at_the_end(autojump_clock: MockClock) -> None:
    fake = FakeHistory()
    history = recorder_of(fake)
    async with open_fleet("a", history=history_of(history)) as fleet:
        await fleet.system.exchange(chat(), Client())
    await history.finish()
    assert (len(fake.kept), fake.closed) == (1, 1)


@pytest.mark.parametrize("trouble", ["disk full", "hangs", "in use"])
async def test_history_cannot_be_written(autojump_clock: MockClock, trouble: str) -> None:
    """Nobody notices who wants an answer; what was noted meanwhile is written when it works again, and once."""
    fake = FakeHistory()
    history = recorder_of(fake)
    if trouble == "hangs":
        fake.slow = float("inf")
    else:
        fake.trouble = OSError("disk full") if trouble == "disk full" else StoreUnusable("in use by another process")
    async with open_fleet("a", history=history_of(history)) as fleet:
        await fleet.system.exchange(chat(), Client())
        await trio.sleep(60.0)
        degraded = history.standing.state, history.standing.why != ""
        assert degraded == ("degraded", True)
        await fleet.system.exchange(chat(), Client())
        with trio.fail_after(2.0):
            await history.catch_up()  # does not wait for what does not come
        fake.trouble, fake.slow = None, 0.0
        await trio.sleep(WRITE_WITHIN + MOST_RETRY + 2 * PAUSE)
        assert history.standing.state == "ok"
        assert (len(fake.kept), history.counts.waiting) == (2, 0)


async def test_what_has_no_room_is_counted(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 10)
    history = recorder_of(FakeHistory())
    history.note([record() for _ in range(14)])
    assert (history.counts.waiting, history.counts.dropped) == (10, 4)
    await history.finish()
    assert (history.counts.written, history.counts.waiting) == (10, 0)


async def test_a_write_that_was_given_up_is_not_done_twice(autojump_clock: MockClock) -> None:
    """The thread goes on after the time limit, and may succeed."""
    fake = FakeHistory()
    fake.slow = WRITE_WITHIN + 1.0

    async def late(call: Callable[[], Any]) -> Any:
        with trio.CancelScope(shield=True):
            return await fake.run(call)

    history = recorder_of(fake, late)
    history.note([record()])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(history.run)
        await trio.sleep(30.0)
        fake.slow = 0.0
        await trio.sleep(MOST_RETRY)
        assert (len(fake.kept), history.counts.written, history.counts.waiting) == (1, 1, 0)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "trouble",
    [StoreLost("gone"), DatabaseError("x", None, sqlite3.DatabaseError("malformed"))],
    ids=["lost", "damaged"],
)
async def test_a_file_that_is_gone_or_damaged_is_opened_anew(autojump_clock: MockClock, trouble: Exception) -> None:
    if isinstance(trouble, DatabaseError):
        trouble.orig.sqlite_errorcode = sqlite3.SQLITE_CORRUPT  # type: ignore[union-attr]
    fake = FakeHistory()
    history = recorder_of(fake)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(history.run)
        history.note([record()])
        await trio.sleep(2 * PAUSE)
        fake.trouble = trouble
        history.note([record()])
        await trio.sleep(2 * PAUSE)
        fake.trouble, fake.moved_aside = None, "/data/history.db.corrupt-1"
        await trio.sleep(MOST_RETRY)
        assert (fake.opened, fake.closed, len(fake.kept)) == (2, 1, 2)
        assert history.standing.moved_aside == "/data/history.db.corrupt-1"
        assert history.standing.moved_at is not None
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("trouble", [ValueError("a bug"), DataError("x", None, Exception("too large"))])
async def test_a_batch_that_cannot_be_written_keeps_no_other_back(
    autojump_clock: MockClock, expected_errors: list[str], trouble: Exception
) -> None:
    expected_errors.append("actor history crashed")
    fake = FakeHistory()
    history = recorder_of(fake)
    fake.trouble = trouble
    async with open_fleet("a", history=history_of(history)) as fleet:
        await fleet.system.exchange(chat(), Client())
        await trio.sleep(1.5 * PAUSE)
        fake.trouble = None
        await fleet.system.exchange(chat(), Client())
        await trio.sleep(5 * PAUSE)
        assert (history.counts.written, history.counts.dropped) == (1, 1)


async def test_a_backlog_is_written_in_bounded_batches(autojump_clock: MockClock) -> None:
    fake = FakeHistory()
    history = recorder_of(fake)
    history.note([record() for _ in range(2 * AT_ONCE + 1)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(history.run)
        await history.catch_up()
        assert fake.batches == [AT_ONCE, AT_ONCE, 1]
        nursery.cancel_scope.cancel()


async def test_what_is_too_old_goes_slice_by_slice_also_while_nothing_happens(autojump_clock: MockClock) -> None:
    fake = FakeHistory()
    history = recorder_of(fake, keep_days=3)
    fake.slices = 4
    async with trio.open_nursery() as nursery:
        nursery.start_soon(history.run)
        await trio.sleep(PRUNE_EVERY / 2)
        assert len(fake.pruned) == 4
        await trio.sleep(PRUNE_EVERY)
        assert len(fake.pruned) == 5
        assert {keep.rows_seconds for keep, _ in fake.pruned} == {3 * DAY}
        old, new = Config(), Config.model_validate({"history": {"keep_days": 2, "keep_bytes": 2048}})
        history.follow(old, new)
        history.note([record()])
        await trio.sleep(2 * PAUSE)
        assert (fake.pruned[-1][0].rows_seconds, fake.pruned[-1][0].file_bytes) == (2 * DAY, 2048)
        nursery.cancel_scope.cancel()
