"""Processes that keep a history until they are killed: `python -m tests.actors.storage.history.history_victim PATH N`.

Each is forked from one that has everything loaded, notes requests as fast as they are written, and says how many are on
disk. It is killed at a random moment, and then the file is looked at; a line says what was promised, and what found.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import orjson
import trio

from actors.kit.clock import Clock
from actors.storage.database_file import StoreFile
from actors.storage.history.database import HistoryDatabase
from actors.storage.history.recorder import HistoryRecorder
from fleet.config import Config
from tests.actors.storage.history.kept import found_in
from tests.actors.storage.history.test_finished_requests import record

START = 1_700_000_000.0
STEP = 7.0
"""Seconds between two requests, so that minutes and hours go by."""


async def keep(path: Path, number: int, promised: int) -> None:
    """Write requests from this number on, and say through the pipe up to which they are on disk."""
    clock = Clock(now=lambda: 0.0, wall=lambda: START)
    history = HistoryRecorder(HistoryDatabase(StoreFile(path, clock.wall)), clock, Config(), str(path))
    dice = random.Random(number)
    while True:
        some = range(number, number + dice.randint(1, 12))
        history.note([record(request_id=str(each), began=each * STEP, server="ab"[each % 2]) for each in some])
        number = some.stop
        await history.catch_up()
        if not history.counts.waiting:
            os.write(promised, f"{number}\n".encode())


def killed(path: Path, number: int, after: float) -> int:
    """How many requests the history had by the word of a process that was killed `after` seconds from its start."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        trio.run(keep, path, number, writing)
    os.close(writing)
    time.sleep(after)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with os.fdopen(reading, "rb") as pipe:
        said = [int(line) for line in pipe if line.endswith(b"\n")]
    return max(said, default=number)


def main(path: Path, rounds: int) -> None:
    dice = random.Random(4)
    number = 0
    for _ in range(rounds):
        promised = killed(path, number, dice.uniform(0.0, 0.1))
        found = found_in(path)
        sys.stdout.buffer.write(orjson.dumps({"promised": promised, **found}) + b"\n")
        sys.stdout.flush()
        number = int(found["rows"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
