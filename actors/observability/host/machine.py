"""Processors, memory and disk, by psutil."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil

from fleet.observability.host_sample import Measured, Times, busy_percent


class Machine:
    """A probe. The first look knows nothing of the processors: their use is a difference of two.

    psutil's own `cpu_percent` remembers one reading per thread, and worker threads come and go.
    """

    def __init__(self) -> None:
        self._before: Times | None = None

    def __call__(self) -> Measured:
        now = psutil.cpu_times()._asdict()
        busy, self._before = busy_percent(self._before, now), now
        memory = psutil.virtual_memory()
        found: Measured = {
            "memory_percent": float(memory.percent),
            "memory_available": int(memory.available),
            "memory_used": int(memory.used),
        }
        if busy is not None:
            found["cpu_percent"] = busy
        return found


class Disk:
    """A probe of the disk under a path, or, while that does not exist, under the working directory."""

    def __init__(self, place: Callable[[], Path]) -> None:
        self._place = place

    def __call__(self) -> Measured:
        try:
            usage = psutil.disk_usage(str(self._place()))
        except FileNotFoundError:
            usage = psutil.disk_usage(".")
        return {"disk_percent": float(usage.percent)}
