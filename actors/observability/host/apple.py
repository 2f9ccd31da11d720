"""Apple's chips, through `macmon` if that is installed: macOS tells nobody else without root."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from typing import Any, Final

import orjson

from actors.observability.host.probe import Absent
from fleet.observability.host_sample import Gpu, Measured, amount, percent

_ARGUMENTS: Final = ("pipe", "--samples", "1", "--interval", "200")
_WITHIN: Final = 10.0
"""Seconds after which macmon is killed."""
_MOST: Final = 2**20
"""Bytes of its answer."""


class Apple:
    """A probe."""

    def __init__(self, find: Callable[[str], str | None] = shutil.which) -> None:
        self._find = find

    def __call__(self) -> Measured:
        program = self._find("macmon")
        if program is None:
            raise Absent("no macmon on PATH")
        return read(_answer(program))


def _answer(program: str) -> bytes:
    silent = subprocess.DEVNULL
    done = subprocess.run(
        (program, *_ARGUMENTS), stdin=silent, stdout=subprocess.PIPE, stderr=silent, timeout=_WITHIN, check=True
    )
    return done.stdout[:_MOST]


def read(line: bytes) -> Measured:
    """What macmon has said. Older versions tell the GPU's use as a pair of frequency and share.

    Raises ValueError for what is no JSON object.
    """
    told = orjson.loads(line)
    if not isinstance(told, dict):
        raise ValueError("macmon said something else than an object")
    temperatures = told.get("temp")
    gpu = Gpu(
        id="apple0",
        name="Apple GPU",
        percent=percent(amount(_share(told), 100.0)),
        temperature=amount(temperatures.get("gpu_temp_avg")) if isinstance(temperatures, dict) else None,
        watts=amount(told.get("gpu_power")),
    )
    found: Measured = {"gpus": (gpu,)}
    if (watts := amount(told.get("cpu_power"))) is not None:
        found["power"] = {"cpu": watts}
    return found


def _share(told: dict[str, Any]) -> object:
    old = told.get("gpu_usage")
    return told.get("gpu_active_ratio", old[1] if isinstance(old, list) and len(old) == 2 else None)
