"""The power that the processors draw, from Linux's energy counters (RAPL). On most kernels only root may read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from actors.observability.host.probe import Absent
from actors.observability.host.sysfs import number, word
from fleet.observability.host_sample import Counted, Measured, rate

ZONES: Final = Path("/sys/class/powercap")
_MICRO: Final = 1e-6


class Rapl:
    """A probe. The first look finds nothing: power is a difference of two. `clock` may be asked in any thread."""

    def __init__(self, clock: Callable[[], float], zones: Path = ZONES) -> None:
        self._zones = zones
        self._clock = clock
        self._before: dict[str, Counted] = {}

    def __call__(self) -> Measured:
        before, self._before = self._before, self._packages()
        drawn = [rate(before.get(name), now) for name, now in self._before.items()]
        watts = [each for each in drawn if each is not None]
        return {"power": {"cpu": sum(watts)}} if len(watts) == len(drawn) else {}

    def _packages(self) -> dict[str, Counted]:
        """The counters of whole processors, by name: some kernels show each twice, and its cores beside it."""
        if not self._zones.is_dir():
            raise Absent(f"no {self._zones}")
        found: dict[str, Counted] = {}
        for zone in sorted(self._zones.glob("*")):
            if (zone / "energy_uj").is_file() and (name := word(zone / "name")).startswith("package"):
                found.setdefault(name, self._counter(zone))
        if not found:
            raise Absent("no processor counts its energy")
        return found

    def _counter(self, zone: Path) -> Counted:
        joules = int(word(zone / "energy_uj")) * _MICRO
        most = number(zone / "max_energy_range_uj")
        return Counted(self._clock(), joules, float("inf") if most is None else most * _MICRO)
