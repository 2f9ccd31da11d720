"""The fleet's figures as a process keeps them: fed by the recorder, off the data path; totals go to the journal.

Windows are gone with the process. Totals survive: a crash loses what was not written yet, about a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import orjson
import trio

from actors.state.messages import RequestRecord
from actors.storage.journal import Document, Journal
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.observability.statistics.aggregates import Sums
from fleet.observability.statistics.request_batch import RequestBatch
from fleet.observability.statistics.totals import Tally, Total

KIND: Final = "total"
FLEET: Final = "fleet"
_PAUSE: Final = 1.0
"""Seconds between two marks on the same total."""


class Totals:
    """The cell and the loop of the tally. `now` is Trio's clock, `wall` the time of day; seconds."""

    def __init__(self, now: Callable[[], float], wall: Callable[[], float], journal: Journal) -> None:
        self._now = now
        self._wall = wall
        self._journal = journal
        self._changed: dict[str, None] = {}
        self._resting = trio.lowlevel.ParkingLot()
        self.book = Tally(now(), wall())
        self._restore()

    def note(self, records: RequestBatch[RequestRecord]) -> None:
        """Requests have ended; called by the recorder, batch by batch."""
        seen, gone = self.book.note(records, self._now(), self._wall())
        self._mark(FLEET)
        for pair in seen | gone:
            self._mark(key_of(pair))

    def last_used(self, pair: Pair) -> float | None:
        """When a request for this pair last ended, epoch seconds; None if that is not known. Survives restarts."""
        line = self.book.pairs.get(pair)
        return None if line is None else line.total.last_used

    def requests(self, model: ModelName, span: float) -> int:
        """How many requests for a (canonical) model ended in the last `span` seconds, fleet-wide, served or refused.

        At most a week, and never from before this process.
        """
        return self.book.requests(model, self._now(), span)

    def window(self, span: float, pair: Pair | None = None) -> tuple[float, Sums]:
        """The last `span` seconds of a pair, or of the fleet: when they begin on Trio's clock, and the sums."""
        return self.book.window(self._now(), span, pair)

    def windows(self, spans: tuple[float, ...], pair: Pair | None = None) -> list[tuple[float, Sums]]:
        """The same for several spans, the shortest first."""
        return self.book.windows(self._now(), spans, pair)

    async def run(self) -> None:
        """Mark changed totals for the store, each at most once a second. Cancelled: what is left is marked."""
        try:
            while True:
                if not self._changed:
                    await self._resting.park()
                self.settle()
                await trio.sleep(_PAUSE)
        finally:
            self.settle()

    def settle(self) -> None:
        """Mark all that has changed."""
        for key in self._changed:
            self._journal.touch(KIND, key)
        self._changed.clear()

    def _mark(self, key: str) -> None:
        if self._journal.attached:
            self._changed[key] = None
            if self._resting:
                self._resting.unpark()

    def _restore(self) -> None:
        at = self._wall()
        self._journal.keep(KIND, self._document)
        read = self._journal.recall(KIND, lambda key, document: (_pair_of(key), Total.read(document, at)))
        for pair, total in sorted(read, key=lambda each: each[1].last_used or 0.0):
            self.book.restore(pair, total)

    def _document(self, key: str) -> Document | None:
        pair = _pair_of(key)
        line = self.book.fleet if pair is None else self.book.pairs.get(pair)
        return None if line is None else line.total.document()


def key_of(pair: Pair) -> str:
    """How the journal calls a pair: a JSON array, since names contain anything."""
    return orjson.dumps(list(pair)).decode()


def _pair_of(key: str) -> Pair | None:
    """None: the fleet. Raises ValueError for anything but a key of ours."""
    if key == FLEET:
        return None
    server, model = orjson.loads(key)
    if not isinstance(server, str) or not isinstance(model, str):
        raise ValueError("not a pair")
    return Pair(ServerId(server), ModelName(model))
