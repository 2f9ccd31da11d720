"""The store's actor: writes what the journal has marked, a batch at a time, in a worker thread. Nobody waits for it.

A document is asked of its source in the event loop, at the moment of writing; the thread gets text and touches nothing
else. While writing fails, marks stay in memory and it is tried again, ever more rarely.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import trio
from sqlalchemy.exc import SQLAlchemyError

from actors.storage.batches import Batch, Packer
from actors.storage.database import Contents, Database, reason
from actors.storage.database_file import StoreFile, StoreLost, StoreUnusable
from actors.storage.journal import Document, Journal, Mark
from actors.storage.migrations import MIGRATIONS, Migration

log = logging.getLogger("fleet.store")

InThread = Callable[[Callable[[], Any]], Awaitable[Any]]

OPEN_WITHIN: Final = 30.0
"""Seconds that opening may take; after them the fleet starts without a store."""
PAUSE: Final = 0.05
"""Seconds between two batches."""
WRITE_WITHIN: Final = 20.0
"""Seconds after which a batch that is still being written counts as failed."""
READ_WITHIN: Final = 2.0
FLUSH_WITHIN: Final = 5.0
"""Seconds for the last batches, and for closing, at the end."""
RETRY: Final = 0.5
MOST_RETRY: Final = 30.0
"""Seconds to the next attempt after one that failed, doubling from the first to the second."""
_TROUBLE: Final = (SQLAlchemyError, OSError, StoreLost, StoreUnusable, trio.TooSlowError)


class Target(Protocol):
    """What the actor writes to (`Database`). Blocking; called by one thread at a time."""

    def write(self, batch: Batch) -> None: ...

    def begin_anew(self) -> None: ...

    def lines(self, limit: int, before: int) -> list[Document]: ...

    def close(self) -> None: ...


class Worker:
    """Runs blocking calls in a thread, one at a time. Cancelled: the caller goes on, the thread ends by itself."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(1)

    async def __call__(self, call: Callable[[], Any]) -> Any:
        return await trio.to_thread.run_sync(call, limiter=self._limiter, abandon_on_cancel=True)


class Store:
    """The actor. `held`: the documents that are on disk now, so that all can be written anew if the file is lost."""

    def __init__(
        self,
        target: Target,
        journal: Journal,
        held: Sequence[Mark] = (),
        in_thread: InThread | None = None,
        *,
        wall: Callable[[], float],
    ) -> None:
        self._target = target
        self._journal = journal
        self._held = dict.fromkeys(held)
        self._in_thread = in_thread or Worker()
        self._packer = Packer(journal, wall)
        self._wall = wall
        self._lost = False
        self._wait = RETRY

    async def run(self) -> None:
        """Write what is marked until cancelled. A crash loses nothing: what was in hand is marked again."""
        journal = self._journal
        while True:
            if not journal.pending:
                await journal.woken.park()
            if await self.attempt():
                await trio.sleep(PAUSE)
            else:
                wait, self._wait = self._wait, min(self._wait * 2.0, MOST_RETRY)
                await trio.sleep(wait)

    async def attempt(self) -> bool:
        """Write one batch; whether it is on disk. Cancelled, or crashed: it waits again."""
        journal = self._journal
        try:
            batch = self._packer.pack()
            with trio.fail_after(WRITE_WITHIN):
                await self._write(batch)
        except _TROUBLE as trouble:
            journal.give_back()
            self._failed(trouble)
            return False
        except BaseException as end:
            journal.give_back()
            if isinstance(end, Exception):
                self._failed(end)
            raise
        self._succeeded(batch)
        journal.settle()
        return True

    async def lines(self, limit: int, before: int) -> list[Document]:
        """The last audit lines with a number below `before`, newest first; none if they cannot be read in time."""
        try:
            with trio.fail_after(READ_WITHIN):
                found: list[Document] = await self._in_thread(partial(self._target.lines, limit, before))
                return found
        except _TROUBLE as trouble:
            level = logging.WARNING if self._journal.standing.state == "ok" else logging.DEBUG
            log.log(level, "the audit log cannot be read from the store: %s", _words(trouble))
            return []

    async def finish(self, within: float = FLUSH_WITHIN) -> None:
        """Write what is left and let go of the file, within some seconds each; nothing is marked after that."""
        journal = self._journal
        with trio.move_on_after(within, shield=True):
            while journal.pending and await self.attempt():
                pass
        journal.detach()
        if journal.pending:
            log.warning("the store was closed with %d changes unwritten", journal.pending)
        with trio.move_on_after(within, shield=True):
            await self._in_thread(self._target.close)

    async def _write(self, batch: Batch) -> None:
        if self._lost:
            await self._in_thread(self._target.begin_anew)
            self._lost = False
            for kind, key in self._held:
                self._journal.touch(kind, key)
        await self._in_thread(partial(self._target.write, batch))

    def _succeeded(self, batch: Batch) -> None:
        for mark, text in batch.documents.items():
            if text is None:
                self._held.pop(mark, None)
            else:
                self._held[mark] = None
        standing = self._journal.standing
        standing.last_write = self._wall()
        self._wait = RETRY
        if standing.state != "ok":
            log.info("the store is written again")
            standing.state, standing.why, standing.since = "ok", "", standing.last_write

    def _failed(self, trouble: BaseException) -> None:
        self._lost = self._lost or isinstance(trouble, StoreLost)
        standing = self._journal.standing
        why = _words(trouble)
        if standing.state != "degraded":
            log.warning("the store cannot be written: %s; changes are kept in memory, and tried again", why)
            standing.state, standing.since = "degraded", self._wall()
        standing.why = why


def _words(trouble: BaseException) -> str:
    return "it takes too long" if isinstance(trouble, trio.TooSlowError) else reason(trouble)


async def open_journal(
    path: Path,
    audit_lines: int,
    wall: Callable[[], float],
    *,
    within: float = OPEN_WITHIN,
    migrations: Sequence[Migration] = MIGRATIONS,
) -> tuple[Journal, Store | None]:
    """The journal over the store at `path`, and the store's actor, which the fleet's tree runs (`Journal.writer`).

    `wall`: seconds since 1970.
    Never fails: without a usable store the journal is a degraded one that keeps nothing, and there is no actor.
    """
    file = StoreFile(path, wall)
    worker = Worker()
    opening = _Opening(Database(file, audit_lines, migrations))
    try:
        with trio.fail_after(within):
            contents = await worker(opening.run)
    except (StoreUnusable, trio.TooSlowError) as trouble:
        opening.give_up()
        why = str(trouble) if isinstance(trouble, StoreUnusable) else f"{file.path} could not be read in time"
        log.warning("nothing will survive a restart: %s", why)
        journal = Journal()
        journal.standing.state, journal.standing.why = "degraded", why
        journal.standing.since, journal.standing.path = wall(), str(file.path)
        return journal, None
    journal = Journal(contents.documents, next_line=contents.next_line)
    journal.standing.state, journal.standing.since = "ok", wall()
    journal.standing.path, journal.standing.moved_aside = str(file.path), contents.moved_aside
    store = Store(opening.database, journal, sorted(contents.marks), worker, wall=wall)
    journal.attach(store)
    return journal, store


class _Opening:
    """Opens a database in a thread that may come too late: then it lets go of the file itself."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._late = threading.Event()

    def run(self) -> Contents:
        contents = self.database.open()
        if self._late.is_set():
            self.database.close()
        return contents

    def give_up(self) -> None:
        self._late.set()
