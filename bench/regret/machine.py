"""A simulated server as the referee sees it: all of it, and what it is up to."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass

from bench.regret.demand import Demand
from bench.regret.router import Sighting
from fleet.simulator import RunnerOptions, SimServer, SimulatedJob, Work


class Mischief(enum.Enum):
    """How a server fails that looks healthy to probes."""

    NONE = enum.auto()
    REFUSES = enum.auto()
    """503 within moments."""
    CUTS_OFF = enum.auto()
    """200, and an end without the last record."""


class Machine:
    """One server. `unreachable` and `mischief` may be changed while the run goes on."""

    def __init__(self, id: str, sim: SimServer) -> None:
        self.id = id
        self.sim = sim
        self.files = {file.name: file for file in sim.shelf}
        self.mischief = Mischief.NONE
        self.unreachable = False
        self._works: dict[int, Work] = {}

    def work(self, demand: Demand) -> Work:
        """The request as this server understands it; kept, since oracles ask often."""
        known = self._works.get(demand.number)
        if known is not None:
            return known
        file, profile = self.files[demand.model], self.sim.profile
        work = self._works[demand.number] = Work(
            file,
            RunnerOptions(num_ctx=demand.num_ctx or profile.num_ctx),
            demand.keep_alive,
            demand.prompt,
            demand.prompt_tokens,
            (demand.answer, *[""] * (demand.tokens - 1)),
            automatic=demand.num_ctx is None,
            poison=bool(profile.poison) and profile.poison in demand.prompt,
        )
        return work

    def warm(self, models: Iterable[str]) -> None:
        """Have these models in memory at time 0."""
        models = tuple(models)
        if not models:
            return
        for model in models:
            self.sim.submit(Work(self.files[model], RunnerOptions(self.sim.profile.num_ctx), math.inf), -1e6)
        self.sim.advance(0.0)

    def sighting(self) -> Sighting:
        """What `/api/ps` shows now."""
        if self.unreachable:
            return Sighting(self.id, False, {})
        return Sighting(self.id, True, {each.file.name: each.context for each in self.sim.runners.values()})


@dataclass(eq=False, slots=True)
class Attempt:
    """A request under way on a server."""

    demand: Demand
    machine: Machine
    started: float
    job: SimulatedJob | None = None
    loading_since: float | None = None
    began: float | None = None

    def lost(self, now: float) -> float:
        """Seconds that the server has spent on it in vain: of its slot, or of its load if that ends with it."""
        job = self.job
        if job is None:
            return 0.0
        if job.prefill_at:
            return now - job.prefill_at
        return now - self.loading_since if self.loading_since is not None else 0.0
