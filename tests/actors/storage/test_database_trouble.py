"""The database's file is damaged, taken away, locked, or where there can be none."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import event

from actors.storage.database_file import StoreLost, StoreUnusable
from tests.actors.storage.opened_database import Opened, batch, fill, raw

HEAD = 100
"""Bytes of SQLite's own header."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "fleet.db"


@pytest.fixture
def opened() -> Iterator[Opened]:
    opened = Opened()
    yield opened
    for database in opened.all:
        database.close()


# ---- damage


def _overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no database at all": lambda path: path.write_bytes(b"this is no database, though it is long enough" * 100),
    "one byte": lambda path: path.write_bytes(b"x"),
    "header": lambda path: _overwrite(path, 0, b"\0" * HEAD),
    "first page": lambda path: _overwrite(path, HEAD, b"\xff" * 200),
    "last pages": lambda path: _overwrite(path, path.stat().st_size - 8192, b"\xa5" * 8192),
    "all pages but the first": lambda path: _overwrite(path, 4096, b"\x5a" * (path.stat().st_size - 4096)),
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 2),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_corrupt_file_is_moved_aside_for_a_new_one(
    path: Path, opened: Opened, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    fill(path, opened, 2000)
    DAMAGE[damage](path)
    before = path.read_bytes()
    database = opened(path)
    assert (opened.contents.documents, opened.contents.next_line) == ({}, 1)
    aside = Path(opened.contents.moved_aside)
    assert aside.name.startswith("fleet.db.corrupt-2")
    assert aside.read_bytes() == before
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    database.write(batch(1, a="{}"))
    database.close()
    opened(path)
    assert (opened.contents.documents, opened.contents.moved_aside) == ({"thing": {"a": {}}}, "")


@pytest.mark.parametrize("damage", ["header", "all pages but the first"])
def test_a_file_that_was_damaged_while_it_was_open_was_never_written_again(
    path: Path, opened: Opened, damage: str
) -> None:
    database = opened(path)
    database.write(batch(**{f"k{number}": '{"some": "text"}' for number in range(2000)}))
    database.engine.dispose()  # all of it is in the one file now
    DAMAGE[damage](path)
    with pytest.raises(StoreLost):
        database.write(batch(b="{}"))
    database.begin_anew()
    database.write(batch(b='{"n":1}'))
    assert len(list(path.parent.glob("fleet.db.corrupt-*"))) == 1
    database.close()
    opened(path)
    assert opened.contents.documents == {"thing": {"b": {"n": 1}}}


def test_what_lies_beside_a_corrupt_file_goes_with_it(path: Path, opened: Opened) -> None:
    fill(path, opened)
    path.write_bytes(b"x" * 5000)
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).write_bytes(b"beside")
    opened(path)
    aside = Path(opened.contents.moved_aside)
    assert aside.with_name(aside.name + "-wal").read_bytes() == b"beside"
    opened.all[-1].close()
    path.write_bytes(b"y" * 5000)
    opened(path)
    assert Path(opened.contents.moved_aside).read_bytes() == b"y" * 5000, "a second one replaces no first"


def test_an_empty_file_is_a_new_store(path: Path, opened: Opened) -> None:
    path.parent.mkdir()
    path.touch()
    opened(path)
    assert opened.contents.moved_aside == ""


def test_rows_that_were_tampered_with_are_left_out(
    path: Path, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    fill(path, opened, 3)
    raw(
        path,
        "UPDATE documents SET value = '[1]' WHERE key = 'k0'",
        "UPDATE documents SET value = 'no json' WHERE key = 'k1'",
        "INSERT INTO documents VALUES ('thing', x'00ff', '{}', 1), ('thing', 'number', 17, 1)",
        "INSERT INTO documents VALUES ('thing', cast(x'ff41' AS TEXT), '{\"n\":4}', 1)",
        "INSERT INTO documents VALUES (x'41', 'kind', '{}', 'soon')",
        "UPDATE audit SET line = 'no json' WHERE id = 2",
        "INSERT INTO audit VALUES ('word', 'when', 'what')",
    )
    database = opened(path)
    assert opened.contents.documents == {"thing": {"k2": {"n": 2}, "\ufffdA": {"n": 4}}}
    assert [record.message for record in caplog.records] == [
        "5 documents in the store are no JSON objects and are left out"
    ]
    assert [line["id"] for line in database.lines(10, 99)] == [3, 1]
    database.write(batch(opened.contents.next_line, k2=None))


# ---- places where there can be no store


def test_two_stores_never_write_one_file(path: Path, opened: Opened) -> None:
    first = opened(path)
    with pytest.raises(StoreUnusable, match="in use by another process"):
        opened(path)
    first.write(batch(a="{}"))
    first.close()
    opened(path)
    assert opened.contents.documents == {"thing": {"a": {}}}


def test_a_directory_that_cannot_be_made_is_said(path: Path, opened: Opened) -> None:
    path.parent.write_text("a file where the directory should be")
    with pytest.raises(StoreUnusable, match="cannot be used"):
        opened(path)


def test_what_is_no_file_is_refused(path: Path, opened: Opened) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreUnusable):
        opened(path)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(StoreUnusable, match="is not a file"):
        opened(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_directory_that_is_not_ours_is_said(path: Path, opened: Opened) -> None:
    path.parent.mkdir(mode=0o500)
    with pytest.raises(StoreUnusable, match="Permission denied"):
        opened(path)


# ---- trouble while it is open


def test_a_full_disk_fails_the_write_and_keeps_what_was_there(path: Path, opened: Opened) -> None:
    database = opened(path)
    database.write(batch(a='{"n":1}'))
    pages = {"most": raw(path, "PRAGMA page_count")[0][0][0]}

    def narrow(connection: Any, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count={pages['most']}").close()

    event.listen(database.engine, "connect", narrow)
    database.engine.dispose()
    big = batch(a='{"n":2}', b=f'{{"x":"{"x" * 50_000}"}}')
    with pytest.raises(sqlalchemy.exc.OperationalError, match="full"):
        database.write(big)
    assert raw(path, "SELECT value FROM documents") == [[('{"n":1}',)]]
    pages["most"] = 10_000
    database.write(big)
    assert raw(path, "SELECT value FROM documents WHERE key = 'a'", "PRAGMA quick_check") == [[('{"n":2}',)], [("ok",)]]


@pytest.mark.parametrize("what", ["removed", "replaced", "directory removed"])
def test_a_file_that_is_taken_away_is_noticed_and_begun_anew(path: Path, opened: Opened, what: str) -> None:
    database = opened(path)
    database.write(batch(a="{}"))
    for file in path.parent.iterdir():
        if file.name != "fleet.db.lock" or what == "directory removed":
            file.unlink()
    if what == "directory removed":
        path.parent.rmdir()
    elif what == "replaced":
        other = Opened()
        other(path.with_name("other.db")).write(batch(old='{"of": "another"}'))
        other.all[0].close()
        path.with_name("other.db").rename(path)
    with pytest.raises(StoreLost):
        database.write(batch(b="{}"))
    database.begin_anew()
    database.write(batch(b='{"n":1}'))
    database.close()
    opened(path)
    assert opened.contents.documents == {"thing": {"b": {"n": 1}}}


def test_a_file_that_is_replaced_by_one_that_is_not_ours_is_not_touched(path: Path, opened: Opened) -> None:
    database = opened(path)
    database.write(batch(a="{}"))
    other = path.with_name("other.db")
    raw(other, "CREATE TABLE somebody (a INTEGER)")
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink()
    other.rename(path)
    before = path.read_bytes()
    with pytest.raises(StoreLost):
        database.write(batch(b="{}"))
    with pytest.raises(StoreUnusable, match="another program"):
        database.begin_anew()
    assert path.read_bytes() == before


def test_a_lock_of_somebody_else_is_waited_for_and_then_said(
    path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.storage.database.BUSY", 0.05)
    database = opened(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlalchemy.exc.OperationalError, match="locked"):
            database.write(batch(a="{}"))
        shell.execute("ROLLBACK")
        database.write(batch(a="{}"))
