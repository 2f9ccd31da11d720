"""How often one client may say something: a hundred packets at once, then twenty per second. Who says more waits."""

from __future__ import annotations

from typing import Final

BURST: Final = 100
PER_SECOND: Final = 20.0


class PingPace:
    """Moments are the caller's, in seconds."""

    __slots__ = ("_at", "_left")

    def __init__(self, now: float) -> None:
        self._left = float(BURST)
        self._at = now

    def wait(self, now: float) -> float:
        """Count one thing said; the seconds until it may be heard."""
        self._left = min(BURST, self._left + (now - self._at) * PER_SECOND) - 1
        self._at = now
        return max(0.0, -self._left / PER_SECOND)
