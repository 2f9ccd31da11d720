from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from actors.storage.database_file import StoreFile, StoreLost, StoreUnusable
from actors.storage.history.database import SLICE, HistoryDatabase, Retention
from actors.storage.history.names import OTHERS
from actors.storage.history.schema import REQUESTS
from fleet.history.request_row import AttemptRow, RequestRow, RowNumbers
from fleet.history.rollups import TIERS, Rollups, add_rows, merge_into
from tests.fleet.history.test_request_row import row

START = 1_700_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "history.db"


@pytest.fixture
def database(path: Path) -> Iterator[HistoryDatabase]:
    made = opened(path)
    yield made
    made.close()


def opened(path: Path) -> HistoryDatabase:
    made = HistoryDatabase(StoreFile(path, lambda: START))
    made.open()
    return made


def stored(path: Path, what: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(what).fetchall()


def many(number: int, step: float = 7.0) -> list[tuple[float, RequestRow]]:
    """So many requests of two servers, one every few seconds."""
    outcomes = ("completed", "completed", "client_left", "backend_broke")
    return [
        (
            START + each * step,
            row(request=f"r{each}", server="ab"[each % 2], outcome=outcomes[each % 4], total=0.1 + each % 13),
        )
        for each in range(number)
    ]


def sums_of(rows: list[tuple[float, RequestRow]]) -> Rollups:
    sums: Rollups = {}
    numbers = RowNumbers()
    add_rows(sums, [(numbers.next(ended), each) for ended, each in rows])
    return sums


def test_a_row_is_kept_with_its_names_and_attempts(database: HistoryDatabase, path: Path) -> None:
    tried = (AttemptRow("b", "backend_broke", 0.1, 0.4, None), AttemptRow("a", "completed", 0.5, 1.4, 0.2))
    database.write([(START, row(tries=2, attempts=tried, options="abc"))])
    assert stored(
        path,
        "select request, s.name, m.name, o.name, total, stream, tries, options from requests r"
        " join names s on s.id = server join names m on m.id = model join names o on o.id = outcome",
    ) == [("r1", "a", "tiny:latest", "completed", 2.0, 1, 2, "abc")]
    assert stored(path, "select number, seconds, first_byte from attempts order by 1") == [
        (0, 0.4, None),
        (1, 1.4, 0.2),
    ]


def test_the_sums_of_every_tier_are_those_of_the_rows(database: HistoryDatabase) -> None:
    rows = many(1200, step=97.0)
    for at in range(0, len(rows), 17):
        database.write(rows[at : at + 17])
    fine = sums_of(rows)
    assert database.rollups(TIERS[0], 0, 1 << 40) == fine
    for tier in TIERS[1:]:
        coarse: Rollups = {}
        merge_into(coarse, fine, tier)
        over = int(rows[-1][0]) // tier * tier
        got = database.rollups(tier, 0, over)
        wanted = {key: rollup for key, rollup in coarse.items() if key.bucket < over}
        assert got.keys() == wanted.keys()
        for key, rollup in wanted.items():
            assert (got[key].requests, got[key].totals) == (rollup.requests, rollup.totals)
            assert got[key].slot == pytest.approx(rollup.slot)
        fine = coarse


def test_a_history_goes_on_where_it_ended(path: Path) -> None:
    rows = many(400)
    for part in (rows[:150], rows[150:151], rows[151:]):
        database = opened(path)
        database.write(part)
        database.close()
    database = opened(path)
    assert database.rollups(TIERS[0], 0, 1 << 40) == sums_of(rows)
    database.close()
    assert stored(path, "select count(*), count(distinct id) from requests") == [(400, 400)]


def test_the_key_of_hashes_outlives_a_restart(path: Path) -> None:
    first = opened(path)
    first.close()
    second = opened(path)
    second.close()
    assert len(first.secret) == 32
    assert first.secret == second.secret


def test_a_transaction_that_failed_leaves_nothing_and_the_next_one_all(database: HistoryDatabase, path: Path) -> None:
    rows = many(60)
    database.write(rows[:20])

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    event.listen(database.engine, "commit", full)
    with pytest.raises((OperationalError, sqlite3.OperationalError)):
        database.write(rows[20:])
    event.remove(database.engine, "commit", full)
    assert stored(path, "select count(*) from requests") == [(20,)]
    database.write(rows[20:])
    assert database.rollups(TIERS[0], 0, 1 << 40) == sums_of(rows)


def test_a_damaged_history_is_set_aside(path: Path) -> None:
    opened(path).close()
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)
    again = opened(path)
    assert again.moved_aside
    assert Path(again.moved_aside).exists()
    again.write(many(1))
    again.close()


def test_a_history_of_a_later_version_is_set_aside_and_kept(path: Path) -> None:
    opened(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("update meta set number = 99 where name = 'version'")
        connection.commit()
    again = opened(path)
    again.close()
    assert stored(Path(again.moved_aside), "select number from meta where name = 'version'") == [(99,)]


def test_a_history_has_one_writer(database: HistoryDatabase, path: Path) -> None:
    with pytest.raises(StoreUnusable, match="in use"):
        opened(path)


def test_a_file_that_was_taken_away_is_noticed(database: HistoryDatabase, path: Path) -> None:
    path.unlink()
    with pytest.raises(StoreLost):
        database.write(many(1))


def test_names_are_bounded(path: Path) -> None:
    database = HistoryDatabase(StoreFile(path, lambda: START), most_names=40)
    database.open()
    database.write([(START, row(model=f"invented-{each}")) for each in range(60)])
    database.write([(START, row(model=f"invented-{each}")) for each in range(30, 90)])
    database.close()
    assert stored(path, "select count(*) from names where kind = 2") == [(41,)]
    others = "select count(*) from requests join names n on n.id = model where n.name = ?"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(others, (OTHERS,)).fetchone() == (20 + 50,)


def test_rows_go_by_age_in_slices_and_sums_stay(database: HistoryDatabase, path: Path) -> None:
    rows = many(SLICE + 700, step=0.01)
    later = [(ended + 30 * 86_400.0, each) for ended, each in many(20)]
    database.write(rows)
    database.write(later)
    keep = Retention(rows_seconds=7 * 86_400.0)
    now = later[-1][0]
    assert database.prune(keep, now)
    assert stored(path, "select count(*) from requests") == [(720,)]
    while database.prune(keep, now):
        pass
    assert stored(path, "select count(*) from requests") == [(20,)]
    days = database.rollups(TIERS[-1], 0, int(START) + 2 * 86_400)
    assert sum(rollup.requests for rollup in days.values()) == len(rows)
    assert not database.rollups(TIERS[0], 0, int(START) + 3600)


def test_sums_stay_until_coarser_ones_contain_them(database: HistoryDatabase) -> None:
    """They are rolled up by what is written later, and nothing may be: then a day off would cost the last minute."""
    database.write(many(3))
    later = START + 30 * 86_400.0
    while database.prune(Retention(), later):
        pass
    assert sum(rollup.requests for rollup in database.rollups(TIERS[0], 0, 1 << 40).values()) == 3
    database.write([(later, row())])
    assert sum(rollup.requests for rollup in database.rollups(TIERS[-1], 0, 1 << 40).values()) == 3


def test_rows_go_when_the_file_is_too_large(database: HistoryDatabase, path: Path) -> None:
    database.write(many(3 * SLICE, step=0.01))
    stored(path, "pragma wal_checkpoint(truncate)")
    before = path.stat().st_size
    keep = Retention(file_bytes=before // 2)
    while database.prune(keep, START + 60.0):
        pass
    (left,) = stored(path, "select count(*) from requests")[0]
    assert 0 < int(str(left)) < 3 * SLICE


def test_a_row_has_all_its_columns_filled_from_the_request() -> None:
    fields = {field.name for field in msgspec.structs.fields(RequestRow)} - {"attempts"}
    assert {column.name for column in REQUESTS.c} == fields | {"id"}
