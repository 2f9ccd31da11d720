"""The oracle that keeps requests in line: it waits for the better server, and buys a load when that is worth it.

Of a line (one model with one context) those come first whose client has the fewest waiting. Each is meant for the
server where it will be done soonest, with those before it reckoned in, and sent when a slot is free there; a load is
bought when people have stood for longer than it costs (ski rental), and its victim gets no more work meanwhile.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.regret.demand import Demand, VisibleRequest
from bench.regret.machine import Machine
from bench.regret.router import Ending, Order, Refuse, Send, Sighting
from bench.regret.routers.oracle import Oracle, Temper
from bench.regret.world import World
from fleet.simulator import Runner

DEEP: Final = 8
"""How many of a line are looked at beyond those that can be sent."""
SOON: Final = 0.05
"""Seconds between two looks at whether a load is worth it by now."""

Key = tuple[str, int | None]


@dataclass(slots=True)
class Line:
    """Who waits for one model with one context. `rent`: the seconds that they have stood, together."""

    waiting: dict[int, VisibleRequest] = field(default_factory=dict)
    rent: float = 0.0


@dataclass(slots=True)
class Claim:
    """A load that was bought: by whose request, and at whose expense."""

    key: Key
    number: int
    victim: Runner | None


class HoldingOracle(Oracle):
    """As above. `temper.others` is what a load must have been worth before it is bought."""

    def __init__(self, world: World, temper: Temper) -> None:
        super().__init__(world, temper)
        self._lines: dict[Key, Line] = {}
        self._claims: dict[str, Claim] = {}
        self._looked = 0.0
        self._slots: dict[str, list[float]] = {}

    def arrived(self, request: VisibleRequest, now: float) -> Sequence[Order]:
        demand = self.demand(request.number)
        fit = [each for each in self.machines if self._may(each, request, demand)]
        if not fit or fit[0].work(demand).poison:
            return (Refuse(request.number, "known to fail"),)
        line = self._lines.setdefault((demand.model, demand.num_ctx), Line())
        self._collect_rent(now)
        line.waiting[request.number] = request
        return self._look(now)

    def _may(self, machine: Machine, request: VisibleRequest, demand: Demand) -> bool:
        return machine.id not in request.excluded and self.truth.fit(machine, demand)

    def began(self, number: int, now: float) -> Sequence[Order]:
        for server, claim in list(self._claims.items()):
            if claim.number == number:
                del self._claims[server]
        return self._look(now)

    def ended(self, ending: Ending, now: float) -> Sequence[Order]:
        return [*self.began(ending.number, now)]

    def left(self, number: int, now: float) -> None:
        for line in self._lines.values():
            line.waiting.pop(number, None)

    def probed(self, sighting: Sighting, now: float) -> Sequence[Order]:
        return self._look(now)

    def woken(self, now: float) -> Sequence[Order]:
        return self._look(now)

    # ---- one look at everything

    def _collect_rent(self, now: float) -> None:
        for line in self._lines.values():
            line.rent += len(line.waiting) * (now - self._looked)
        self._looked = now

    def _look(self, now: float) -> list[Order]:
        self._collect_rent(now)
        self._slots = {}
        self.wake_at = math.inf
        orders: list[Order] = []
        waiting = [(min(line.waiting), key, line) for key, line in self._lines.items() if line.waiting]
        for _, key, line in sorted(waiting, key=lambda each: each[0]):
            orders += self._serve(line, now)
            if line.waiting:
                orders += self._buy(key, line, now)
        loads = [each.sim.load_job.wake_at for each in self.machines if each.sim.load_job is not None]
        if any(line.waiting for line in self._lines.values()):
            self.wake_at = max(now + 1e-3, min([self.wake_at, *(each + 1e-6 for each in loads)]))
        return orders

    def _serve(self, line: Line, now: float) -> list[Order]:
        orders: list[Order] = []
        crowd = Counter(each.client for each in line.waiting.values())
        ordered = sorted(line.waiting.values(), key=lambda each: (crowd[each.client], each.number))
        deep = 0
        for request in ordered:
            if deep >= DEEP:
                break
            found = self._best(request, now)
            if found is None:
                break
            machine, wait, service = found
            heapq.heapreplace(self._slots[machine.id + "/" + request.model], wait + service)
            if wait <= 0.0:
                orders.append(Send(request.number, machine.id))
                del line.waiting[request.number]
            else:
                deep += 1
        if not line.waiting:
            line.rent = 0.0
        return orders

    def _best(self, request: VisibleRequest, now: float) -> tuple[Machine, float, float] | None:
        """Of the servers where the model is in memory: which, when it has a slot, and how long it will take there."""
        demand, best, least = self.demand(request.number), None, math.inf
        for machine in self.machines:
            runner = (
                machine.sim.runners.get(machine.files[demand.model].weights) if demand.model in machine.files else None
            )
            if runner is None or not self._may(machine, request, demand) or not runner.serves(machine.work(demand)):
                continue
            claim = self._claims.get(machine.id)
            if claim is not None and claim.victim is runner:
                continue
            slots = self._slots_of(machine, runner, now)
            prefill, decode = (
                self.truth.prefill(machine, runner, demand),
                self.truth.decode(machine, runner, demand.tokens),
            )
            cost = slots[0] + prefill + self.temper.decode * decode
            if cost < least:
                best, least = (machine, slots[0], prefill + decode), cost
        return best

    def _slots_of(self, machine: Machine, runner: Runner, now: float) -> list[float]:
        key = machine.id + "/" + runner.file.name
        if key not in self._slots:
            self._slots[key] = self.truth.ends(machine, runner, now)
        return self._slots[key]

    # ---- loads

    def _buy(self, key: Key, line: Line, now: float) -> list[Order]:
        """Send the first of a line to be loaded for, if that is worth it by now."""
        if any(claim.key == key for claim in self._claims.values()):
            return []
        first = min(line.waiting.values(), key=lambda each: each.number)
        demand = self.demand(first.number)
        offers = [
            (*self._price(machine, demand, now), machine)
            for machine in self.machines
            if self._may(machine, first, demand) and self._cold(machine, demand)
        ]
        if not offers:
            return []
        price, victim, machine = min(offers, key=lambda each: each[0])
        owed = self.temper.others * price - line.rent
        if victim is not None and owed > 0.0:
            self.wake_at = min(self.wake_at, now + max(SOON, owed / len(line.waiting)))
            return []
        line.rent = 0.0
        del line.waiting[first.number]
        self._claims[machine.id] = Claim(key, first.number, victim)
        return [Send(first.number, machine.id)]

    def _cold(self, machine: Machine, demand: Demand) -> bool:
        if machine.id in self._claims or machine.sim.load_job is not None or machine.sim.pending:
            return False
        work = machine.work(demand)
        runner = machine.sim.runners.get(work.file.weights)
        return runner is None or not runner.serves(work)

    def _price(self, machine: Machine, demand: Demand, now: float) -> tuple[float, Runner | None]:
        """Drain, load, and what others lose, for each who loses it; and the victim, if there has to be one."""
        sim, work, truth = machine.sim, machine.work(demand), self.truth
        load = sim.load_seconds(work.file, now)
        victim = sim.runners.get(work.file.weights)
        if victim is None:
            if len(sim.runners) < sim.profile.max_loaded and sim.vram_used + work.file.size <= sim.profile.vram:
                return load, None
            _, victim = truth.drained(machine, now)
            assert victim is not None, "there is no room, so there is somebody"
        drained = max(truth.ends(machine, victim, now))
        crowd = [each for line in self._lines_of(machine, victim) for each in line.waiting]
        standing = truth.decode(machine, victim, sum(self.demand(each).tokens for each in crowd)) / victim.slots
        seconds = drained + load + truth.missed(victim, machine, now, load) + standing
        return seconds * max(1, len(crowd)), victim

    def _lines_of(self, machine: Machine, victim: Runner) -> list[Line]:
        """Who stands for the victim: all of them are set back, and served to the end before there is a change."""
        default = machine.sim.profile.num_ctx
        served = (victim.file.name, victim.options.num_ctx)
        return [line for (model, context), line in self._lines.items() if (model, context or default) == served]
