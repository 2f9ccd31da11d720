"""Real processes and a real disk: killed at any moment, a store opens again and has all that it promised."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from actors.storage.database import Database
from actors.storage.database_file import StoreFile
from tests.actors.storage.store_victim import THINGS
from tests.kit.places import ROOT

KILLS = 15


def victim(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.actors.storage.store_victim", str(path)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def killed(path: Path, after: float, *, opened: bool) -> list[str]:
    """What a process said that was killed `after` seconds, counted from its start or from when it had opened."""
    with victim(path) as process:
        assert process.stdout is not None
        said = [process.stdout.readline()] if opened else []
        time.sleep(after)
        process.kill()
        said += process.stdout.readlines()
    return [line.strip() for line in said if line.endswith("\n")]


@pytest.mark.slow
def test_a_process_killed_at_any_moment_leaves_a_store_that_opens(tmp_path: Path) -> None:
    path = tmp_path / "data" / "fleet.db"
    dice = random.Random(4)
    promised = 0
    rounds = 0
    for number in range(KILLS):
        early = number % 5 == 4  # some while it still starts, opens, makes its tables
        said = killed(path, dice.uniform(0.05, 0.6) if early else dice.uniform(0.0, 0.3), opened=not early)
        numbers = [int(line) for line in said if line != "open"]
        rounds += len(numbers)
        promised = max([promised, *numbers])
        _check(path, promised)
    assert rounds > KILLS, "the processes had time to write something"


def _check(path: Path, promised: int) -> None:
    if path.exists():
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    database = Database(StoreFile(path, time.time), 100)
    contents = database.open()
    try:
        assert contents.moved_aside == ""
        found = {key: document["n"] for key, document in contents.documents.get("thing", {}).items()}
        for number in range(max(1, promised - THINGS + 1), promised + 1):
            assert found[str(number % THINGS)] >= number
        assert contents.next_line > promised
        lines = database.lines(100, contents.next_line)
        written = [line["n"] for line in lines]
        assert written == list(range(written[0], written[0] - len(written), -1)) if written else not promised
        assert not promised or written[0] >= promised
    finally:
        database.close()


def test_the_second_process_runs_without_a_store(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    with victim(path) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "open\n"
            with victim(path) as second:
                said, _ = second.communicate(timeout=120)
            assert said == f"no store: {path} is in use by another process\n"
            assert int(first.stdout.readline()) > 0
        finally:
            first.kill()
    assert killed(path, 0.0, opened=True)[0] == "open"
