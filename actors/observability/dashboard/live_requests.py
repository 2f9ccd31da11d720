"""The figures of requests that ended lately, kept only while somebody watches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.observability.dashboard.live_figures import LiveFigures

if TYPE_CHECKING:
    from actors.state.messages import RequestRecord
    from actors.state.request_log import RequestLog
    from fleet.observability.statistics.request_batch import RequestBatch


class LiveRequests:
    """Told of finished requests, batch by batch; forgets them at once while it rests."""

    def __init__(self) -> None:
        self._figures: LiveFigures | None = None

    def note(self, finished: RequestBatch[RequestRecord]) -> None:
        """Requests have ended."""
        if self._figures is not None:
            self._figures.note(finished)

    def is_resting(self) -> bool:
        """Whether nothing is kept."""
        return self._figures is None

    def begun(self, request_log: RequestLog, started: float) -> LiveFigures:
        """The figures, begun with the requests that are still remembered; `started` is when the fleet was built."""
        if self._figures is None:
            recent = list(request_log.remembered)  # we are told of those that come after, from this turn on
            full = len(recent) == request_log.remembered.maxlen
            self._figures = LiveFigures(recent[0].began + recent[0].total_seconds if full else started)
            self._figures.note(recent)
        return self._figures

    def rest(self) -> None:
        """Nobody watches."""
        self._figures = None
