"""Reading the history: on a connection of its own that cannot write, within a time limit.

Blocking: for one worker thread at a time. Whoever writes is never waited for, and never waits.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Connection, Engine, StaticPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from actors.kit.clock import stopwatch
from actors.storage.database import reason
from actors.storage.history import statements
from actors.storage.history.schema import KINDS
from actors.storage.history.statements import HOUR, Numbers
from fleet.history.exponential_sketch import Damaged, ExponentialSketch
from fleet.history.questions import RowsPage, RowsQuestion, SumsGroup, SumsQuestion
from fleet.history.request_row import AttemptRow, RequestRow, first_number, outcome_class
from fleet.history.rollups import TIERS, Rollup
from fleet.history.time_ranges import TierPart, cover

WITHIN: Final = 2.0
"""Seconds that one question may take."""
_FAILED: Final = 400
_LOOK: Final = 2_000
"""Steps of SQLite's machine between two looks at the clock: some 50 microseconds."""


class UnreadableHistory(Exception):
    """The history cannot be read now, or not in time; the message says why."""


class HistoryReader:
    """A history as it is on disk. Opens the file when it is first asked, and anew when another has taken its place."""

    def __init__(self, path: Path, within: float = WITHIN) -> None:
        self._path = path
        self._within = within
        self._engine: Engine | None = None
        self._identity: tuple[int, int] | None = None
        self._names: dict[int, tuple[str, str]] = {}
        self._until = 0.0

    @property
    def engine(self) -> Engine | None:
        """What it reads with; None before the first question."""
        return self._engine

    def sums(self, wanted: SumsQuestion) -> list[SumsGroup]:
        """The sums that are asked for, by bucket and names; none while there is no file. Raises UnreadableHistory."""
        if not self._path.exists():
            return []
        with self._reading() as connection:
            numbers = self._numbers(wanted.names)
            if numbers is None:
                return []
            found: dict[tuple[int, tuple[int, ...]], Rollup] = {}
            width = len(wanted.by)
            for part in cover(wanted.span, self._marks(connection), wanted.step or TIERS[-1]):
                for row in connection.execute(statements.sums(part, wanted, numbers)):
                    bucket, names, sums = statements.group_of(row, width)
                    found.setdefault((bucket, names), Rollup()).merge(sums)
                if wanted.sketches:
                    self._merge(connection, part, wanted, numbers, found)
            groups = [SumsGroup(bucket, self._named(names), sums) for (bucket, names), sums in found.items()]
        return sorted(groups, key=lambda group: group[:2])

    def rows(self, wanted: RowsQuestion) -> RowsPage:
        """A page of requests, with their attempts; empty as long as there is no file. Raises UnreadableHistory."""
        if not self._path.exists():
            return RowsPage([], False)
        with self._reading() as connection:
            numbers = self._numbers(wanted.names)
            if numbers is None:
                return RowsPage([], False)
            found: list[Any] = []
            for first, last in self._stretches(connection, wanted, numbers):
                left = wanted.limit + 1 - len(found)
                if left <= 0:
                    break
                found += connection.execute(statements.requests_between(first, last, wanted, numbers, left)).mappings()
            page = found[: wanted.limit]
            attempts = self._attempts(connection, [row["id"] for row in page if row["tries"] > 1])
            rows = [(row["id"], self._row(row, attempts.get(row["id"], ()))) for row in page]
        return RowsPage(rows, len(found) > wanted.limit)

    def close(self) -> None:
        """Let go of the file."""
        if self._engine is not None:
            self._engine.dispose()
        self._engine = self._identity = None
        self._names.clear()

    # ---- the connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        self._until = stopwatch() + self._within
        try:
            with self._current().connect() as connection:
                connection.exec_driver_sql("BEGIN").close()  # whatever is written meanwhile, it is of one moment
                self._learn(connection)
                yield connection
        except (SQLAlchemyError, OSError, Damaged) as error:
            late = stopwatch() > self._until
            self.close()
            raise UnreadableHistory("it takes too long: ask for less" if late else reason(error)) from error

    def _current(self) -> Engine:
        found = os.stat(self._path)
        if self._engine is None or self._identity != (found.st_dev, found.st_ino):
            self.close()
            self._engine = create_engine("sqlite://", creator=self._connect, poolclass=StaticPool)
            self._identity = found.st_dev, found.st_ino
        return self._engine

    def _connect(self) -> sqlite3.Connection:
        where = f"file:{quote(os.path.abspath(self._path))}?mode=ro"
        connection = sqlite3.connect(where, uri=True, timeout=self._within, check_same_thread=False)
        connection.set_progress_handler(self._late, _LOOK)
        connection.isolation_level = None
        connection.execute("PRAGMA query_only=1").close()
        return connection

    def _late(self) -> bool:
        return stopwatch() > self._until

    def _hurry(self) -> None:
        if self._late():
            raise Damaged("it takes too long")

    # ---- names

    def _learn(self, connection: Connection) -> None:
        """Names that have come since: they are never changed, nor taken away."""
        for number, kind, name in connection.execute(statements.names_after(max(self._names, default=0))):
            if 1 <= kind <= len(KINDS):
                self._names[number] = KINDS[kind - 1], name

    def _numbers(self, names: Mapping[str, Sequence[str]]) -> Numbers | None:
        """The numbers of names; None if there can be nothing, because none of a kind is known."""
        if not names:
            return {}
        known = {each: number for number, each in self._names.items()}
        found = {
            kind: [known[kind, name] for name in wanted if (kind, name) in known] for kind, wanted in names.items()
        }
        return found if all(found.values()) else None

    def _unanswered(self) -> list[int]:
        return [
            number
            for number, (kind, name) in self._names.items()
            if kind == "outcome" and outcome_class(name) != "answered"
        ]

    def _named(self, numbers: Sequence[int]) -> tuple[str, ...]:
        return tuple([self._name(number) for number in numbers])

    def _name(self, number: int) -> str:
        return self._names.get(number, ("", ""))[1]

    # ---- sums

    def _marks(self, connection: Connection) -> dict[int, int]:
        return {int(name.split()[1]): number for name, number in connection.execute(statements.marks())}

    def _merge(
        self,
        connection: Connection,
        part: TierPart,
        wanted: SumsQuestion,
        numbers: Numbers,
        found: dict[tuple[int, tuple[int, ...]], Rollup],
    ) -> None:
        width = len(wanted.by)
        for row in connection.execute(statements.sketches(part, wanted, numbers)):
            self._hurry()
            sums = found.setdefault((row[0], tuple(row[1 : 1 + width])), Rollup())
            for name, data in zip(wanted.sketches, row[1 + width :], strict=True):
                sketch: ExponentialSketch = getattr(sums, name)
                sketch.merge_encoded(data)

    # ---- requests

    def _stretches(self, connection: Connection, wanted: RowsQuestion, numbers: Numbers) -> list[tuple[int, int]]:
        """Ranges of numbers in which to look, in the order of the page: hours without such requests are left out."""
        first, last = first_number(wanted.since), first_number(wanted.until)
        if wanted.beyond is not None:
            first, last = (
                (max(first, wanted.beyond + 1), last) if wanted.oldest_first else (first, min(last, wanted.beyond))
            )
        stretches = [(first, last)]
        if wanted.status is not None and wanted.status >= _FAILED and "outcome" not in numbers:
            numbers = {**numbers, "outcome": self._unanswered()}
        if not wanted.identity and (numbers or wanted.longer is not None or wanted.cold or wanted.retried):
            stretches = [
                (max(first, low), min(last, high))
                for low, high in self._hours(connection, wanted, numbers, first, last)
            ]
        ordered = stretches if wanted.oldest_first else stretches[::-1]
        return [(low, high) for low, high in ordered if low < high]

    def _hours(
        self, connection: Connection, wanted: RowsQuestion, numbers: Numbers, first: int, last: int
    ) -> list[tuple[int, int]]:
        """Hours with such requests, as ranges of numbers, those side by side as one; and what is no whole hour yet."""
        rolled = self._marks(connection).get(HOUR, 0) // HOUR * HOUR
        since, until = int(wanted.since) // HOUR * HOUR, min(rolled, -(-int(wanted.until) // HOUR) * HOUR)
        found: list[list[int]] = []
        if since < until:
            part = TierPart(HOUR, since, until)
            for (hour,) in connection.execute(statements.hours_with(part, wanted, numbers)):
                if found and found[-1][1] == hour:
                    found[-1][1] = hour + HOUR
                else:
                    found.append([hour, hour + HOUR])
        found.append([max(rolled, since), int(wanted.until) + 1])
        return [(first_number(low), first_number(high)) for low, high in found]

    def _attempts(self, connection: Connection, numbers: Sequence[int]) -> dict[int, list[AttemptRow]]:
        found: dict[int, list[AttemptRow]] = {}
        if numbers:
            for row in connection.execute(statements.attempts_of(numbers)).mappings():
                server, outcome = self._name(row["server"]), self._name(row["outcome"])
                attempt = AttemptRow(server, outcome, row["after"], row["seconds"], row["first_byte"])
                found.setdefault(row["id"], []).append(attempt)
        return found

    def _row(self, row: Mapping[str, Any], attempts: Sequence[AttemptRow]) -> RequestRow:
        figures: dict[str, Any] = {name: value for name, value in row.items() if name != "id"}
        figures |= {kind: self._name(row[kind]) for kind in KINDS}
        return RequestRow(**{**figures, "stream": bool(row["stream"])}, attempts=attempts)
