"""The machine itself: one Ollama server as a state machine. No clock, no tasks: the caller brings `now`.

Every timer that a waiting job depends on belongs to a job (`SimulatedJob.wake_at`), so whoever waits for a job needs no
driver: sleep until its `wake_at` or its `notify`, then call `advance`.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fleet.common.randomness import Chance
from fleet.simulator.files import ModelFile, Shelf
from fleet.simulator.runner import Runner
from fleet.simulator.work import LOOKUP, OVER, SimulatedJob, Stage, Work


@dataclass(frozen=True, slots=True)
class Profile:
    """How strong and how configured the server is. Durations are seconds, rates tokens per second and slot."""

    vram: int = 24 * 10**9
    slots: int = 1
    max_loaded: int = 3
    max_queue: int = 512
    load_seconds: float = 2.0
    tokens_per_second: float = 50.0
    prefill_per_second: float = 2000.0
    jitter: float = 0.1
    keep_alive: float = 300.0
    num_ctx: int = 4096
    version: str = "0.33.0"
    pull_seconds: float = 0.5


class Busy(Exception):
    """The scheduler's own queue is full (requests for a warm runner never see this)."""


@dataclass(eq=False, slots=True)
class Load:
    """The one load under way. It lives and dies with the request that caused it."""

    job: SimulatedJob
    runner: Runner


class SimServer:
    """A server that loads one model at a time, evicts idle ones, and decodes in slots."""

    def __init__(self, profile: Profile, files: Iterable[ModelFile], chance: Chance) -> None:
        self.profile = profile
        self.shelf = Shelf(files)
        self.runners: dict[str, Runner] = {}
        """Loaded models by weights digest, as Ollama keys them: copies of a model share a runner."""
        self.loads_begun = 0
        self._chance = chance
        self._pending: deque[SimulatedJob] = deque()
        self._load: Load | None = None
        self._timers: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()

    # What callers do

    def submit(self, work: Work, now: float, notify: Callable[[], None] = lambda: None) -> SimulatedJob:
        """Take a request; it may already be further than PENDING on return. Raises `Busy`."""
        self.advance(now)
        job = SimulatedJob(work, now, notify=notify)
        runner = self.runners.get(work.file.weights)
        if runner is not None and runner.options == work.options:
            self._attach(job, runner, now)
            return job
        if len(self._pending) >= self.profile.max_queue:
            raise Busy
        self._pending.append(job)
        self._schedule(now)
        return job

    def advance(self, now: float) -> None:
        """Let everything happen that is due, each at its own time."""
        while self._timers and self._timers[0][0] <= now:
            at, _, ring = heapq.heappop(self._timers)
            ring(at)

    def finish(self, job: SimulatedJob, now: float) -> None:
        """The reader of a held job has taken its last token; never before `ends_at`."""
        self.advance(now)
        if job.stage is Stage.DECODE:
            self._complete(job, max(now, job.ends_at))

    def leave(self, job: SimulatedJob, now: float) -> None:
        """The client is gone: queue place, slot or load are given up at once. Harmless when the job is over."""
        self.advance(now)
        if job.stage in OVER:
            return
        stage = job.stage
        job.enter(Stage.LEFT)
        if stage is Stage.PENDING:
            self._pending.remove(job)
        elif stage is Stage.LOADING:
            self._load = None
        elif job.runner is not None:
            self._release(job, job.runner, now)
        self._schedule(now)

    def unload(self, file: ModelFile, now: float) -> None:
        """Unload as soon as the runner is idle; nothing happens when it is not loaded."""
        self.advance(now)
        runner = self.runners.get(file.weights)
        if runner is not None:
            runner.keep_alive = 0.0
            self._settle(runner, now)

    def crash(self, runner: Runner, now: float) -> None:
        """The runner process dies: all its jobs fail, the next request loads it again."""
        self.advance(now)
        if self.runners.get(runner.file.weights) is runner:
            self._unload(runner)
        for job in (*runner.active, *runner.queue):
            runner.drop(job)
            job.enter(Stage.FAILED)
        self._schedule(now)

    @property
    def next_event(self) -> float:
        """When `advance` would do something; infinite if never."""
        return self._timers[0][0] if self._timers else math.inf

    @property
    def pending(self) -> int:
        """Requests that wait for the scheduler."""
        return len(self._pending)

    @property
    def loading(self) -> ModelFile | None:
        return self._load.runner.file if self._load else None

    @property
    def vram_used(self) -> int:
        """Bytes taken by loaded models and the one being loaded."""
        return sum(r.vram for r in self.runners.values()) + (self._load.runner.vram if self._load else 0)

    # Scheduling: strictly one at a time; whoever is first blocks those behind

    def _schedule(self, now: float) -> None:
        while self._pending and self._load is None:
            job = self._pending[0]
            runner = self.runners.get(job.work.file.weights)
            if runner is not None and runner.options == job.work.options:
                self._attach(self._pending.popleft(), runner, now)
            elif runner is not None:
                if not runner.idle:
                    return
                self._unload(runner)
            elif self._make_room(job.work.file):
                self._begin_load(self._pending.popleft(), now)
            else:
                return

    def _make_room(self, file: ModelFile) -> bool:
        """Evict idle runners, shortest keep-alive first, until the file fits; False if somebody must be waited for."""
        while self.runners and not self._fits(file):
            idle = [runner for runner in self.runners.values() if runner.idle]
            if not idle:
                return False
            self._unload(min(idle, key=lambda runner: runner.keep_alive))
        return True

    def _fits(self, file: ModelFile) -> bool:
        return len(self.runners) < self.profile.max_loaded and self.vram_used + file.size <= self.profile.vram

    def _begin_load(self, job: SimulatedJob, now: float) -> None:
        work, profile = job.work, self.profile
        slots = 1 if work.file.embeds_only else profile.slots
        runner = Runner(work.file, work.options, slots, min(work.file.size, profile.vram), work.keep_alive)
        load = self._load = Load(job, runner)
        self.loads_begun += 1
        at = now + profile.load_seconds
        job.enter(Stage.LOADING, at)
        self._ring(at, lambda at: self._loaded(load, at))

    def _loaded(self, load: Load, now: float) -> None:
        if self._load is not load:
            return
        self._load = None
        self.runners[load.runner.file.weights] = load.runner
        self._attach(load.job, load.runner, now)
        self._schedule(now)

    # A runner's slots

    def _attach(self, job: SimulatedJob, runner: Runner, now: float) -> None:
        job.runner, job.attached_at = runner, now
        runner.keep_alive = job.work.keep_alive
        if not job.work.prompt_tokens:
            job.finished_at = now
            job.enter(Stage.DONE)
            self._settle(runner, now)
            return
        runner.queue[job] = None
        job.enter(Stage.QUEUED)
        self._fill(runner, now)

    def _fill(self, runner: Runner, now: float) -> None:
        while (job := runner.next_job()) is not None:
            self._prefill(job, runner, now)

    def _prefill(self, job: SimulatedJob, runner: Runner, now: float) -> None:
        known = runner.cache.common(job.work.prompt)
        job.cached_tokens = job.work.prompt_tokens * known // max(1, len(job.work.prompt))
        runner.cache.remember(job.work.prompt)
        job.prefill_at = now
        at = now + LOOKUP + job.evaluated / self._vary(self.profile.prefill_per_second)
        job.enter(Stage.PREFILL, at)
        self._ring(at, lambda at: self._decode(job, at))

    def _decode(self, job: SimulatedJob, now: float) -> None:
        if job.stage is not Stage.PREFILL:
            return
        job.decode_at = now
        job.step = 1.0 / self._vary(self.profile.tokens_per_second)
        job.ends_at = now + len(job.work.tokens) * job.step
        if not job.work.tokens:
            self._complete(job, now)
            return
        job.enter(Stage.DECODE, job.ends_at)
        if not job.work.held:
            self._ring(job.ends_at, lambda at: self._ended(job, at))

    def _ended(self, job: SimulatedJob, now: float) -> None:
        if job.stage is Stage.DECODE:
            self._complete(job, now)

    def _complete(self, job: SimulatedJob, now: float) -> None:
        job.finished_at = now
        job.enter(Stage.DONE)
        if job.runner is not None:
            job.runner.cache.remember(job.work.prompt + "".join(job.work.tokens))
            self._release(job, job.runner, now)
        self._schedule(now)

    def _release(self, job: SimulatedJob, runner: Runner, now: float) -> None:
        runner.drop(job)
        self._fill(runner, now)
        self._settle(runner, now)

    # Staying and going

    def _settle(self, runner: Runner, now: float) -> None:
        """An idle runner's keep-alive starts to run (or is over already)."""
        if not runner.idle or self.runners.get(runner.file.weights) is not runner:
            return
        runner.idle_until = now + runner.keep_alive
        if runner.keep_alive <= 0:
            self._unload(runner)
        elif runner.idle_until < runner.timer_at:
            self._expire_at(runner, runner.idle_until)

    def _expire_at(self, runner: Runner, at: float) -> None:
        # One timer per runner: it looks again when it rings, instead of one timer per request.
        runner.timer_at = at
        self._ring(at, lambda at: self._expire(runner, at))

    def _expire(self, runner: Runner, now: float) -> None:
        if self.runners.get(runner.file.weights) is not runner or runner.timer_at != now:
            return
        runner.timer_at = math.inf
        if runner.idle and runner.idle_until <= now:
            self._unload(runner)
            self._schedule(now)
        elif runner.idle and runner.idle_until < math.inf:
            self._expire_at(runner, runner.idle_until)

    def _unload(self, runner: Runner) -> None:
        del self.runners[runner.file.weights]

    # Small things

    def _ring(self, at: float, ring: Callable[[float], None]) -> None:
        heapq.heappush(self._timers, (at, next(self._order), ring))

    def _vary(self, rate: float) -> float:
        return rate * (1.0 + self.profile.jitter * (2.0 * self._chance.random() - 1.0))
