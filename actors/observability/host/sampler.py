"""The machine under the fleet: sampled now and then in worker threads, so that a driver that hangs stalls nobody."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from actors.observability.host.amd import Amd
from actors.observability.host.apple import Apple
from actors.observability.host.machine import Disk, Machine
from actors.observability.host.nvidia import Nvidia
from actors.observability.host.power import Rapl
from actors.observability.host.probe import Part
from fleet.observability.host_sample import HostSample, put_together

if TYPE_CHECKING:
    from actors.kit.clock import Clock
    from actors.state.config_ref import ConfigRef

STALE: Final = 5.0
"""Intervals after which a sample, or one part of it, is too old to be true."""
_STEP: Final = 1.0
"""Seconds between two looks at the configuration; and how long a sample waits for those who are slow to answer."""
_LEAST: Final = 0.1
"""Seconds between two samples in any case."""


class HostWatch:
    """The cell and the loop. `latest` is None until something was measured, and when it is too old to be true.

    Each part of the machine has a thread of its own, so none waits for another's driver: what is slow to answer is in
    the next sample. A part whose call hangs is not asked again until that call has ended.
    """

    def __init__(self, config: ConfigRef, clock: Clock, parts: Iterable[Part]) -> None:
        self._config = config
        self._clock = clock
        self._parts: Sequence[Part] = tuple(parts)
        self._sample: HostSample | None = None
        self._taken = 0.0
        self._rounds = 0

    @property
    def latest(self) -> HostSample | None:
        """The last sample, while it is worth something."""
        stale = self._clock.now() - self._taken > STALE * self._config.current.host.interval + _STEP
        return None if stale else self._sample

    @latest.setter
    def latest(self, sample: HostSample | None) -> None:
        self._sample, self._taken = sample, self._clock.now()

    async def run(self) -> None:
        """Sample until cancelled; calls under way then end by themselves, and nobody hears of it."""
        last = -math.inf
        async with trio.open_nursery() as asking:
            while True:
                host = self._config.current.host
                if not host.enabled:
                    self._sample = None
                elif trio.current_time() >= last + self._pause(host.interval):
                    last = trio.current_time()
                    await self._look(asking, host.interval, host.timeout)
                ahead = last + self._pause(host.interval) - trio.current_time() if host.enabled else _STEP
                await trio.sleep(min(max(ahead, _LEAST), _STEP))

    def _pause(self, interval: float) -> float:
        """From one sample to the next; the second, the first that has rates, comes early."""
        return min(interval, _STEP) if self._rounds == 1 else interval

    async def _look(self, asking: trio.Nursery, interval: float, timeout: float) -> None:
        """Ask all that are due; one sample of what there is when they have answered, or when that takes too long."""
        asked = [part for part in self._parts if part.due]
        for part in asked:
            part.start(asking, interval, timeout)
        with trio.move_on_after(min(interval, _STEP)):
            for part in asked:
                await part.answered.wait()
        self._rounds += 1
        self.latest = put_together(self._clock.wall(), [part.figures(STALE * interval) for part in self._parts])


def all_parts(now: Callable[[], float], store_path: Callable[[], str]) -> list[Part]:
    """What a machine may have. `store_path` names the store's file, empty if there is none: its disk is looked at."""

    def place() -> Path:
        path = store_path()
        return Path(path).parent if path else Path()

    return [
        Part("processors and memory", Machine()),
        Part("disk", Disk(place)),
        Part("NVIDIA GPUs", Nvidia()),
        Part("AMD GPUs", Amd()),
        Part("Apple chip", Apple()),
        Part("power", Rapl(now)),
    ]
