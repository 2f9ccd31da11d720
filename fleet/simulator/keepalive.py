"""`keep_alive` as Ollama reads it: a number of seconds or a Go duration, negative meaning for ever."""

from __future__ import annotations

import math
import re
from typing import Final

_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART: Final = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)")


class BadDuration(ValueError):
    """The text of Go's `time.ParseDuration` for the same input."""


def go_duration(text: str) -> float:
    """Seconds in a Go duration such as `1h30m` or `-1s`. Raises `BadDuration`."""
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    if not rest:
        raise BadDuration(f'time: invalid duration "{text}"')
    total, at = 0.0, 0
    while at < len(rest):
        part = _PART.match(rest, at)
        if part is None:
            raise BadDuration(f'time: invalid duration "{text}"')
        total += float(part[1]) * _unit(part[2], text)
        at = part.end()
    return sign * total


def _unit(unit: str, text: str) -> float:
    if not unit:
        raise BadDuration(f'time: missing unit in duration "{text}"')
    if unit not in _UNITS:
        raise BadDuration(f'time: unknown unit "{unit}" in duration "{text}"')
    return _UNITS[unit]


def keep_alive_seconds(value: object, default: float) -> float:
    """How long a model stays after its last request, in seconds; `math.inf` = for ever. Raises `BadDuration`."""
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BadDuration(f"invalid keep_alive: {value!r}")
    seconds = go_duration(value) if isinstance(value, str) else float(value)
    return math.inf if seconds < 0 else seconds
