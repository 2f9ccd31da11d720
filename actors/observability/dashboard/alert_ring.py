"""Alerts for those who watch: none is dropped in silence. Who falls too far behind is told to read them anew."""

from __future__ import annotations

from collections import deque
from typing import Final

from actors.observability.dashboard.subscriber import Update

EVENT: Final = "system_alert"
MOST: Final = 256
"""Alerts that are kept for slow viewers."""
RESYNC: Final = Update(EVENT, b'{"resync":true}')


class AlertRing:
    """The last alerts, numbered from 0 as they came. A place is the number of the alert that comes next."""

    def __init__(self) -> None:
        self._ring: deque[Update] = deque(maxlen=MOST)
        self.end = 0

    def add(self, alert: Update) -> None:
        """One more; the oldest makes room."""
        self._ring.append(alert)
        self.end += 1

    def after(self, place: int) -> tuple[int, Update | None]:
        """What comes at a place, and the place after it; a resync, and the end, when that is gone already."""
        if place >= self.end:
            return place, None
        oldest = self.end - len(self._ring)
        if place < oldest:
            return self.end, RESYNC
        return place + 1, self._ring[place - oldest]
