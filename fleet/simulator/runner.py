"""One loaded model: its slots, the queue behind them, and how long it may stay."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field

from fleet.simulator.files import ModelFile
from fleet.simulator.prefix import PrefixCache
from fleet.simulator.slot_cache import SlotCaches
from fleet.simulator.work import RunnerOptions, SimulatedJob, Stage, Work


@dataclass(eq=False, slots=True)
class Runner:
    """A model in memory. The queue is unbounded and first come, first served; it allows leaving from the middle."""

    file: ModelFile
    options: RunnerOptions
    slots: int
    vram: int
    """Bytes of video memory it takes; less than the file when that does not fit."""
    keep_alive: float
    context: int = 0
    """Tokens of context that each slot really got; less than its options say where memory was short."""
    active: dict[SimulatedJob, None] = field(default_factory=dict)
    queue: OrderedDict[SimulatedJob, None] = field(default_factory=OrderedDict)
    cache: PrefixCache = field(default_factory=PrefixCache)
    slot_caches: SlotCaches | None = None
    """What each slot holds, where that is told apart."""
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
        self.active[job] = None
        return job

    def drop(self, job: SimulatedJob) -> None:
        self.active.pop(job, None)
        self.queue.pop(job, None)

    def serves(self, work: Work) -> bool:
        """Whether work needs no reload. A context that shrank suits only who named none."""
        return self.options == work.options and (work.automatic or self.context >= work.options.num_ctx)

    def known(self, job: SimulatedJob) -> int:
        """How many leading characters of its prompt need no evaluation; from now on the cache holds the prompt."""
        prompt = job.work.prompt
        if self.slot_caches is not None:
            job.slot, known = self.slot_caches.take(prompt)
            return known
        known = self.cache.common(prompt)
        self.cache.remember(prompt)
        return known

    def remember(self, job: SimulatedJob, text: str) -> None:
        """A job gives its slot back; the cache holds `text` of it."""
        if self.slot_caches is None:
            self.cache.remember(text)
        elif job.slot is not None:
            self.slot_caches.free(job.slot, text)
            job.slot = None

    def streams(self) -> list[SimulatedJob]:
        """The jobs that decode now."""
        return [job for job in self.active if job.stage is Stage.DECODE]
