"""A store without a disk: the real actor over a dictionary, which can be made to fail or to be slow."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson
import trio

from actors.storage.batches import Batch
from actors.storage.journal import Document, Journal, Mark
from actors.storage.writer import Store


class FakeDisk:
    """What `Store` writes to. `trouble` is raised by everything; `slow` seconds pass before anything is done."""

    def __init__(self) -> None:
        self.documents: dict[Mark, Document] = {}
        self.audit: dict[int, Document] = {}
        self.batches: list[Batch] = []
        self.tried = 0
        self.trouble: Exception | None = None
        self.slow = 0.0
        self.closed = False

    def write(self, batch: Batch) -> None:
        self.tried += 1
        self._check()
        self.batches.append(batch)
        for mark, text in batch.documents.items():
            if text is None:
                self.documents.pop(mark, None)
            else:
                self.documents[mark] = orjson.loads(text)
        self.audit |= {number: orjson.loads(text) for number, _, text in batch.lines}

    def begin_anew(self) -> None:
        self._check()
        self.documents.clear()

    def lines(self, limit: int, before: int) -> list[Document]:
        self._check()
        return [self.audit[number] for number in sorted(self.audit, reverse=True) if number < before][:limit]

    def close(self) -> None:
        self.closed = True

    async def run(self, call: Callable[[], Any]) -> Any:
        """Instead of a worker thread: on the virtual clock."""
        await trio.sleep(self.slow)
        return call()

    def _check(self) -> None:
        if self.trouble is not None:
            raise self.trouble

    @property
    def stored(self) -> dict[str, dict[str, Document]]:
        """What the next process finds."""
        found: dict[str, dict[str, Document]] = {}
        for (kind, key), document in self.documents.items():
            found.setdefault(kind, {})[key] = document
        return found


def journal_on(disk: FakeDisk) -> tuple[Journal, Store]:
    """A journal over what the disk holds, and the actor that writes it there once somebody runs it."""
    journal = Journal(disk.stored, next_line=max(disk.audit, default=0) + 1)
    journal.standing.state = "ok"
    store = Store(disk, journal, list(disk.documents), disk.run, wall=time.time)
    journal.attach(store)
    return journal, store
