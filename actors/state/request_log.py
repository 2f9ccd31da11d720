"""History off the hot path: one log line and one ring entry per request. The data path never waits for it.

The backlog is bounded; what does not fit is counted as dropped. Records are digested a batch at a time, so that the
actor is not woken for every request; whoever needs the latest waits for `catch_up`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Final

import trio

from actors.kit.inbox import Inbox
from actors.state.messages import OURSELVES, RequestRecord
from fleet.observability.statistics.request_batch import RequestBatch

log = logging.getLogger("fleet.request")

_LOGGED = tuple(each.name for each in fields(RequestRecord) if each.name not in ("tries", "began", "trace"))
_BACKLOG = 4096
_KEEP = 1000
LATELY: Final = 600.0
"""Seconds for which dropped records are worth a word."""
_AT_ONCE = 128
"""Records digested before others have their turn."""
_REST = 0.05
"""Seconds between two batches."""


Listener = Callable[[RequestBatch[RequestRecord]], None]
"""Who is told of finished requests: a batch of them, which is grouped once for all."""


class RequestLog:
    """The cell and the loop of the recorder actor. `note` is called from the data path and cannot fail."""

    def __init__(self, listeners: Iterable[Listener] = ()) -> None:
        self._backlog: Inbox[RequestRecord] = Inbox(_BACKLOG)
        self._recent: deque[RequestRecord] = deque(maxlen=_KEEP)
        self._listeners = tuple(listeners)
        """Told of clients' records, batch by batch, off the data path. Who fails has missed a batch, alone."""
        self.failures = 0
        """Batches that a listener has missed."""
        self._blamed: set[Listener] = set()
        self._turn = trio.Lock()
        self._digested = 0
        self.seen = 0
        self.dropped = 0
        self.dropped_at: float | None = None
        """When one was dropped last, on Trio's clock."""
        self.dropped_since: float | None = None
        """When that began: with the first one after `LATELY` seconds without."""

    @property
    def remembered(self) -> deque[RequestRecord]:
        """The last requests of clients, oldest first, as far as they are digested; the others are still to be told."""
        return self._recent

    def append(self, record: RequestRecord) -> None:
        """Hand over one record; dropped and counted when the recorder is behind."""
        if self._backlog.offer(record) is not None:
            self.dropped += 1
            now = trio.current_time()
            if self.dropped_at is None or now - self.dropped_at >= LATELY:
                self.dropped_since = now
            self.dropped_at = now

    async def run(self) -> None:
        """Digest records until cancelled; a crash loses the batch in hand at the most."""
        while True:
            await self._backlog.wait()
            await self.catch_up()  # what comes meanwhile waits for the next round
            await trio.sleep(_REST)

    async def catch_up(self) -> None:
        """Returns when all that has been noted by now is digested: one batch in a turn, however many want it.

        A checkpoint in any case. Cancelled: what is left is digested all the same, by the actor.
        """
        until = self._digested + len(self._backlog)
        while self._digested < until:
            # The lock is what makes it one batch in a turn: it is held until others have had theirs, and who waits for
            # it comes in the next. It is fair, so nobody digests for all.
            async with self._turn:
                self._digest_some(_AT_ONCE)
                await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()

    def digest(self, batch: Sequence[RequestRecord]) -> None:
        self.seen += len(batch)
        clients = RequestBatch([record for record in batch if record.client != OURSELVES])  # ours are in no figures
        if clients:
            self._recent.extend(clients)
            for listener in self._listeners:
                try:
                    listener(clients)
                except Exception:
                    self._blame(listener)
        if log.isEnabledFor(logging.INFO):
            for record in batch:
                log.info("%s %s", record.endpoint, record.outcome, extra=_rounded(record))

    def flush(self) -> None:
        """Digest what there is, in this turn: for the end, when there are no others to have theirs."""
        self._digest_some(len(self._backlog))

    def _digest_some(self, most: int) -> None:
        if batch := self._backlog.take(most):
            self._digested += len(batch)
            self.digest(batch)

    def _blame(self, listener: Listener) -> None:
        """Count it each time, say it once: what fails for one batch is likely to fail for thousands."""
        self.failures += 1
        if listener not in self._blamed:
            self._blamed.add(listener)
            name = getattr(getattr(listener, "func", listener), "__qualname__", type(listener).__name__)
            log.exception("a batch of finished requests is lost to %s; later losses are only counted", name)


def _rounded(record: RequestRecord) -> dict[str, object]:
    shown = {name: getattr(record, name) for name in _LOGGED}
    if record.trace is not None:
        shown["trace_id"] = record.trace.name
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in shown.items()
        if value is not None and value != ""
    }
