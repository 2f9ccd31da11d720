"""The history's database: a batch of rows in one transaction, and what is too old taken out in slices.

Blocking: for one worker thread at a time. A file of its own, so that a damaged or full history never takes the fleet's
store along; it is not needed for anything else and may be removed at any time.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, delete, event, func, insert, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

from actors.storage.database import engine_for, is_corrupt, reason
from actors.storage.database_file import StoreFile, StoreUnusable
from actors.storage.history.names import MOST, Names
from actors.storage.history.rollup_table import RollupTable
from actors.storage.history.schema import ATTEMPTS, KINDS, META, REQUESTS, ROLLUPS, TABLES, VERSION
from fleet.history.request_row import RequestRow, RowNumbers, first_number
from fleet.history.rollups import KEPT, TIERS, Rollups

log = logging.getLogger("fleet.history")

DAY: Final = 86_400.0
SLICE: Final = 5_000
"""Rows that are taken out at a time, so that a batch never waits long."""
_SECRET: Final = 32
_INSERT: Final = str(insert(REQUESTS).compile(dialect=sqlite.dialect()))
"""As SQLite has it: with tuples in the order of the columns, a batch takes half the time that it takes with names."""
_PLAIN: Final = ("request", "trace", "began", "queue", "load", "first_byte", "total", "slot", "wasted")
_MORE: Final = ("status", "prompt_tokens", "output_tokens", "stream", "options", "tries")
assert ("id", *_PLAIN, *KINDS, *_MORE) == tuple(REQUESTS.c.keys())
_names_of: Final[Callable[[RequestRow], tuple[str, ...]]] = attrgetter(*KINDS)
_plain_of: Final[Callable[[RequestRow], tuple[object, ...]]] = attrgetter(*_PLAIN)
_more_of: Final[Callable[[RequestRow], tuple[object, ...]]] = attrgetter(*_MORE)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what is kept. Seconds and bytes; rows go by whichever comes first, sums by the size of their buckets."""

    rows_seconds: float = 7 * DAY
    file_bytes: int = 1 << 30
    rollups_seconds: tuple[float, ...] = KEPT
    """For each of `TIERS`."""


@dataclass(slots=True)
class _Opened:
    """What is in memory of the file; made anew after a transaction that failed."""

    names: Names
    rollups: RollupTable
    numbers: RowNumbers


class HistoryDatabase:
    """An open history. `moved_aside`: where a damaged one was put when this was opened; empty if there was none."""

    def __init__(self, file: StoreFile, most_names: int = MOST) -> None:
        self.file = file
        self._most_names = most_names
        self.engine = engine_for(file.path)
        event.listen(self.engine, "connect", _shrinkable)
        self.secret = b""
        """The key of clients' hashes: made with the file, and kept in it."""
        self.moved_aside = ""
        self._opened: _Opened | None = None

    def open(self) -> None:
        """Claim the file and read it; a damaged one is moved aside for a new one.

        Raises StoreUnusable, and then nothing is held.
        """
        self.file.claim()
        try:
            try:
                self._begin()
            except (DatabaseError, ValueError) as error:
                if not (is_corrupt(error) or isinstance(error, ValueError)):
                    raise
                self._set_aside()
                self._begin()
        except BaseException as error:
            self.close()
            if isinstance(error, SQLAlchemyError | OSError):
                raise StoreUnusable(f"{self.file.path} cannot be used: {reason(error)}") from error
            raise

    def write(self, rows: Sequence[tuple[float, RequestRow]]) -> None:
        """All of these, with when they ended (seconds since 1970), or nothing. Raises SQLAlchemyError, StoreLost."""
        if not rows:
            return
        self.file.check()
        with self._transaction() as (connection, opened):
            names = opened.names
            numbered: list[tuple[int, RequestRow]] = []
            attempts: list[dict[str, object]] = []
            columns: list[tuple[object, ...]] = []
            for ended, row in rows:
                number = opened.numbers.next(ended)
                given = _names_of(row)
                kept, places = names.kept(connection, given)
                numbered.append((number, row if kept == given else _folded(row, kept)))
                columns.append((number, *_plain_of(row), *places, *_more_of(row)))
                if row.attempts:
                    attempts += _attempts(connection, names, number, row)
            connection.exec_driver_sql(_INSERT, columns)
            if attempts:
                connection.execute(insert(ATTEMPTS), attempts)
            opened.rollups.add(connection, numbered, opened.numbers.last)

    def prune(self, keep: Retention, now: float) -> bool:
        """Take out a slice of what is kept too long; whether there is more. Raises SQLAlchemyError, StoreLost."""
        self.file.check()
        with self._transaction() as (connection, opened):
            for tier, seconds in zip(TIERS, keep.rollups_seconds, strict=True):
                limit = min(int(now - seconds), opened.rollups.contained(tier))
                connection.execute(delete(ROLLUPS).where(ROLLUPS.c.tier.in_((tier, -tier)), ROLLUPS.c.bucket < limit))
            too_large = self._size(connection) > keep.file_bytes
            limit = 1 << 62 if too_large else first_number(now - keep.rows_seconds)
            oldest = select(REQUESTS.c.id).where(REQUESTS.c.id < limit).order_by(REQUESTS.c.id).limit(SLICE)
            last = connection.execute(select(func.max(oldest.subquery().c.id))).scalar()
            if last is None:
                return False
            connection.execute(delete(ATTEMPTS).where(ATTEMPTS.c.id <= last))
            gone = connection.execute(delete(REQUESTS).where(REQUESTS.c.id <= last)).rowcount
            connection.exec_driver_sql("PRAGMA incremental_vacuum(2000)").close()
            return gone >= SLICE or too_large

    def rollups(self, tier: int, since: int, until: int) -> Rollups:
        """The sums of a tier whose buckets begin in that time. Raises SQLAlchemyError."""
        with self._transaction() as (connection, opened):
            return opened.rollups.read(connection, tier, since, until)

    def close(self) -> None:
        """Let go of the file."""
        self._opened = None
        self.engine.dispose()
        self.file.release()

    # ---- inside

    def _begin(self) -> None:
        if self.file.foreign:
            raise ValueError("it is no database")
        with self.engine.begin() as connection:
            TABLES.create_all(connection)
            self.secret = _secret(connection)
        raw = self.engine.raw_connection()
        try:
            raw.cursor().execute("PRAGMA journal_mode=WAL").close()
        finally:
            raw.close()
        with self._transaction():
            pass

    def _set_aside(self) -> None:
        self.engine.dispose()
        self.moved_aside = str(self.file.move_aside())
        log.warning("the history was damaged: it was moved to %s, and a new one begun", self.moved_aside)
        self.file.begin()

    @contextmanager
    def _transaction(self) -> Iterator[tuple[Connection, _Opened]]:
        """A transaction and what memory knows of the file, which is read again after one that failed."""
        try:
            with self.engine.begin() as connection:
                if self._opened is None:
                    names = Names(connection, self._most_names)
                    last = connection.execute(select(func.max(REQUESTS.c.id))).scalar()
                    self._opened = _Opened(names, RollupTable(connection, names), RowNumbers(last or 0))
                yield connection, self._opened
        except BaseException:
            self._opened = None
            self.engine.dispose()
            raise

    def _size(self, connection: Connection) -> int:
        """Bytes of the file that are in use."""
        pages, unused, size = (
            int(connection.exec_driver_sql(f"PRAGMA {what}").scalar_one())
            for what in ("page_count", "freelist_count", "page_size")
        )
        return (pages - unused) * size


def _shrinkable(connection: Any, _: object) -> None:
    """Of each new connection; it counts before there is a table."""
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL").close()


def _secret(connection: Connection) -> bytes:
    """The key of this history, made with it. Raises ValueError for a file of another version."""
    version = connection.execute(select(META.c.number).where(META.c.name == "version")).scalar()
    if version is None:
        connection.execute(insert(META).values(name="version", number=VERSION, bytes=secrets.token_bytes(_SECRET)))
    elif version != VERSION:
        raise ValueError(f"it is of version {version}")
    found = connection.execute(select(META.c.bytes).where(META.c.name == "version")).scalar_one()
    if not isinstance(found, bytes) or len(found) != _SECRET:
        raise ValueError("its key is damaged")
    return found


def _folded(row: RequestRow, kept: tuple[str, ...]) -> RequestRow:
    """The row with the names that are kept: sums are made of those, or two could be one on disk."""
    return msgspec.structs.replace(row, **dict(zip(KINDS, kept, strict=True)))


def _attempts(connection: Connection, names: Names, number: int, row: RequestRow) -> list[dict[str, object]]:
    return [
        {
            "id": number,
            "number": at,
            "server": names.number(connection, "server", names.fold("server", attempt.server)),
            "outcome": names.number(connection, "outcome", names.fold("outcome", attempt.outcome)),
            "after": attempt.after,
            "seconds": attempt.seconds,
            "first_byte": attempt.first_byte,
        }
        for at, attempt in enumerate(row.attempts)
    ]
