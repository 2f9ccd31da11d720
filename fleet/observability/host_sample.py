"""What was measured of the machine under the fleet. What it does not have is None or missing, never zero."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypedDict

MOST_GPUS: Final = 64
"""GPUs of one machine that are looked at."""
_LONGEST_NAME: Final = 80


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. Percent 0 to 100, bytes, degrees Celsius, watts."""

    id: str
    name: str
    percent: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    temperature: float | None = None
    watts: float | None = None


@dataclass(frozen=True, slots=True)
class HostSample:
    """One sample. `at` is epoch seconds; percent 0 to 100, bytes, watts by component (`cpu`, `gpu`)."""

    at: float
    cpu_percent: float | None = None
    memory_percent: float | None = None
    memory_available: int | None = None
    memory_used: int | None = None
    disk_percent: float | None = None
    power: Mapping[str, float] = field(default_factory=dict)
    gpus: tuple[Gpu, ...] = ()

    @property
    def gpu_percent(self) -> float | None:
        """The mean over all GPUs that tell it."""
        told = [gpu.percent for gpu in self.gpus if gpu.percent is not None]
        return sum(told) / len(told) if told else None

    @property
    def watts(self) -> float | None:
        """All components together."""
        return sum(self.power.values()) if self.power else None


class Measured(TypedDict, total=False):
    """What one probe has found, in `HostSample`'s words and units; what is missing was not found."""

    cpu_percent: float
    memory_percent: float
    memory_available: int
    memory_used: int
    disk_percent: float
    power: Mapping[str, float]
    gpus: tuple[Gpu, ...]


def put_together(at: float, found: Iterable[Measured]) -> HostSample:
    """One sample of what several probes have found; GPUs that tell their power make the component `gpu`."""
    whole: Measured = {}
    power: dict[str, float] = {}
    gpus: list[Gpu] = []
    for part in found:
        whole |= part
        power |= part.get("power", {})
        gpus += part.get("gpus", ())
    drawn = [gpu.watts for gpu in gpus if gpu.watts is not None]
    if drawn:
        power["gpu"] = sum(drawn)
    whole |= {"power": power, "gpus": tuple(gpus[:MOST_GPUS])}
    return HostSample(at, **whole)


# Drivers say what they like: a number that makes no sense is one that was not measured.


def percent(value: object) -> float | None:
    """A percentage, if it is one."""
    number = amount(value)
    return number if number is not None and number <= 100.0 else None


def amount(value: object, unit: float = 1.0) -> float | None:
    """A finite number that is not negative, times its unit."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return value * unit if math.isfinite(value) and value >= 0 else None


def count(value: object) -> int | None:
    """A whole number that is not negative."""
    return None if (number := amount(value)) is None else int(number)


def readable(name: object, otherwise: str) -> str:
    """A driver's name for a thing, fit for a label."""
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or "")
    text = "".join(each if each.isprintable() else " " for each in text[:_LONGEST_NAME])
    return " ".join(text.split()) or otherwise


@dataclass(frozen=True, slots=True)
class Counted:
    """A counter that only rises, read at a moment of a clock that does too; `most` is where it begins anew."""

    at: float
    value: float
    most: float = math.inf


_LONGEST: Final = 300.0
"""Seconds between two readings after which the counter may have begun anew more than once."""


def rate(before: Counted | None, now: Counted) -> float | None:
    """How fast a counter has risen, per second; None while there is nothing to compare with."""
    if before is None or not 0.0 < now.at - before.at <= _LONGEST:
        return None
    risen = now.value - before.value
    if risen < 0:
        risen += now.most
    return risen / (now.at - before.at) if 0.0 <= risen < math.inf else None


Times = Mapping[str, float]
"""Seconds that the CPUs have spent since the machine started, by what on."""


def busy_percent(before: Times | None, now: Times) -> float | None:
    """The share of the time between two readings in which the CPUs did something; None with nothing to compare."""
    if before is None:
        return None
    spent = {name: max(now[name] - before.get(name, 0.0), 0.0) for name in now if name not in _COUNTED_ELSEWHERE}
    whole = sum(spent.values())
    rest = spent.get("idle", 0.0) + spent.get("iowait", 0.0)
    return 100.0 * (whole - rest) / whole if whole > 0 else None


_COUNTED_ELSEWHERE: Final = frozenset(("guest", "guest_nice"))
"""They are in `user` and `nice` too."""
