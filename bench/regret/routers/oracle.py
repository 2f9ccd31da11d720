"""What could be done by somebody who knows everything: sizes, slots, caches, loads, and who will come.

Two ways of using that, neither of which is a proof of a bound: the greedy one sends each request at once to where it
will be done soonest; the holding one (`holding.py`) keeps them in line. Each runs in several tempers, and whichever was
best afterwards is the oracle. A policy that beats it all the same is reported as what it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.regret.demand import Demand, VisibleRequest
from bench.regret.machine import Machine
from bench.regret.router import Ending, Order, Refuse, Send, Sighting
from bench.regret.routers.truth import Truth
from bench.regret.world import World
from fleet.simulator import Runner, Work


@dataclass(frozen=True, slots=True)
class Temper:
    """What a second is worth: of decoding, and of others' loads. `holds`: whether requests are kept in line."""

    decode: float
    others: float
    holds: bool = False


TEMPERS: Final = (
    Temper(1.0, 1.0),
    Temper(0.0, 1.0),
    Temper(1.0, 1.25, holds=True),
    Temper(0.1, 4.0, holds=True),
    Temper(1.0, 4.0, holds=True),
    Temper(1.0, 15.0, holds=True),
)


class Oracle:
    """What all oracles have in common: there is nothing that they need be told."""

    queues = False

    def __init__(self, world: World, temper: Temper) -> None:
        self.name = "oracle"
        self.wake_at = math.inf
        self.temper = temper
        self.truth = Truth(world)
        self.machines = list(world.machines.values())

    def demand(self, number: int) -> Demand:
        return self.truth.world.progress[number].demand

    def began(self, number: int, now: float) -> Sequence[Order]:
        return ()

    def ended(self, ending: Ending, now: float) -> Sequence[Order]:
        return ()

    def left(self, number: int, now: float) -> None:
        """Nobody waits here."""

    def probed(self, sighting: Sighting, now: float) -> Sequence[Order]:
        return ()

    def woken(self, now: float) -> Sequence[Order]:
        return ()


class GreedyOracle(Oracle):
    """Sends each request at once, reckoning with what is on every server's way and what others lose by an eviction."""

    def arrived(self, request: VisibleRequest, now: float) -> Sequence[Order]:
        demand, best, least = self.demand(request.number), None, math.inf
        for machine in self.machines:
            if machine.id in request.excluded or not self.truth.fit(machine, demand):
                continue
            cost = self._cost(machine, demand, now)
            if cost < least:
                best, least = machine, cost
        if best is None or best.work(demand).poison:
            return (Refuse(request.number, "known to fail"),)
        return (Send(request.number, best.id),)

    def _cost(self, machine: Machine, demand: Demand, now: float) -> float:
        sim, work, truth = machine.sim, machine.work(demand), self.truth
        runner = sim.runners.get(work.file.weights)
        decode, harm = truth.decode(machine, runner, demand.tokens), 0.0
        if runner is not None and runner.serves(work):
            wait, load = min(truth.ends(machine, runner, now)), 0.0
            if sim.pending and all(min(truth.ends(machine, each, now)) >= wait for each in sim.runners.values()):
                harm = sim.pending * decode  # they wait for it to be idle
        else:
            wait, load, harm = self._load(machine, work, runner, now)
            runner = None
        wait += load + truth.prefill(machine, runner, demand)
        return wait + self.temper.decode * decode + self.temper.others * harm

    def _load(self, machine: Machine, work: Work, own: Runner | None, now: float) -> tuple[float, float, float]:
        """When the load begins, how long it takes, and what others lose by it."""
        sim, truth = machine.sim, self.truth
        under_way = sim.load_job
        wait = max(0.0, under_way.wake_at - now) if under_way is not None else 0.0
        if under_way is not None and under_way.work.file is work.file and under_way.work.options == work.options:
            return wait, 0.0, 0.0
        ahead = {job.work.file.weights: job.work.file for job in sim.pending_jobs}
        wait += sum(sim.load_seconds(file, now) for file in ahead.values())
        if work.file.weights in ahead:  # its load is on its way; who comes now joins it
            return wait + truth.drained(machine, now)[0], 0.0, 0.0
        load = sim.load_seconds(work.file, now)
        if own is not None:
            return wait + max(truth.ends(machine, own, now)), load, truth.missed(own, machine, now, load)
        loaded = len(sim.runners) + (under_way is not None) + len(ahead)
        if loaded < sim.profile.max_loaded and sim.vram_used + work.file.size <= sim.profile.vram:
            return wait, load, 0.0
        drained, victim = truth.drained(machine, now)
        return wait + drained, load, truth.missed(victim, machine, now, load) if victim is not None else 0.0
