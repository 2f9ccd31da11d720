"""The history's actor: takes finished requests in batches, and writes them once a second in a worker thread.

Nothing of it is on the data path, and nobody waits for it. While writing fails, requests wait in memory up to a bound
and are tried again, ever more rarely; what does not fit is counted. A crash of the process loses the last second.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import trio
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, NotSupportedError, ProgrammingError

from actors.kit.clock import Clock
from actors.kit.inbox import Inbox
from actors.state.messages import RequestRecord
from actors.storage.database import is_corrupt, reason
from actors.storage.database_file import StoreLost, StoreUnusable
from actors.storage.history.database import DAY, Retention
from actors.storage.history.finished_requests import row_of
from actors.storage.journal import WriterStatus
from actors.storage.writer import Worker
from fleet.config import Config
from fleet.history.request_row import RequestRow

log = logging.getLogger("fleet.history")

MOST_WAITING: Final = 65_536
"""Requests that wait to be written; more are dropped, and counted."""
AT_ONCE: Final = 2_000
"""Requests of one transaction."""
PAUSE: Final = 1.0
"""Seconds in which a batch comes together: what a crash loses at the most."""
_HURRY: Final = 0.05
"""Seconds between two batches when more than one waits."""
PRUNE_EVERY: Final = 60.0
"""Seconds between two looks for what is kept too long; while there is more, one slice a batch."""
WRITE_WITHIN: Final = 20.0
"""Seconds after which a batch that is still being written counts as failed."""
CATCH_UP_WITHIN: Final = 1.0
FLUSH_WITHIN: Final = 5.0
RETRY: Final = 1.0
MOST_RETRY: Final = 30.0
"""Seconds to the next attempt after one that failed, doubling from the first to the second."""
_HOPELESS: Final = (DataError, IntegrityError, NotSupportedError, ProgrammingError)
"""It is the batch that is wrong, not the disk: to try it again would keep all others from being written."""
_TROUBLE: Final = (DatabaseError, OSError, StoreLost, StoreUnusable, trio.TooSlowError)

InThread = Callable[[Callable[[], Any]], Awaitable[Any]]


class HistoryTarget(Protocol):
    """What the actor writes to (`HistoryDatabase`). Blocking; called by one thread at a time."""

    secret: bytes
    moved_aside: str

    def open(self) -> None: ...

    def write(self, rows: Sequence[tuple[float, RequestRow]]) -> None: ...

    def prune(self, keep: Retention, now: float) -> bool: ...

    def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Batch:
    """Requests in hand. `written` is set by the thread: one that comes too late must not be followed by another."""

    records: Sequence[RequestRecord]
    epoch: float
    written: bool = False

    def settle(self) -> None:
        """It is on disk."""
        self.written = True


@dataclass(slots=True, eq=False)
class HistoryStatus(WriterStatus):
    """How the history is: see there. `moved_at`: when a damaged file was put to `moved_aside`, seconds since 1970."""

    moved_at: float | None = None


@dataclass(frozen=True, slots=True)
class HistoryCounts:
    """Requests since the process began: on disk, still to be written, lost because there was no room or no time."""

    written: int
    waiting: int
    dropped: int


@dataclass(slots=True)
class _Opening:
    """Keeps the target open, in the thread that writes: from the first batch on, and anew after what damages it."""

    target: HistoryTarget
    open: bool = False
    moved_aside: str = ""

    def write(self, batch: _Batch) -> None:
        if batch.written:
            return
        target = self._opened()
        try:
            target.write([row_of(each, batch.epoch, target.secret) for each in batch.records])
        except Exception as error:
            self._judge(error)
            raise
        batch.settle()

    def prune(self, keep: Retention, now: float) -> bool:
        try:
            return self._opened().prune(keep, now)
        except Exception as error:
            self._judge(error)
            raise

    def close(self) -> None:
        self.open = False
        self.target.close()

    def last_moved(self) -> str:
        """Where a damaged file was put since this was asked last; empty if none was."""
        moved, self.moved_aside = self.moved_aside, ""
        return moved

    def _opened(self) -> HistoryTarget:
        if not self.open:
            self.target.open()
            self.open = True
            self.moved_aside = self.target.moved_aside
        return self.target

    def _judge(self, error: Exception) -> None:
        """A file that is gone or damaged is of no use any more: opening makes another, and moves it aside."""
        if isinstance(error, StoreLost) or is_corrupt(error):
            self.close()


class HistoryRecorder:
    """The cell and the loop of the actor. `note` is called by the recorder of requests, batch by batch."""

    def __init__(
        self, target: HistoryTarget, clock: Clock, config: Config, path: str, in_thread: InThread | None = None
    ) -> None:
        self._opening = _Opening(target)
        self._clock = clock
        self._in_thread = in_thread or Worker()
        self._inbox: Inbox[RequestRecord] = Inbox(MOST_WAITING)
        self._hand: _Batch | None = None
        self._turn = trio.Lock()
        self._prune_at = clock.now()
        self._wait = RETRY
        self._written = self._dropped = 0
        self.standing = HistoryStatus(state="ok", since=clock.wall(), path=path)
        """How the history is; what waits and what was lost is in `counts`."""
        self._keep = Retention()
        self.follow(config, config)

    @property
    def counts(self) -> HistoryCounts:
        """What became of requests."""
        in_hand = len(self._hand.records) if self._hand is not None else 0
        return HistoryCounts(self._written, len(self._inbox) + in_hand, self._dropped)

    def follow(self, before: Config, config: Config) -> None:
        """Another configuration: how long what is kept."""
        section = config.history
        self._keep = Retention(rows_seconds=section.keep_days * DAY, file_bytes=section.keep_bytes)
        self._prune_at = self._clock.now()

    def note(self, records: Iterable[RequestRecord]) -> None:
        """Requests have ended; returns at once. What does not fit is counted."""
        self._dropped += sum([self._inbox.offer(each) is not None for each in records])

    async def run(self) -> None:
        """Write until cancelled; a crash loses the batch in hand at the most, which is counted."""
        while True:
            if self._hand is None:
                with trio.move_on_at(max(self._prune_at, trio.current_time() + PAUSE)):
                    await self._inbox.wait()
            await trio.sleep(PAUSE if len(self._inbox) < AT_ONCE else _HURRY)
            if await self._attempt():
                continue
            wait, self._wait = self._wait, min(self._wait * 2.0, MOST_RETRY)
            await trio.sleep(wait)

    async def catch_up(self) -> None:
        """Returns when what has been noted by now is on disk, or cannot be written now; a second at the most.

        Cancelled: nothing is lost.
        """
        until = self._written + self.counts.waiting
        with trio.move_on_after(CATCH_UP_WITHIN):
            if self._prune_at <= self._clock.now() and self.standing.state == "ok":
                await self._attempt()  # the first one makes the file
            while self._written < until and self.counts.waiting and self.standing.state == "ok":
                if not await self._attempt():
                    return
        await trio.lowlevel.checkpoint()

    async def finish(self, within: float = FLUSH_WITHIN) -> None:
        """Write what is left and let go of the file, within some seconds each; nothing is noted after that."""
        with trio.move_on_after(within, shield=True):
            while self.counts.waiting and await self._attempt():
                pass
        if left := self.counts.waiting:
            log.warning("the history was closed with %d requests unwritten", left)
        with trio.move_on_after(within, shield=True):
            await self._in_thread(self._opening.close)

    async def _attempt(self) -> bool:
        """Write one batch, and take out a slice of what is too old when it is time; whether both went well."""
        async with self._turn:
            if self._hand is None and self._inbox:
                self._hand = _Batch(self._inbox.take(AT_ONCE), self._clock.epoch(0.0))
            try:
                with trio.fail_after(WRITE_WITHIN):
                    await self._work()
            except _HOPELESS:
                self._lose()
                raise
            except _TROUBLE as trouble:
                self._failed(trouble)
                return False
            except Exception:
                self._lose()
                raise
            self._succeeded()
            return True

    async def _work(self) -> None:
        if (batch := self._hand) is not None:
            await self._in_thread(partial(self._opening.write, batch))
            self._hand = None
            self._written += len(batch.records)
            self.standing.last_write = self._clock.wall()
        if self._prune_at <= self._clock.now():
            more = await self._in_thread(partial(self._opening.prune, self._keep, self._clock.wall()))
            self._prune_at = self._clock.now() + (0.0 if more else PRUNE_EVERY)

    def _lose(self) -> None:
        if self._hand is not None:
            self._dropped += len(self._hand.records)
            self._hand = None

    def _succeeded(self) -> None:
        standing = self.standing
        self._wait = RETRY
        if moved := self._opening.last_moved():
            standing.moved_aside, standing.moved_at = moved, self._clock.wall()
        if standing.state != "ok":
            log.info("the history is written again")
            standing.state, standing.why, standing.since = "ok", "", self._clock.wall()

    def _failed(self, trouble: BaseException) -> None:
        standing = self.standing
        standing.why = "it takes too long" if isinstance(trouble, trio.TooSlowError) else reason(trouble)
        if standing.state != "degraded":
            log.warning("the history cannot be written: %s; requests wait in memory, and are tried again", standing.why)
            standing.state, standing.since = "degraded", self._clock.wall()
