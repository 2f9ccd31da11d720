"""A process that writes to a store until it is killed: `python -m tests.actors.storage.store_victim PATH`.

It prints a number once every change up to that number is on disk, by the word of `Journal.kept`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import trio

from actors.storage.journal import Document
from actors.storage.writer import open_journal

THINGS = 40


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main(path: Path) -> None:
    journal, store = await open_journal(path, 100, time.time)
    if store is None:
        say(f"no store: {journal.view().why}")
        return
    newest = max((document["n"] for document in journal.stored.get("thing", {}).values()), default=0)
    numbers: dict[str, int] = {}

    def document(key: str) -> Document:
        return {"n": numbers[key], "text": "x" * (numbers[key] % 3000)}

    journal.keep("thing", document)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        say("open")
        while True:
            for _ in range(7):
                newest += 1
                numbers[str(newest % THINGS)] = newest
                journal.touch("thing", str(newest % THINGS))
                journal.audit({"n": newest})
            if await journal.kept(5.0):
                say(str(newest))


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
