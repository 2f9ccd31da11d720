"""The history as those who ask see it: up to date, within a time limit, one question at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import trio

from actors.storage.history.reader import WITHIN, UnreadableHistory
from actors.storage.history.recorder import HistoryRecorder
from actors.storage.writer import Worker
from fleet.common.errors import HistoryUnavailable
from fleet.history.questions import RowsPage, RowsQuestion, SumsGroup, SumsQuestion

_WAIT: Final = 2 * WITHIN
"""Seconds for a question and those before it."""

T = TypeVar("T")


class Reader(Protocol):
    """What questions are put to (`HistoryReader`). Blocking; called by one thread at a time."""

    def sums(self, wanted: SumsQuestion) -> list[SumsGroup]: ...

    def rows(self, wanted: RowsQuestion) -> RowsPage: ...

    def close(self) -> None: ...


class HistoryQueries:
    """Asked by the front end. What was noted before a question is in its answer, unless it cannot be written now."""

    def __init__(
        self,
        recorder: HistoryRecorder,
        reader: Reader,
        in_thread: Callable[[Callable[[], Any]], Awaitable[Any]] | None = None,
    ) -> None:
        self._recorder = recorder
        self._reader = reader
        self._in_thread = in_thread or Worker()

    async def sums(self, wanted: SumsQuestion) -> list[SumsGroup]:
        """See `HistoryReader.sums`. Raises HistoryUnavailable. Cancelled: the thread ends by itself."""
        return await self._ask(partial(self._reader.sums, wanted))

    async def rows(self, wanted: RowsQuestion) -> RowsPage:
        """See `HistoryReader.rows`. Raises HistoryUnavailable. Cancelled: the thread ends by itself."""
        return await self._ask(partial(self._reader.rows, wanted))

    async def close(self) -> None:
        """Let go of the file."""
        with trio.move_on_after(_WAIT, shield=True):
            await self._in_thread(self._reader.close)

    async def _ask(self, question: Callable[[], T]) -> T:
        await self._recorder.catch_up()
        try:
            with trio.fail_after(_WAIT):
                found: T = await self._in_thread(question)
                return found
        except (UnreadableHistory, trio.TooSlowError) as trouble:
            why = str(trouble) if isinstance(trouble, UnreadableHistory) else "too many others ask"
            raise HistoryUnavailable(f"the history cannot be read now: {why}", retry_after=2.0) from trouble


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """What is kept of finished requests: who writes it, and who reads it."""

    recorder: HistoryRecorder
    queries: HistoryQueries
