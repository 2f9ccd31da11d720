"""How a moment is written, by us: one formatter with a few named formats. UTC always, seconds since 1970 given.

(How servers write theirs, and how clients can read those: `fleet.protocol.timestamps`. Lengths of time for people:
`fleet.common.wording`.)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from typing import overload


@overload
def milliseconds(seconds: float) -> int: ...
@overload
def milliseconds(seconds: float | None) -> int | None: ...
def milliseconds(seconds: float | None) -> int | None:
    """Whole milliseconds, the nearest."""
    return None if seconds is None else round(seconds * 1000)


@overload
def iso(epoch: float) -> str: ...
@overload
def iso(epoch: float | None) -> str | None: ...
def iso(epoch: float | None) -> str | None:
    """ISO 8601 with milliseconds, rounded as `milliseconds` are: 2026-12-01T02:03:04.567Z."""
    return None if epoch is None else _written(round(epoch * 1000) / 1000, "milliseconds")


def iso_read(epoch: float) -> str:
    """The same with the milliseconds that are over, as one reads a clock: for the log, and for the live feed.

    It may be one millisecond less than `iso`, which agrees with the numbers that stand beside it in an answer.
    """
    return _written(epoch, "milliseconds")


def iso_seconds(epoch: float) -> str:
    """ISO 8601 in whole seconds that are over: 2026-12-01T02:03:04Z."""
    return _written(epoch, "seconds")


def compact(epoch: float) -> str:
    """For the name of a file: 20261201T020304Z."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y%m%dT%H%M%SZ")


def http_date(epoch: float) -> str:
    """As HTTP has it: Tue, 01 Dec 2026 02:03:04 GMT."""
    return formatdate(int(epoch), usegmt=True)


@dataclass(frozen=True, slots=True)
class ClockReading:
    """Both clocks, read once for one answer: what is said twice in it is then the same to the millisecond.

    `now` is on the clock that never runs back, `wall` the time of day at that moment; seconds. Moments below are on the
    former, and None stays None.
    """

    now: float
    wall: float

    @overload
    def epoch(self, moment: float) -> float: ...
    @overload
    def epoch(self, moment: float | None) -> float | None: ...
    def epoch(self, moment: float | None) -> float | None:
        """Seconds since 1970."""
        return None if moment is None else self.wall - (self.now - moment)

    @overload
    def epoch_ms(self, moment: float) -> int: ...
    @overload
    def epoch_ms(self, moment: float | None) -> int | None: ...
    def epoch_ms(self, moment: float | None) -> int | None:
        """Milliseconds since 1970."""
        return milliseconds(self.epoch(moment))

    def iso(self, moment: float) -> str:
        """As `iso` writes it."""
        return iso(self.epoch(moment))


def _written(epoch: float, to: str) -> str:
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec=to).replace("+00:00", "Z")
