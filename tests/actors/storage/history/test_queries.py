"""What was noted before a question is in its answer; and what is said when there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.kit.clock import Clock
from actors.storage.history.opening import recording
from actors.storage.history.queries import HistoryQueries
from actors.storage.history.reader import UnreadableHistory
from fleet.common.errors import HistoryUnavailable
from fleet.config import Config
from fleet.history.questions import RowsPage, RowsQuestion, SumsGroup, SumsQuestion
from fleet.history.time_ranges import TimeSpan
from tests.actors.storage.history.test_finished_requests import record
from tests.kit.fleets.history import FakeHistory, history_in, recorder_of

ALL = RowsQuestion(since=0.0, until=1e10, limit=100)


async def test_what_was_noted_is_in_the_next_answer_and_in_that_of_the_next_process(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with history_in(tmp_path) as history:
            assert (await history.queries.rows(ALL)).rows == []
            history.recorder.note([record(request_id=str(number), began=0.0) for number in range(3)])
            assert [row.request for _, row in (await history.queries.rows(ALL)).rows] == ["2", "1", "0"]
            (group,) = await history.queries.sums(SumsQuestion(span=TimeSpan(0, 1 << 33)))
            assert group.sums.requests == 3
            history.recorder.note([record(request_id="late")])
        async with history_in(tmp_path) as history:
            assert len((await history.queries.rows(ALL)).rows) == 4


async def test_a_fleet_may_keep_nothing() -> None:
    async with recording(Config.model_validate({"history": {"enabled": False}}), "", Clock()) as history:
        assert history is None


class Mute(FakeHistory):
    def sums(self, wanted: SumsQuestion) -> list[SumsGroup]:
        raise UnreadableHistory("disk I/O error")

    def rows(self, wanted: RowsQuestion) -> RowsPage:
        raise AssertionError("nobody comes so far")


async def test_a_history_that_cannot_be_read_is_an_error_of_its_own(autojump_clock: MockClock) -> None:
    mute = Mute()
    queries = HistoryQueries(recorder_of(mute), mute, mute.run)
    with pytest.raises(HistoryUnavailable, match="disk I/O error"):
        await queries.sums(SumsQuestion(span=TimeSpan(0, 60)))


async def test_nobody_waits_for_long(autojump_clock: MockClock) -> None:
    async def stuck(call: Callable[[], Any]) -> Any:
        await trio.sleep_forever()

    mute = Mute()
    queries = HistoryQueries(recorder_of(mute), mute, stuck)
    with trio.fail_after(10.0), pytest.raises(HistoryUnavailable, match="too many"):
        await queries.rows(ALL)
    await queries.close()
