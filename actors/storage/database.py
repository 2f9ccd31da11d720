"""The store's database: read once at the start, written in batches. Blocking: for one worker thread at a time."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
from sqlalchemy import URL, Connection, Engine, bindparam, create_engine, delete, event, func, insert, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from actors.storage.batches import LARGEST, Batch
from actors.storage.database_file import StoreFile, StoreLost, StoreUnusable
from actors.storage.journal import Document, Mark
from actors.storage.migrations import AUDIT, DOCUMENTS, MIGRATIONS, ForeignStore, Migration, check_ours, migrate

log = logging.getLogger("fleet.store")

BUSY: Final = 5.0
"""Seconds to wait for somebody else (a backup, a shell) who holds the database."""
MOST_DOCUMENTS: Final = 250_000
"""Documents that are read at the start."""
_WAL_BYTES: Final = 16 << 20
_CORRUPT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_FORGET: Final = delete(DOCUMENTS).where(DOCUMENTS.c.kind == bindparam("a_kind"), DOCUMENTS.c.key == bindparam("a_key"))
_FORGET_LINE: Final = delete(AUDIT).where(AUDIT.c.id == bindparam("an_id"))


class Corrupt(Exception):
    """The file is no database, or a damaged one."""


@dataclass(slots=True)
class Contents:
    """What the store held when it was opened. `moved_aside`: where a corrupt predecessor was put."""

    documents: dict[str, dict[str, Document]] = field(default_factory=dict)
    next_line: int = 1
    moved_aside: str = ""

    @property
    def marks(self) -> set[Mark]:
        """Kind and key of every document."""
        return {(kind, key) for kind, documents in self.documents.items() for key in documents}


class Database:
    """An open store. `audit_lines` is how many lines of the audit log it keeps."""

    def __init__(self, file: StoreFile, audit_lines: int, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        self.file = file
        self.engine = engine_for(file.path)
        self._audit_lines = audit_lines
        self._migrations = migrations

    def open(self) -> Contents:
        """Claim the file, check it, bring it up to date and read it; a corrupt one is moved aside for a new one.

        Raises StoreUnusable, and then nothing is held.
        """
        self.file.claim()
        try:
            return self._begin()
        except BaseException as error:
            self.close()
            if isinstance(error, ForeignStore):
                raise StoreUnusable(f"{self.file.path}: {error}") from error
            if isinstance(error, SQLAlchemyError | OSError | Corrupt):
                raise StoreUnusable(f"{self.file.path} cannot be used: {reason(error)}") from error
            raise

    def begin_anew(self) -> None:
        """After StoreLost: a store without documents at the old place, whatever stands there now.

        Raises StoreUnusable, SQLAlchemyError.
        """
        self.engine.dispose()
        self.open()
        with self.engine.begin() as connection:
            connection.execute(delete(DOCUMENTS))

    def write(self, batch: Batch) -> None:
        """All of a batch, or nothing; writing one twice does no harm.

        Raises SQLAlchemyError, and StoreLost also for a file that was damaged since: all of it must be written anew.
        """
        self.file.check()
        try:
            with self.engine.begin() as connection:
                _write_documents(connection, batch)
                _write_lines(connection, batch, self._audit_lines)
        except BaseException as error:
            self.engine.dispose()  # whatever is wrong with the connection, the next attempt has another
            if is_corrupt(error):
                raise StoreLost(f"{self.file.path} is damaged: {reason(error)}") from error
            raise

    def lines(self, limit: int, before: int) -> list[Document]:
        """The last audit lines with a number below `before`, newest first. Raises SQLAlchemyError."""
        wanted = select(AUDIT.c.id, AUDIT.c.line).where(AUDIT.c.id < before).order_by(AUDIT.c.id.desc()).limit(limit)
        with self.engine.begin() as connection:
            rows = connection.execute(wanted).all()
        return [{**document, "id": number} for number, text in rows if (document := _document(text)) is not None]

    def close(self) -> None:
        """Let go of the file. A last checkpoint may take a moment."""
        self.engine.dispose()
        self.file.release()

    # ---- opening

    def _begin(self) -> Contents:
        try:
            return self._read()
        except (Corrupt, DBAPIError) as error:
            if not is_corrupt(error):
                raise
        self.engine.dispose()
        aside = self.file.move_aside()
        log.warning("the store was corrupt: it was moved aside, and a new one begun", extra={"moved_to": str(aside)})
        self.file.begin()
        contents = self._read()
        contents.moved_aside = str(aside)
        return contents

    def _read(self) -> Contents:
        if self.file.foreign:
            raise Corrupt("it is no database")
        with self.engine.begin() as connection:
            _check(connection)
            check_ours(connection, self._migrations)
        self._write_ahead()
        with self.engine.begin() as connection:
            migrate(connection, self._migrations)
            documents = _documents(connection)
            last = connection.execute(select(func.max(AUDIT.c.id))).scalar()
        return Contents(documents, 1 + (last if isinstance(last, int) else 0))

    def _write_ahead(self) -> None:
        """Not within a transaction, and not before the database is known to be ours: the file remembers it."""
        raw = self.engine.raw_connection()
        try:
            raw.cursor().execute("PRAGMA journal_mode=WAL").close()
        finally:
            raw.close()


def engine_for(path: Path) -> Engine:
    """An engine with one connection, set up as the store needs it."""
    url = URL.create("sqlite", database=str(path))
    options = {"timeout": BUSY, "check_same_thread": False}
    engine = create_engine(url, pool_size=1, max_overflow=0, pool_reset_on_return="rollback", connect_args=options)
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def is_corrupt(error: BaseException) -> bool:
    """Whether the file itself is damaged, rather than the disk full or somebody in the way."""
    if isinstance(error, Corrupt):
        return True
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    return isinstance(code, int) and code & 0xFF in _CORRUPT


def reason(error: BaseException) -> str:
    """In a few words, without the statement and its values."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return (str(original) or type(original).__name__)[:300]


def _set_up(connection: Any, _: object) -> None:
    """Of each new connection. Python's driver shall not begin transactions by itself: it leaves out those of DDL."""
    connection.isolation_level = None
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    for pragma in ("synchronous=NORMAL", f"journal_size_limit={_WAL_BYTES}"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _check(connection: Connection) -> None:
    said = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if said != "ok":
        raise Corrupt(str(said))


def _documents(connection: Connection) -> dict[str, dict[str, Document]]:
    found: dict[str, dict[str, Document]] = {}
    rows = connection.execute(select(DOCUMENTS.c.kind, DOCUMENTS.c.key, DOCUMENTS.c.value).limit(MOST_DOCUMENTS))
    strange = 0
    for kind, key, value in rows:
        document = _document(value)
        if document is None or not isinstance(kind, str) or not isinstance(key, str):
            strange += 1
        else:
            found.setdefault(kind, {})[key] = document
    if strange:
        log.warning("%d documents in the store are no JSON objects and are left out", strange)
    return found


def _document(value: object) -> Document | None:
    if not isinstance(value, str | bytes) or len(value) > LARGEST:
        return None
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


# ---- writing: deleted and inserted, as every database understands it


def _write_documents(connection: Connection, batch: Batch) -> None:
    if batch.documents:
        connection.execute(_FORGET, [{"a_kind": kind, "a_key": key} for kind, key in batch.documents])
    rows = [
        {"kind": kind, "key": key, "value": text, "updated": batch.at}
        for (kind, key), text in batch.documents.items()
        if text is not None
    ]
    if rows:
        connection.execute(insert(DOCUMENTS), rows)


def _write_lines(connection: Connection, batch: Batch, most: int) -> None:
    if not batch.lines:
        return
    rows: Sequence[Mapping[str, object]] = [{"id": number, "at": at, "line": text} for number, at, text in batch.lines]
    connection.execute(_FORGET_LINE, [{"an_id": number} for number, _, _ in batch.lines])
    connection.execute(insert(AUDIT), rows)
    connection.execute(delete(AUDIT).where(AUDIT.c.id <= batch.lines[-1][0] - most))
