"""What only somebody knows who looks into the servers, and into the future: remaining times, caches, who will come."""

from __future__ import annotations

import bisect
import heapq
import math
from collections import defaultdict
from typing import Final

from bench.regret.demand import Demand
from bench.regret.machine import Machine, Mischief
from bench.regret.world import World
from fleet.simulator import Runner, SimulatedJob, Stage
from fleet.simulator.slot_cache import common_prefix

AHEAD: Final = 120.0
"""Seconds that it looks ahead to see whether a model will be missed."""
ELSEWHERE: Final = 0.25
"""Share of a load that is lost with a model which is in memory on another server, too."""


class Truth:
    """Answers about one world. Seconds from now, unless something else is said."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._coming: dict[tuple[str, int], list[float]] = defaultdict(list)
        usual = world.setup.servers[0].profile.num_ctx
        for talk in world.setup.talks:
            when = talk.start
            for turn in talk.turns:
                when += turn.think
                self._coming[turn.demand.model, turn.demand.num_ctx or usual].append(when)
        for times in self._coming.values():
            times.sort()
        self._estimates: dict[str, float] = {}

    def fit(self, machine: Machine, demand: Demand) -> bool:
        """Whether the server would do it: it is neither away nor failing, and has the model or can load it."""
        if demand.model not in machine.files or machine.unreachable or machine.mischief is not Mischief.NONE:
            return False
        loaded = machine.files[demand.model].weights in machine.sim.runners
        return loaded or machine.sim.profile.failing_loads == 0.0

    def prefill(self, machine: Machine, runner: Runner | None, demand: Demand) -> float:
        """Evaluation of the prompt, but for what is cached there."""
        prompt = demand.prompt
        known = self._known(runner, prompt) if runner is not None else 0
        evaluated = max(1, demand.prompt_tokens * (len(prompt) - known) // max(1, len(prompt)))
        seconds = self._estimates[prompt] = evaluated / machine.sim.profile.prefill_per_second
        return seconds

    def decode(self, machine: Machine, runner: Runner | None, tokens: int) -> float:
        """Decoding in the company that there is now."""
        profile = machine.sim.profile
        streams = min(len(runner.active) + 1, runner.slots) if runner is not None else 1
        return tokens * profile.crowding(streams) / profile.tokens_per_second

    def ends(self, machine: Machine, runner: Runner, now: float) -> list[float]:
        """When each slot is free if nobody else comes, as a heap."""
        profile = machine.sim.profile
        step = profile.crowding(runner.slots) / profile.tokens_per_second
        slots = [_rest(job, step, now) for job in runner.active]
        slots += [0.0] * (runner.slots - len(slots))
        heapq.heapify(slots)
        for job in runner.queue:
            seconds = self._estimates.get(job.work.prompt, 0.0) + len(job.work.tokens) * step
            heapq.heapreplace(slots, slots[0] + seconds)
        return slots

    def drained(self, machine: Machine, now: float) -> tuple[float, Runner | None]:
        """When some runner is idle, and which: the one that Ollama will evict."""
        runners = list(machine.sim.runners.values())
        if not runners:
            return 0.0, None
        ends = [max(self.ends(machine, each, now)) for each in runners]
        at = min(range(len(ends)), key=lambda at: (ends[at], runners[at].keep_alive))
        return ends[at], runners[at]

    def missed(self, victim: Runner, machine: Machine, now: float, load: float) -> float:
        """What those lose who will want a runner that is evicted."""
        times = self._coming[victim.file.name, victim.options.num_ctx]
        wanted = bisect.bisect(times, now + AHEAD) - bisect.bisect(times, now)
        homes = sum(
            each is not machine and (runner.file.name, runner.options) == (victim.file.name, victim.options)
            for each in self.world.machines.values()
            for runner in each.sim.runners.values()
        )
        return (1.0 - math.exp(-wanted)) * load * (ELSEWHERE if homes else 1.0)

    def _known(self, runner: Runner, prompt: str) -> int:
        """Leading characters that are cached, or will be when those before it in line are through."""
        if runner.slot_caches is None:
            return 0
        ahead = max((common_prefix(job.work.prompt, prompt) for job in [*runner.queue][:8]), default=0)
        return max(runner.slot_caches.longest(prompt), ahead)


def _rest(job: SimulatedJob, step: float, now: float) -> float:
    if job.stage is Stage.DECODE:
        return max(0.0, job.ends_at - now)
    return max(0.0, job.wake_at - now) + len(job.work.tokens) * step
