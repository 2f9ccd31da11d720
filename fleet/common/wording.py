"""How figures are written for people: the same in the verdict, alerts, the status page, the terminal and the dashboard.

What is not known is a dash, never a zero; a zero is a measurement.
"""

from __future__ import annotations

import math
from typing import Final

NONE: Final = "\N{EM DASH}"
_SMALL: Final = ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (60.0, 1.0, "s"))
"""Up to how many seconds, times what, which unit."""
_LARGE: Final = ((86_400, 3_600, "d", "h"), (3_600, 60, "h", "m"), (60, 1, "m", "s"))
_BYTES: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def duration(seconds: float | None) -> str:
    """Three significant digits: 420 µs, 4.2 ms, 1.84 s, 2m 05s, 3h 04m, 5d 02h."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    if seconds <= 0:
        return "0 s"
    for limit, factor, unit in _SMALL:
        digits = float(f"{seconds * factor:.3g}")
        if digits < limit * factor:
            return f"{digits:g} {unit}"
    return _long(round(seconds))


def age(seconds: float | None) -> str:
    """How long something has lasted, in whole seconds that are over: 14 s, 3m 14s."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    whole = max(0, math.floor(seconds))
    return f"{whole} s" if whole < 60 else _long(whole)


def percent(share: float | None) -> str:
    """One decimal. Never rounds some errors to none, nor nearly all successes to all."""
    if share is None or not math.isfinite(share):
        return NONE
    if share in (0, 1):
        return f"{share * 100:.0f}%"
    if 0 < share < 0.001:
        return "<0.1%"
    return ">99.9%" if 0.999 < share < 1 else f"{share * 100:.1f}%"


def count(number: float | None) -> str:
    """999, 1.2k, 35k, 1.0M."""
    if number is None or not math.isfinite(number):
        return NONE
    for factor, letter in ((1, ""), (1e3, "k"), (1e6, "M"), (1e9, "G")):
        scaled = number / factor
        if letter and round(scaled, 1) < 10:
            return f"{scaled:.1f}{letter}"
        if round(scaled) < 1000 or letter == "G":
            return f"{scaled:.0f}{letter}"
    raise AssertionError("the last unit takes everything")


def rate(number: float | None, what: str) -> str:
    """So many of something per second, with a decimal below ten: 4.2 req/s, 41 req/s, 8.9k tok/s."""
    if number is None or not math.isfinite(number):
        return NONE
    figures = f"{number:.1f}" if number > 0 and round(number, 1) < 10 else count(number)
    return f"{figures} {what}/s"


def size(number: float | None) -> str:
    """Bytes, with a decimal below a hundred: 4.7 GiB, 812 MiB."""
    if number is None or not math.isfinite(number) or number < 0:
        return NONE
    for unit in _BYTES:
        if round(number) < 1024 or unit == _BYTES[-1]:
            break
        number /= 1024
    return f"{number:.1f} {unit}" if unit != "B" and round(number, 1) < 100 else f"{number:.0f} {unit}"


def power(watts: float | None) -> str:
    """240 W, 18.2 kW."""
    if watts is None or not math.isfinite(watts):
        return NONE
    return f"{watts:.0f} W" if round(watts) < 1000 else f"{watts / 1000:.1f} kW"


def times(ratio: float) -> str:
    """1.5×, 5×: two significant digits below ten."""
    return f"{round(ratio, 1):g}×" if ratio < 10 else f"{ratio:.0f}×"


def plural(number: int, one: str, many: str = "") -> str:
    """1 server, 2 servers; `many` for words that do not just take an s."""
    return f"{number} {one}" if number == 1 else f"{number} {many or one + 's'}"


def line(text: str, most: int) -> str:
    """A text as one line without control characters, of at most so many characters."""
    plain = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return plain if len(plain) <= most else plain[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _long(seconds: int) -> str:
    for width, part, unit, smaller in _LARGE:
        if seconds >= width:
            return f"{seconds // width}{unit} {seconds % width // part:02d}{smaller}"
    return f"{seconds} s"
