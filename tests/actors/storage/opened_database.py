"""Databases that a test opens, fills and looks into."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from actors.storage.batches import Batch
from actors.storage.database import Contents, Database
from actors.storage.database_file import StoreFile


class Opened:
    """Databases that are closed when the test ends."""

    def __init__(self) -> None:
        self.all: list[Database] = []
        self.contents = Contents()

    def __call__(self, path: Path, audit_lines: int = 100, **options: Any) -> Database:
        database = Database(StoreFile(path, time.time), audit_lines, **options)
        self.all.append(database)
        self.contents = database.open()
        return database


def batch(*lines: int, **documents: str | None) -> Batch:
    marks = {("thing", key): value for key, value in documents.items()}
    return Batch(1000.5, marks, [(number, 5.5, f'{{"number":{number}}}') for number in lines])


def fill(path: Path, opened: Opened, documents: int = 200) -> None:
    """A closed store with something in it."""
    database = opened(path)
    database.write(batch(1, 2, 3, **{f"k{number}": f'{{"n":{number}}}' for number in range(documents)}))
    database.close()


def raw(path: Path, *statements: str) -> list[Any]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return [connection.execute(statement).fetchall() for statement in statements]
