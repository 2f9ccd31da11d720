"""What goes to disk in one transaction: documents asked of their sources at this moment, and audit lines, as text."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import orjson

from actors.storage.journal import Document, Journal, Mark

log = logging.getLogger("fleet.store")

MOST_DOCUMENTS: Final = 100
MOST_LINES: Final = 200
MOST_BYTES: Final = 1 << 20
"""Of documents in one batch, but for the last one."""
LARGEST: Final = 4 << 20
"""Bytes of one document; a larger one is a mistake of ours and is not kept."""
_LONGEST_KEY: Final = 4096
_LONGEST_LINE: Final = 64 << 10
_LONGEST_VALUE: Final = 2 << 10

Line = tuple[int, float, str]
"""Number, seconds since 1970, JSON."""


@dataclass(slots=True)
class Batch:
    """Documents as JSON by kind and key (None: to be deleted), and lines. `at`: when they were asked for."""

    at: float = 0.0
    documents: dict[Mark, str | None] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)


class Packer:
    """Makes batches of what a journal has marked. What cannot be written is told once per kind, and left out."""

    def __init__(self, journal: Journal, wall: Callable[[], float]) -> None:
        self._journal = journal
        self._wall = wall
        self._told: set[str] = set()

    def pack(self) -> Batch:
        """The next batch; it is in the journal's hand until that is settled or given back."""
        journal = self._journal
        batch = Batch(self._wall())
        size = 0
        while journal.touched and len(batch.documents) < MOST_DOCUMENTS and size < MOST_BYTES:
            mark, _ = journal.take_mark()
            try:
                batch.documents[mark] = text = self._ask(mark)
                size += len(text or "")
            except Exception as error:  # one bad source must not keep the others from disk
                journal.lose(mark)
                self._tell(mark[0], error)
        for line in journal.take_lines(MOST_LINES):
            self._add_line(batch, line)
        return batch

    def _ask(self, mark: Mark) -> str | None:
        kind, key = mark
        if len(key.encode()) > _LONGEST_KEY or "\0" in key:  # a lone surrogate has no encoding
            raise ValueError("the key is too long, or has a NUL in it")
        source = self._journal.sources.get(kind)
        if source is None:
            raise LookupError("nobody keeps this kind")
        document = source(key)
        return None if document is None else _text(document, LARGEST)

    def _add_line(self, batch: Batch, line: Document) -> None:
        try:
            text = _line(line)
        except Exception as error:
            self._journal.lose_line()
            self._tell("audit", error)
            return
        at = line.get("at")
        moment = float(at) if isinstance(at, int | float) and math.isfinite(at) else batch.at
        batch.lines.append((line["id"], moment, text))

    def _tell(self, kind: str, error: Exception) -> None:
        if kind not in self._told:
            self._told.add(kind)
            log.error("a document of kind '%s' cannot be kept: %s: %s", kind, type(error).__name__, error)


def _line(line: Document) -> str:
    """An audit line must not be lost for its size: a value that is too big, or no JSON, is left out of it."""
    try:
        return _text(line, _LONGEST_LINE)
    except (TypeError, ValueError):
        return _text({name: value if _fits(value) else None for name, value in line.items()}, LARGEST)


def _fits(value: object) -> bool:
    try:
        return len(orjson.dumps(value)) <= _LONGEST_VALUE
    except (TypeError, ValueError):
        return False


def _text(document: Document, most: int) -> str:
    packed = orjson.dumps(document)
    if len(packed) > most:
        raise ValueError(f"it has {len(packed)} bytes, more than {most}")
    return packed.decode()
