"""Times as servers write them, and as every client of Ollama can read them. Pure.

Go's decoder takes RFC 3339 with its zone and nothing else, and refuses the whole list for one odd time; pydantic and
JavaScript take more. What is passed on therefore always suits the strictest of them.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

ZERO: Final = "0001-01-01T00:00:00Z"
"""Go's zero time: what Ollama itself sends for a time that it does not know."""
_LONGEST: Final = 64
_STRICT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
# The same with what is forgotten or written otherwise: seconds, zone, small letters, a space, more digits.
_LOOSE = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(:\d\d)?(?:[.,](\d+))?)? ?([Zz]|UTC|[+-]\d\d(?::?\d\d)?)?(?: [A-Z]{3,4})?",
    re.ASCII,
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST: Final = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds()
_FIRST_NUMBER: Final = 100_000_000
"""A number below this many seconds (March 1973) is no time, but something else."""
_IN_MILLISECONDS: Final = 100_000_000_000
"""A number above this many seconds (the year 5138) counts milliseconds."""


def seconds(value: object) -> float:
    """Seconds since 1970; what is no time is the beginning of time."""
    moment = instant(value)
    return _EARLIEST if moment is None else (moment - _EPOCH).total_seconds()


def readable(value: object) -> str:
    """The same time as every client can read it: as it came if they all can, else anew, `ZERO` for what is none."""
    moment = instant(value)
    if moment is None:
        return ZERO
    if isinstance(value, str) and _STRICT.fullmatch(value):
        return value
    return moment.isoformat().replace("+00:00", "Z")


def instant(value: object) -> datetime | None:
    """When that is: text near RFC 3339 (UTC if it names no zone), or seconds or milliseconds since 1970; else None."""
    try:
        if isinstance(value, str):
            return _written(value) if len(value) <= _LONGEST else None
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= _FIRST_NUMBER:
            return _EPOCH + timedelta(seconds=value / 1000 if value > _IN_MILLISECONDS else value)
    except (ValueError, OverflowError):
        pass
    return None


@lru_cache(maxsize=16_384)  # a fleet's lists are merged again and again, and hardly one of their times has changed
def _written(text: str) -> datetime | None:
    """Raises ValueError for a day that there is not, OverflowError for one outside the years 1 to 9999 in UTC."""
    match = _LOOSE.fullmatch(text)
    if match is None:
        return None
    day, clock, second, fraction, zone = match.groups()
    if zone is None or zone in ("Z", "z", "UTC"):
        zone = "+00:00"
    elif ":" not in zone:
        zone = f"{zone[:3]}:{zone[3:] or '00'}"
    moment = datetime.fromisoformat(f"{day}T{clock or '00:00'}{second or ':00'}{zone}")
    moment += timedelta(microseconds=int((fraction or "0")[:6].ljust(6, "0")))
    moment.astimezone(UTC)
    return moment
