"""What the estimates have learned outlives the process: marked for the store every minute, and at the end."""

from __future__ import annotations

from typing import Final

import trio

from actors.kit.clock import Clock
from actors.state.servers import Servers
from actors.storage.journal import Document, Journal
from fleet.common.ids import ModelName, ServerId
from fleet.scheduling.choice.expected_completion import ExpectedCompletion
from fleet.scheduling.estimates.forecast.persistence import ESTIMATORS, LearnedRows, Wanted

KIND: Final = "estimates"
VERSION: Final = 1
EVERY: Final = 60.0
"""Seconds between two writings, if anything was learned."""
_APART: Final = 0.2
"""Seconds between two estimators, so that the event loop never works them all out in one turn."""
LONGEST_AWAY: Final = 30 * 86400.0


class EstimateMemory:
    """The journal's source for what was learned: a document for each estimator, `version`, `at` (epoch) and `rows`.

    A policy that does not plan learns nothing, and then nothing is written. A crash loses the last minute.
    """

    def __init__(self, clock: Clock, expectations: ExpectedCompletion, servers: Servers, journal: Journal) -> None:
        self._clock = clock
        self._estimates = expectations.estimates
        self._servers = servers
        self._journal = journal
        self._marked = 0
        self._rows = LearnedRows(expectations.estimates, expectations.evictions)
        journal.keep(KIND, self._document)

    def restore(self) -> None:
        """Go on from what the last process knew. Called once, when the servers are known, before anything is learned.

        What cannot be read is told in one line; what belongs to a server that is in no list any more is left out.
        """
        self._journal.recall(KIND, self._resume)

    async def run(self) -> None:
        """Mark what was learned for the store until cancelled; then once more."""
        try:
            while True:
                await trio.sleep(EVERY)
                lessons = self._estimates.lessons
                for name in ESTIMATORS if lessons != self._marked else ():
                    self._journal.touch(KIND, name)
                    await trio.sleep(_APART)
                self._marked = lessons
        finally:
            for name in ESTIMATORS if self._estimates.lessons != self._marked else ():
                self._journal.touch(KIND, name)

    def _document(self, key: str) -> Document:
        now = self._clock.now()
        return {"version": VERSION, "at": self._clock.epoch(now), "rows": self._rows.snapshot(key, now, self._listed())}

    def _resume(self, key: str, document: Document) -> None:
        at, rows = document["at"], document["rows"]
        if document["version"] != VERSION or not isinstance(at, int | float) or not isinstance(rows, list):
            raise ValueError("not of this version")
        now = self._clock.now()
        then = min(max(self._clock.moment(at), now - LONGEST_AWAY), now)
        self._rows.restore(key, rows, then, self._listed())

    def _listed(self) -> Wanted:
        """Whether there is such a server, and as far as it has shown its inventory, such a model on it."""
        states = {server: cell.state for server, cell in self._servers.items()}
        models = set[ModelName]().union(*(state.models for state in states.values()))
        complete = all(state.seen for state in states.values())

        def wanted(server: ServerId | None, model: ModelName | None) -> bool:
            if server is None:
                return model is None or model in models or not complete
            state = states.get(server)
            return state is not None and (model is None or model in state.models or not state.seen)

        return wanted
