"""Histories: one in a file, and one without a disk, the real actor over a list that can be made to fail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from actors.kit.clock import Clock
from actors.storage.history.database import Retention
from actors.storage.history.opening import recording
from actors.storage.history.queries import History, HistoryQueries
from actors.storage.history.recorder import HistoryRecorder, InThread
from fleet.config import Config
from fleet.history.questions import RowsPage, RowsQuestion, SumsGroup, SumsQuestion
from fleet.history.request_row import RequestRow


class FakeHistory:
    """What `HistoryRecorder` writes to. `trouble` is raised by everything; `slow` seconds pass before it is done."""

    def __init__(self) -> None:
        self.secret = b"x" * 32
        self.moved_aside = ""
        self.kept: list[RequestRow] = []
        self.batches: list[int] = []
        self.pruned: list[tuple[Retention, float]] = []
        self.slices = 0
        """That are still too old."""
        self.opened = self.closed = 0
        self.trouble: Exception | None = None
        self.slow = 0.0

    def open(self) -> None:
        self._check()
        self.opened += 1

    def write(self, rows: Sequence[tuple[float, RequestRow]]) -> None:
        self._check()
        self.kept += [row for _, row in rows]
        self.batches.append(len(rows))

    def sums(self, wanted: SumsQuestion) -> list[SumsGroup]:
        raise NotImplementedError

    def rows(self, wanted: RowsQuestion) -> RowsPage:
        raise NotImplementedError

    def prune(self, keep: Retention, now: float) -> bool:
        self._check()
        self.pruned.append((keep, now))
        self.slices = max(0, self.slices - 1)
        return self.slices > 0

    def close(self) -> None:
        self.closed += 1

    async def run(self, call: Callable[[], Any]) -> Any:
        """Instead of a worker thread: on the virtual clock."""
        await trio.sleep(self.slow)
        return call()

    def _check(self) -> None:
        if self.trouble is not None:
            raise self.trouble


@asynccontextmanager
async def history_in(directory: Path) -> AsyncIterator[History]:
    """A real one, in a file of this directory."""
    config = Config.model_validate({"history": {"url": f"sqlite:///{directory / 'history.db'}"}})
    async with recording(config, "", Clock()) as history:
        assert history is not None
        yield history


def history_of(recorder: HistoryRecorder) -> History:
    """A history that nobody can read."""
    return History(recorder, HistoryQueries(recorder, FakeHistory()))


def recorder_of(fake: FakeHistory, in_thread: InThread | None = None, **section: object) -> HistoryRecorder:
    """The actor over it. `section`: of the configuration, `history`."""
    config = Config.model_validate({"history": section})
    return HistoryRecorder(fake, Clock(), config, "/nowhere/history.db", in_thread or fake.run)
