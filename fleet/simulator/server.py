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
from fleet.simulator.page_cache import PageCache
from fleet.simulator.profile import Profile
from fleet.simulator.runner import Runner
from fleet.simulator.slot_cache import SlotCaches
from fleet.simulator.work import LOOKUP, OVER, JobFailure, SimulatedJob, Stage, Work

_SMALLEST_CONTEXT = 2048
"""Tokens below which an automatic context does not shrink."""


class Busy(Exception):
    """The scheduler's own queue is full (requests for a warm runner never see this)."""


@dataclass(eq=False, slots=True)
class Load:
    """The one load under way. It lives and dies with the request that caused it."""

    job: SimulatedJob
    runner: Runner
    fails: bool = False


class SimServer:
    """A server that loads one model at a time, evicts idle ones, and decodes in slots."""

    def __init__(self, profile: Profile, files: Iterable[ModelFile], chance: Chance) -> None:
        self.profile = profile
        self.shelf = Shelf(files)
        self.runners: dict[str, Runner] = {}
        """Loaded models by weights digest, as Ollama keys them: copies of a model share a runner."""
        self.loads_begun = 0
        self.page_cache = PageCache()
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
        if runner is not None and runner.serves(work):
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
            self._unload(runner, now)
        for job in (*runner.active, *runner.queue):
            runner.drop(job)
            job.fail(JobFailure.CRASH, now)
        self._schedule(now)

    def restart(self, now: float, profile: Profile | None = None) -> None:
        """The server itself dies and is back at once, with another profile if one is given; all its jobs fail.

        Files stay in the page cache. How long it cannot be reached meanwhile is for those who connect to it to show.
        """
        self.advance(now)
        self.profile = profile or self.profile
        jobs = [job for runner in self.runners.values() for job in (*runner.active, *runner.queue)]
        jobs += self._pending
        if self._load is not None:
            jobs.append(self._load.job)
        for runner in list(self.runners.values()):
            self._unload(runner, now)
            runner.active.clear()
            runner.queue.clear()
        self._pending.clear()
        self._load = None
        for job in jobs:
            job.fail(JobFailure.RESTART, now)

    @property
    def next_event(self) -> float:
        """When `advance` would do something; infinite if never."""
        return self._timers[0][0] if self._timers else math.inf

    @property
    def pending(self) -> int:
        """Requests that wait for the scheduler."""
        return len(self._pending)

    @property
    def pending_jobs(self) -> tuple[SimulatedJob, ...]:
        """Who waits for the scheduler, the next one first."""
        return tuple(self._pending)

    @property
    def loading(self) -> ModelFile | None:
        return self._load.runner.file if self._load else None

    @property
    def load_job(self) -> SimulatedJob | None:
        """The request that the load under way belongs to; it goes on at its `wake_at`."""
        return self._load.job if self._load else None

    @property
    def vram_used(self) -> int:
        """Bytes taken by loaded models and the one being loaded."""
        return sum(r.vram for r in self.runners.values()) + (self._load.runner.vram if self._load else 0)

    # Scheduling: strictly one at a time; whoever is first blocks those behind

    def _schedule(self, now: float) -> None:
        while self._pending and self._load is None:
            job = self._pending[0]
            runner = self.runners.get(job.work.file.weights)
            if runner is not None and runner.serves(job.work):
                self._attach(self._pending.popleft(), runner, now)
            elif runner is not None:
                if not runner.idle:
                    return
                self._unload(runner, now)
            elif self._make_room(self._need(job.work), now):
                self._begin_load(self._pending.popleft(), now)
            else:
                return

    def _make_room(self, need: int, now: float) -> bool:
        """Evict idle runners, shortest keep-alive first, until there is room; False if somebody must be waited for."""
        while self.runners and not self._fits(need):
            idle = [runner for runner in self.runners.values() if runner.idle]
            if not idle:
                return False
            self._unload(min(idle, key=lambda runner: runner.keep_alive), now)
        return True

    def _fits(self, need: int) -> bool:
        return len(self.runners) < self.profile.max_loaded and self.vram_used + need <= self.profile.vram

    def _slots(self, work: Work) -> int:
        return 1 if work.file.one_slot else self.profile.slots

    def _context(self, work: Work) -> int:
        """Tokens of context per slot: what the options say, or half and half again where nobody named any."""
        context, per_token = work.options.num_ctx, self.profile.bytes_per_token * self._slots(work)
        if work.automatic and per_token:
            while context > _SMALLEST_CONTEXT and work.file.size + context * per_token > self.profile.vram:
                context = max(_SMALLEST_CONTEXT, context // 2)
        return context

    def _need(self, work: Work) -> int:
        """Bytes of memory of a runner for this work: its file and the contexts of its slots."""
        return work.file.size + self._context(work) * self.profile.bytes_per_token * self._slots(work)

    def _begin_load(self, job: SimulatedJob, now: float) -> None:
        work, profile, slots = job.work, self.profile, self._slots(job.work)
        vram, context = min(self._need(work), profile.vram), self._context(work)
        runner = Runner(work.file, work.options, slots, vram, work.keep_alive, context)
        if profile.slot_caches:
            runner.slot_caches = SlotCaches(slots, profile.parked_tokens)
        fails = profile.failing_loads > 0.0 and self._chance.random() < profile.failing_loads
        load = self._load = Load(job, runner, fails)
        self.loads_begun += 1
        at = now + self.load_seconds(work.file, now)
        job.enter(Stage.LOADING, at)
        self.call_at(at, lambda at: self._loaded(load, at))

    def load_seconds(self, file: ModelFile, now: float) -> float:
        """How long a load of that file would take if it began now."""
        profile = self.profile
        warm = self.page_cache.warm(file.weights, now, profile.page_cache_seconds)
        return (profile.load_seconds + file.size / profile.load_rate) * (1.0 if warm else profile.cold_load_factor)

    def _loaded(self, load: Load, now: float) -> None:
        if self._load is not load:
            return
        self._load = None
        self.page_cache.touch(load.runner.file.weights, now)
        if load.fails:
            load.job.fail(JobFailure.MEMORY, now)
        else:
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
        known = runner.known(job)
        job.cached_tokens = job.work.prompt_tokens * known // max(1, len(job.work.prompt))
        job.prefill_at = now
        at = now + LOOKUP + job.evaluated / self._vary(self.profile.prefill_per_second)
        job.enter(Stage.PREFILL, at)
        self.call_at(at, lambda at: self._decode(job, at))

    def _decode(self, job: SimulatedJob, now: float) -> None:
        if job.stage is not Stage.PREFILL:
            return
        if job.work.poison and job.runner is not None:
            self.crash(job.runner, now)
            return
        job.decode_at = now
        job.lone_step = 1.0 / self._vary(self.profile.tokens_per_second)
        job.pace(1.0, now)
        if not job.work.tokens:
            self._complete(job, now)
            return
        job.enter(Stage.DECODE, job.ends_at)
        if not job.work.held:
            self._ring_at_end(job)
        self._pace_all(job.runner, now)

    def _ring_at_end(self, job: SimulatedJob) -> None:
        self.call_at(job.ends_at, lambda at: self._ended(job, at))

    def _ended(self, job: SimulatedJob, now: float) -> None:
        """The end, unless company has meanwhile come (then another timer rings later) or gone (one rang before)."""
        if job.stage is Stage.DECODE and job.ends_at <= now:
            self._complete(job, now)

    def _pace_all(self, runner: Runner | None, now: float) -> None:
        """Streams of one runner share its memory's bandwidth: one that comes or goes changes the pace of all others."""
        if not self.profile.batch_cost or runner is None:
            return
        streams = runner.streams()
        crowding = self.profile.crowding(len(streams))
        for job in streams:
            job.pace(crowding, now)
            job.wake_at = job.ends_at
            if not job.work.held:
                self._ring_at_end(job)

    def _complete(self, job: SimulatedJob, now: float) -> None:
        job.finished_at = now
        job.enter(Stage.DONE)
        if job.runner is not None:
            job.runner.remember(job, job.work.prompt + "".join(job.work.tokens))
            self._release(job, job.runner, now)
        self._schedule(now)

    def _release(self, job: SimulatedJob, runner: Runner, now: float) -> None:
        if job.slot is not None:
            runner.remember(job, job.work.prompt)
        runner.drop(job)
        self._pace_all(runner, now)
        self._fill(runner, now)
        self._settle(runner, now)

    # Staying and going

    def _settle(self, runner: Runner, now: float) -> None:
        """An idle runner's keep-alive starts to run (or is over already)."""
        if not runner.idle or self.runners.get(runner.file.weights) is not runner:
            return
        runner.idle_until = now + runner.keep_alive
        if runner.keep_alive <= 0:
            self._unload(runner, now)
        elif runner.idle_until < runner.timer_at:
            self._expire_at(runner, runner.idle_until)

    def _expire_at(self, runner: Runner, at: float) -> None:
        # One timer per runner: it looks again when it rings, instead of one timer per request.
        runner.timer_at = at
        self.call_at(at, lambda at: self._expire(runner, at))

    def _expire(self, runner: Runner, now: float) -> None:
        if self.runners.get(runner.file.weights) is not runner or runner.timer_at != now:
            return
        runner.timer_at = math.inf
        if runner.idle and runner.idle_until <= now:
            self._unload(runner, now)
            self._schedule(now)
        elif runner.idle and runner.idle_until < math.inf:
            self._expire_at(runner, runner.idle_until)

    def _unload(self, runner: Runner, now: float) -> None:
        del self.runners[runner.file.weights]
        self.page_cache.touch(runner.file.weights, now)

    # Small things

    def call_at(self, at: float, ring: Callable[[float], None]) -> None:
        """Have something done when the server's time has come there."""
        heapq.heappush(self._timers, (at, next(self._order), ring))

    def _vary(self, rate: float) -> float:
        return rate * (1.0 + self.profile.jitter * (2.0 * self._chance.random() - 1.0))
