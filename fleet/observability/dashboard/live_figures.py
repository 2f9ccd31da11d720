"""Figures of the last minute, per server and of the fleet, exact to the request: what is shown while somebody watches.

Every finished request is added when it ends and taken away a minute later. What it is wrong about: an answer that took
longer than the window counts whole in the moment of its end; when more requests end in a minute than are kept, the
window is shorter (rates are taken over what it really is). Percentiles are those of `statistics.quantile_sketch`; of
first tokens there are only each server's, from the grant of the attempt that answered: the fleet's are the monitor's.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from fleet.breakers.failure_classes import failed
from fleet.observability.statistics.quantile_sketch import bin_of, value_of
from fleet.observability.statistics.request_record import RequestAttempt

WINDOW: Final = 60.0
"""Seconds."""
MOST: Final = 30_000
"""Requests that are kept."""
_LEAST_SPAN: Final = 1.0


class ShownRequest(Protocol):
    """What a finished request says of itself. Seconds; `began` is on the caller's clock."""

    server: str
    outcome: str
    total_seconds: float
    output_tokens: int | None
    stream: bool
    began: float

    @property
    def tries(self) -> Sequence[RequestAttempt]: ...


class _Entry(NamedTuple):
    """One request. `ended` is on the caller's clock; `first` is the bin of its server's first-token time."""

    ended: float
    server: str
    failed: bool
    tokens: int
    microseconds: int
    first: int | None


class FigureSums:
    """Sums that can be taken back. Whole numbers, so that nothing drifts."""

    __slots__ = ("_bins", "count", "errors", "microseconds", "tokens")

    def __init__(self) -> None:
        self.count = self.errors = self.tokens = self.microseconds = 0
        self._bins: dict[int, int] = {}

    @property
    def error_rate(self) -> float | None:
        """0 to 1; None of nothing."""
        return self.errors / self.count if self.count else None

    @property
    def latency(self) -> float | None:
        """Seconds from arrival to end, on average; None of nothing."""
        return self.microseconds / self.count / 1e6 if self.count else None

    def first_byte(self, share: float) -> float | None:
        """Seconds from a server's grant to the first token that `share` of streams do not exceed; None of nothing."""
        rank = max(1, math.ceil(share * sum(self._bins.values()) - 1e-9))
        for place in sorted(self._bins):
            rank -= self._bins[place]
            if rank <= 0:
                return value_of(place) / 1000
        return None

    def move(self, entry: _Entry, sign: int) -> None:
        """Add a request (1) or take it away (-1)."""
        place = entry.first
        self.count += sign
        self.errors += sign * entry.failed
        self.tokens += sign * entry.tokens
        self.microseconds += sign * entry.microseconds
        if place is not None:
            left = self._bins.get(place, 0) + sign
            if left:
                self._bins[place] = left
            else:
                self._bins.pop(place, None)


class LiveFigures:
    """The window. `since`: nothing is known from before; all times are on the caller's clock, in seconds."""

    def __init__(self, since: float, most: int = MOST) -> None:
        self.fleet = FigureSums()
        self.servers: dict[str, FigureSums] = {}
        self._entries: deque[_Entry] = deque()
        self._since = since
        self._most = most

    def note(self, finished: Iterable[ShownRequest]) -> None:
        """Requests have ended."""
        for each in finished:
            entry = _entry(each)
            self._entries.append(entry)
            self._move(entry, 1)
            if len(self._entries) > self._most:
                self._forget()

    def settle(self, now: float) -> None:
        """Take away what has ended more than a minute ago."""
        while self._entries and self._entries[0].ended <= now - WINDOW:
            self._forget()

    def span(self, now: float) -> float:
        """The seconds that the sums are of; at least one."""
        return max(min(now - self._since, WINDOW), _LEAST_SPAN)

    def of(self, server: str) -> FigureSums:
        """What is known of one server."""
        return self.servers.get(server) or FigureSums()

    def _forget(self) -> None:
        entry = self._entries.popleft()
        self._since = max(self._since, entry.ended)
        self._move(entry, -1)

    def _move(self, entry: _Entry, sign: int) -> None:
        self.fleet.move(entry, sign)
        if entry.server:
            own = self.servers.get(entry.server)
            if own is None:
                own = self.servers[entry.server] = FigureSums()
            own.move(entry, sign)
            if not own.count:
                del self.servers[entry.server]


def _entry(each: ShownRequest) -> _Entry:
    last = each.tries[-1] if each.stream and each.tries else None
    first = None if last is None or last.first_byte is None else max(last.first_byte - last.started, 0.0)
    return _Entry(
        ended=each.began + each.total_seconds,
        server=each.server,
        failed=failed(each.outcome),
        tokens=each.output_tokens or 0,
        microseconds=round(each.total_seconds * 1e6),
        first=None if first is None else bin_of(first * 1000),
    )
