"""The last log records, kept in memory for the admin API: every record small, and not too many of them.

Tracebacks are left out, and so is the text of an exception: nobody knows what it quotes. They are in the log itself.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Final

MOST: Final = 2_000
"""Records kept."""
MESSAGE_BYTES: Final = 2_048
FIELDS: Final = 20
FIELD_BYTES: Final = 256
_NAME_BYTES: Final = 64
_LARGEST: Final = 2**53
"""Larger numbers are not the same number for every reader of JSON."""

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

Value = str | int | float | bool | None

_scrubbers: list[Callable[[str], str]] = []
"""Of all fleets that run in this process: it has one log, in which the secrets of none of them may stand."""


@contextmanager
def scrubbing(how: Callable[[str], str]) -> Iterator[None]:
    """While this is open nothing is written or kept before `how` has seen it; any thread may call it."""
    _scrubbers.append(how)
    try:
        yield
    finally:
        _scrubbers.remove(how)


def scrubbed(text: str) -> str:
    """A text as it may stand in a log: without the secrets that are known."""
    for scrub in tuple(_scrubbers):  # whoever comes or goes meanwhile, no other is passed over
        text = scrub(text)
    return text


@dataclass(frozen=True, slots=True)
class BufferedRecord:
    """One record. `at` is seconds since 1970, `level` a number of `logging`."""

    at: float
    level: int
    logger: str
    message: str
    meta: dict[str, Value]
    request_id: str

    @property
    def word(self) -> str:
        """The level as the API writes it."""
        return logging.getLevelName(self.level).lower()


class LogRing(logging.Handler):
    """A bounded ring of structured records; any thread may log."""

    def __init__(self, most: int = MOST) -> None:
        super().__init__()
        self._kept: deque[BufferedRecord] = deque(maxlen=most)
        self._dropped = 0

    @classmethod
    def installed(cls) -> LogRing:
        """The ring that hears everything in this process; one that hears nothing, if logging was not configured."""
        return next((each for each in logging.getLogger().handlers if isinstance(each, cls)), None) or cls()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record, in the place of the oldest if there is no room. (`handle` holds the lock meanwhile.)"""
        try:
            kept = _kept(record)
        except Exception:
            self.handleError(record)
            return
        self._dropped += len(self._kept) == self._kept.maxlen
        self._kept.append(kept)

    def snapshot(self) -> tuple[list[BufferedRecord], int]:
        """All records, oldest first, and how many older ones had to go since the ring was last cleared."""
        self.acquire()
        try:
            return list(self._kept), self._dropped
        finally:
            self.release()

    def clear(self) -> int:
        """Forget everything; how many records that were."""
        self.acquire()
        try:
            gone = len(self._kept)
            self._kept.clear()
            self._dropped = 0
            return gone
        finally:
            self.release()


def fields(record: logging.LogRecord) -> dict[str, object]:
    """What a line of code gave as `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _kept(record: logging.LogRecord) -> BufferedRecord:
    extra = fields(record)
    request_id = clipped(scrubbed(str(extra.pop("request_id", ""))), FIELD_BYTES)
    meta = {clipped(name, _NAME_BYTES): _value(value) for name, value in islice(extra.items(), FIELDS)}
    meta |= islice(_exception(record), FIELDS - len(meta))
    message = clipped(scrubbed(record.getMessage()), MESSAGE_BYTES)
    return BufferedRecord(record.created, record.levelno, clipped(record.name, FIELD_BYTES), message, meta, request_id)


def _exception(record: logging.LogRecord) -> Iterator[tuple[str, Value]]:
    """What kind of exception, and where it was raised."""
    if not record.exc_info or record.exc_info[0] is None:
        return
    kind, _, trace = record.exc_info
    yield "exception", clipped(kind.__name__, FIELD_BYTES)
    places = traceback.extract_tb(trace, limit=-1)
    if places:
        place = places[0]
        yield "raisedAt", clipped(f"{place.filename.rpartition('/')[2]}:{place.lineno} {place.name}", FIELD_BYTES)


def _value(value: object) -> Value:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) <= _LARGEST:
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    return clipped(scrubbed(str(value)), FIELD_BYTES)


def clipped(text: str, most: int) -> str:
    """As much of a text as fits into so many bytes, and nothing that cannot be encoded."""
    if len(text) <= most and text.isascii():
        return text
    return text[:most].encode("utf-8", "backslashreplace")[:most].decode("utf-8", "ignore")
