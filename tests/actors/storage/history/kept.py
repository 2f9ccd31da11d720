"""What a file of the history holds, read by itself: whether requests are whole, and sums are theirs."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from actors.storage.database_file import StoreFile
from actors.storage.history.database import HistoryDatabase
from fleet.history.request_row import ended_at
from fleet.history.rollups import MINUTE, TIERS, Rollups, add_rows, merge_into
from tests.fleet.history.test_request_row import row

_ROWS = (
    "select r.id, r.request, s.name as server, m.name as model, e.name as endpoint, c.name as client,"
    " o.name as outcome, r.began, r.queue, r.load, r.first_byte, r.total, r.slot, r.wasted, r.status,"
    " r.prompt_tokens, r.output_tokens, r.stream, r.tries from requests r"
    " join names s on s.id = r.server join names m on m.id = r.model join names e on e.id = r.endpoint"
    " join names c on c.id = r.client join names o on o.id = r.outcome order by r.id"
)


def rows_in(path: Path) -> list[tuple[int, Any]]:
    """All requests of a file, by number."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [(each["id"], row(**{key: each[key] for key in each.keys()[1:]})) for each in connection.execute(_ROWS)]


def found_in(path: Path) -> dict[str, Any]:
    """`rows`: how many; `whole`: they are those from zero on, each once; `sums`: of every tier, are those of the rows.

    `aside`: the file was moved aside when it was opened.
    """
    database = HistoryDatabase(StoreFile(path, time.time))
    database.open()
    try:
        rows = rows_in(path)
        with closing(sqlite3.connect(path)) as connection:
            marks = dict(connection.execute("select name, number from meta where name like 'rolled %'"))
        sums = database.rollups(MINUTE, 0, 1 << 40) == _sums(rows, MINUTE)
        for tier in TIERS[1:]:
            over = [each for each in rows if ended_at(each[0]) < marks.get(f"rolled {tier}", 0)]
            for summary in (False, True):
                kept = database.rollups(-tier if summary else tier, 0, 1 << 40)
                sums = sums and _counts(kept) == _counts(_sums(over, tier, summary=summary))
    finally:
        database.close()
    whole = [each.request for _, each in rows] == [str(number) for number in range(len(rows))]
    return {"rows": len(rows), "whole": whole, "sums": sums, "aside": bool(database.moved_aside)}


def _sums(rows: list[tuple[int, Any]], tier: int, *, summary: bool = False) -> Rollups:
    fine: Rollups = {}
    add_rows(fine, rows)
    if tier == MINUTE:
        return fine
    coarse: Rollups = {}
    merge_into(coarse, fine, tier, summary=summary)
    return coarse


def _counts(rollups: Rollups) -> dict[Any, Any]:
    """Sums of seconds are sums of floats, in another order."""
    return {
        key: (rollup.requests, rollup.output_tokens, round(rollup.slot, 6), rollup.totals.encode())
        for key, rollup in rollups.items()
    }
