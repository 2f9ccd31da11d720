"""One loaded model: its slots, the queue behind them, and how long it may stay."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field

from fleet.simulator.files import ModelFile
from fleet.simulator.prefix import PrefixCache
from fleet.simulator.work import RunnerOptions, SimulatedJob


@dataclass(eq=False, slots=True)
class Runner:
    """A model in memory. The queue is unbounded and first come, first served; it allows leaving from the middle."""

    file: ModelFile
    options: RunnerOptions
    slots: int
    vram: int
    """Bytes of video memory it takes; less than the file when that does not fit."""
    keep_alive: float
    active: set[SimulatedJob] = field(default_factory=set)
    queue: OrderedDict[SimulatedJob, None] = field(default_factory=OrderedDict)
    cache: PrefixCache = field(default_factory=PrefixCache)
    idle_until: float = math.inf
    timer_at: float = math.inf
    """When the one expiry timer that is set for this runner rings."""

    @property
    def idle(self) -> bool:
        return not self.active and not self.queue

    def expires_at(self, now: float) -> float:
        """When it will be unloaded; an estimate while it is busy."""
        return self.idle_until if self.idle else now + self.keep_alive

    def next_job(self) -> SimulatedJob | None:
        """Take the oldest waiting job, if a slot is free for it."""
        if not self.queue or len(self.active) >= self.slots:
            return None
        job, _ = self.queue.popitem(last=False)
        self.active.add(job)
        return job

    def drop(self, job: SimulatedJob) -> None:
        self.active.discard(job)
        self.queue.pop(job, None)
