"""A writer over a database of its own, in virtual time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from actors.storage.journal import Document, Journal
from actors.storage.writer import Store
from tests.kit.fleets.store import FakeDisk, journal_on


@dataclass
class Bench:
    """Things that change, the journal that is told, and the disk."""

    disk: FakeDisk = field(default_factory=FakeDisk)
    things: dict[str, Any] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    journal: Journal = field(init=False)
    store: Store = field(init=False)

    def __post_init__(self) -> None:
        self.journal, self.store = journal_on(self.disk)
        self.journal.keep("thing", self.document)

    def document(self, key: str) -> Document | None:
        self.asked[key] += 1
        return {"is": self.things[key]} if key in self.things else None

    def change(self, key: str, value: Any) -> None:
        self.things[key] = value
        self.journal.touch("thing", key)

    def forget(self, key: str) -> None:
        del self.things[key]
        self.journal.touch("thing", key)

    @property
    def on_disk(self) -> dict[str, Any]:
        return {key: document["is"] for (_, key), document in self.disk.documents.items()}
