"""The store on a real disk: opened, checked, migrated, damaged, full, taken away."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import Connection, text

from actors.storage.database_file import StoreUnusable
from actors.storage.migrations import MIGRATIONS
from tests.actors.storage.opened_database import Opened, batch, fill, raw


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "fleet.db"


@pytest.fixture
def opened() -> Iterator[Opened]:
    opened = Opened()
    yield opened
    for database in opened.all:
        database.close()


# ---- opening


def test_a_new_store_is_for_its_owner_only(path: Path, opened: Opened) -> None:
    umask = os.umask(0)
    try:
        database = opened(path)
        database.write(batch(a="{}"))
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(("fleet.db", "fleet.db-wal", "fleet.db-shm", "fleet.db.lock"), 0o600)


def test_what_was_written_is_read_back(path: Path, opened: Opened) -> None:
    database = opened(path)
    assert (opened.contents.documents, opened.contents.next_line, opened.contents.moved_aside) == ({}, 1, "")
    database.write(batch(7, 8, a='{"n":1}', b='{"n":"\\u0000 é 😀"}', c='{"n":3}'))
    database.write(batch(9, a='{"n":2}', c=None, d=None))
    database.close()
    opened(path)
    assert opened.contents.documents == {"thing": {"a": {"n": 2}, "b": {"n": "\0 é 😀"}}}
    assert opened.contents.next_line == 10
    assert opened.contents.marks == {("thing", "a"), ("thing", "b")}


def test_it_writes_ahead_and_times_are_noted(path: Path, opened: Opened) -> None:
    database = opened(path)
    database.write(batch(1, a="{}"))
    assert raw(path, "PRAGMA journal_mode", "SELECT updated FROM documents", "SELECT at FROM audit") == [
        [("wal",)],
        [(1000.5,)],
        [(5.5,)],
    ]
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1


def test_writing_a_batch_twice_does_no_harm(path: Path, opened: Opened) -> None:
    database = opened(path)
    for _ in range(2):
        database.write(batch(1, 2, a='{"n":1}'))
    assert [line["id"] for line in database.lines(10, 99)] == [2, 1]


def test_a_batch_is_written_as_a_whole_or_not_at_all(path: Path, opened: Opened) -> None:
    database = opened(path)
    broken = batch(1, a="{}")
    broken.lines.append((2, 1.0, None))  # type: ignore[arg-type]
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        database.write(broken)
    assert raw(path, "SELECT * FROM documents", "SELECT * FROM audit") == [[], []]
    database.write(batch(1, a="{}"))
    assert len(raw(path, "SELECT * FROM documents")[0]) == 1


@pytest.mark.parametrize(("most", "left"), [(5, [23, 22, 21, 20, 19]), (0, []), (100, list(range(23, 0, -1)))])
def test_the_audit_log_is_trimmed(path: Path, opened: Opened, most: int, left: list[int]) -> None:
    database = opened(path, most)
    for first in range(1, 24, 2):
        database.write(batch(*range(first, min(first + 2, 24))))
    assert [line["id"] for line in database.lines(100, 1000)] == left
    assert [line["number"] for line in database.lines(2, 22)] == [number for number in left if number < 22][:2]


# ---- versions


def _second(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE documents ADD COLUMN author TEXT NOT NULL DEFAULT 'nobody'"))
    connection.execute(text("UPDATE documents SET author = 'version 2'"))


def _third(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE more (a INTEGER)"))


def _breaks(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE never (a INTEGER)"))
    connection.execute(text("SELECT nonsense FROM nowhere"))


def test_a_store_of_an_earlier_version_is_brought_up_to_date(path: Path, opened: Opened) -> None:
    fill(path, opened)
    database = opened(path, migrations=(*MIGRATIONS, _second, _third))
    assert len(opened.contents.documents["thing"]) == 200
    assert opened.contents.next_line == 4
    found = raw(path, "SELECT DISTINCT author FROM documents", "SELECT value FROM meta", "SELECT * FROM more")
    assert found == [[("version 2",)], [(len(MIGRATIONS) + 2,)], []]
    database.close()
    opened(path, migrations=(*MIGRATIONS, _second, _third))


def test_a_migration_that_fails_leaves_the_store_as_it_was(path: Path, opened: Opened) -> None:
    fill(path, opened)
    with pytest.raises(StoreUnusable, match="nowhere"):
        opened(path, migrations=(*MIGRATIONS, _second, _breaks))
    opened(path)
    assert len(opened.contents.documents["thing"]) == 200
    tables = raw(path, "SELECT name FROM sqlite_master WHERE name IN ('never', 'more')", "SELECT value FROM meta")
    assert tables == [[], [(len(MIGRATIONS),)]]


def test_a_store_of_a_newer_version_is_refused_and_not_touched(path: Path, opened: Opened) -> None:
    fill(path, opened)
    opened(path, migrations=(*MIGRATIONS, _third)).close()
    before = path.read_bytes()
    with pytest.raises(StoreUnusable, match="is of version 2, this program knows 1"):
        opened(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE somebody (a INTEGER)",
        "CREATE TABLE meta (name TEXT, value INTEGER)",
        "CREATE TABLE meta (something TEXT)",
    ],
)
def test_a_database_of_another_program_is_refused_and_not_touched(path: Path, opened: Opened, statement: str) -> None:
    path.parent.mkdir()
    raw(path, statement)
    before = path.read_bytes()
    with pytest.raises(StoreUnusable):
        opened(path)
    assert path.read_bytes() == before
    assert {file.name for file in path.parent.iterdir()} <= {"fleet.db", "fleet.db.lock"}
