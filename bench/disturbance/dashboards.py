"""Whether those who watch disturb the data plane: 100 live clients, and one that never reads, beside live streams."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Final

from bench.disturbance import admin, beside
from bench.measure import Bench, NotMeasured, Running
from bench.processes import Process, cores
from bench.proxies.install import ROOT

CLIENTS: Final = 100
_PATIENCE: Final = 20.0
_REST: Final = 5.0
"""Seconds in which the cost of watching a fleet at rest is counted."""
_FEWEST: Final = 0.5
"""Updates a second that each client must have got for the figures to mean anything; there should be one."""


def measure(bench: Bench, running: Running) -> Mapping[str, float]:
    """How much longer the slowest hundredth takes, as ratios, and what it costs to be watched. Raises NotMeasured."""
    parts = ((admin.STREAMS, ("first_p99_us", "gap_p99_us")), (admin.SHORT, ("p99_us",)))
    found = beside.ratios(bench, running, parts, partial(watched, bench, running))
    assert running.process is not None
    alone = _used(running.process)
    with watched(bench, running):
        return {**found, "% of a core": _used(running.process) - alone}


@contextmanager
def watched(bench: Bench, running: Running) -> Iterator[None]:
    """While it is open they watch. Raises NotMeasured if one could not, or did not get what it should."""
    command = [sys.executable, "-m", "bench.disturbance.watchers", running.dashboard, str(CLIENTS)]
    process = bench.crew.start("watchers", command, cores()[1], {"PYTHONPATH": str(ROOT)})
    try:
        _await_all(process)
        began = time.monotonic()
        yield
        lasted = time.monotonic() - began
    finally:
        bench.crew.stop(process)
    _check(process.last_words(), lasted)


def _await_all(process: Process) -> None:
    end = time.monotonic() + _PATIENCE
    while process.last_words() != "ready":
        if process.popen.poll() is not None or time.monotonic() > end:
            raise NotMeasured(f"the live clients did not all connect: {process.last_words()}")
        time.sleep(0.05)


def _check(last_words: str, lasted: float) -> None:
    told = json.loads(last_words)
    if told["lost"]:
        raise NotMeasured(f"{len(told['lost'])} live clients were lost, one of them: {told['lost'][0]}")
    if told["least"] < _FEWEST * lasted:
        raise NotMeasured(f"a live client got {told['least']} updates in {lasted:.0f} seconds")


def _used(process: Process) -> float:
    """Percent of a core, at rest."""
    before = process.cpu_seconds()
    time.sleep(_REST)
    return 100 * (process.cpu_seconds() - before) / _REST
