"""Go's duration strings (`5m`, `1h30m`, `-1s`), in which Ollama's `keep_alive` is written."""

from __future__ import annotations

import re
from typing import Final

_UNITS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "\u00b5s": 1e-6,  # micro sign
    "\u03bcs": 1e-6,  # Greek mu
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)")
_LONGEST: Final = 64


def go_seconds(text: str) -> float | None:
    """Seconds of a Go duration; None if Go would refuse it (`"10"`: missing unit). `"0"` alone needs no unit."""
    if len(text) > _LONGEST:
        return None
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    total, position = 0.0, 0
    while part := _PART.match(rest, position):
        total += float(part[1]) * _UNITS[part[2]]
        position = part.end()
    return sign * total if rest and position == len(rest) else None
