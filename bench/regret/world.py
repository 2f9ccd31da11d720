"""Simulated time: servers, clients and a router, moved on from event to event. No clock and no task anywhere.

All dice are thrown before a run begins, or belong to its servers; so a run is the same whenever it is made again.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from bench.regret.demand import Demand, Progress, Talk, visible
from bench.regret.machine import Attempt, Machine, Mischief
from bench.regret.router import Ending, KnownServer, Order, Refuse, Router, Send
from fleet.breakers.outcomes import (
    ClientLeft,
    Completed,
    End,
    Failed,
    Incomplete,
    Refused,
    StreamError,
    retryable_elsewhere,
)
from fleet.common.errors import BackendBroke, Phase
from fleet.simulator import Busy, JobFailure, ModelFile, Profile, SimServer, Stage, stats_of

MOST_ATTEMPTS: Final = 3
"""Per request, as the fleet has it by default."""
QUICK_REFUSAL: Final = 0.02
CUT_AFTER: Final = 0.1
"""Seconds of decoding after which a server that leaves out the last record stops."""
BUSY_TEXT: Final = "server busy, please try again.  maximum pending requests exceeded"
CRASH_TEXT: Final = "model runner has unexpectedly stopped, this may be due to resource limitations"
MEMORY_TEXT: Final = "model requires more system memory (9.9 GiB) than is available (9.1 GiB)"
_OPEN: Final = (Stage.DONE, Stage.FAILED, Stage.LEFT)


@dataclass(frozen=True, slots=True)
class Server:
    """One server of a scenario: what it is, what it holds, and what the operator says of its slots."""

    id: str
    profile: Profile
    files: tuple[ModelFile, ...]
    slots: int | None = 4
    warm: tuple[str, ...] = ()
    """Models that are in memory when the run begins."""

    @property
    def known(self) -> KnownServer:
        names, sizes = [file.name for file in self.files], [file.size for file in self.files]
        return KnownServer(self.id, tuple(names), self.slots, tuple(sizes))


@dataclass(frozen=True, slots=True)
class Setup:
    """A whole scenario, ready to run against any router."""

    servers: tuple[Server, ...]
    talks: tuple[Talk, ...]
    settle: float = 0.0
    """Seconds whose requests and loads do not count."""
    probe_interval: float = 5.0
    happenings: tuple[tuple[float, Callable[[World], None]], ...] = ()
    """What happens to the servers, and when."""
    seed: int = 0
    beside: frozenset[str] = frozenset()
    """Clients whose own requests do not count: they are what happens to the others."""


@dataclass(slots=True)
class Outcome:
    """What a run has shown. Seconds."""

    requests: list[Progress]
    loads: int
    wasted: float
    """Seconds of slots, and of loads, whose work nobody got."""
    served: dict[str, int] = field(default_factory=dict)
    """Answers begun, by server."""


class World:
    """One run. `run` may be called once."""

    def __init__(self, setup: Setup) -> None:
        dice = random.Random(setup.seed)
        self.setup = setup
        self.now = 0.0
        self.machines = {each.id: _machine(each, dice.random()) for each in setup.servers}
        self.progress: dict[int, Progress] = {}
        self.attempts: dict[int, Attempt] = {}
        self.wasted = 0.0
        self.served = dict.fromkeys(self.machines, 0)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._touched: list[Attempt] = []
        self._following: dict[int, tuple[Talk, int]] = {}
        self._open = sum(len(talk.turns) for talk in setup.talks)
        self._loads_before = 0
        self._router: Router | None = None

    @property
    def router(self) -> Router:
        assert self._router is not None, "the run has begun"
        return self._router

    def run(self, router: Router, limit: float = 1e7) -> Outcome:
        """Everything, until each request is over or `limit` is reached (what is open then has failed)."""
        self._router = router
        self.at(self.setup.settle, self._settled)
        for when, happening in self.setup.happenings:
            self.at(when, partial(happening, self))
        for count, machine in enumerate(self.machines.values()):
            self._probe(machine)
            first = self.setup.probe_interval * (count + 1) / len(self.machines)
            self.at(first, partial(self._keep_probing, machine))
        for talk in self.setup.talks:
            self.at(talk.start, partial(self._ask, talk, 0))
        while self._open and self._step(limit):
            pass
        for progress in self.progress.values():
            if not progress.outcome:
                progress.outcome, progress.ended = "never served", self.now
        return Outcome(list(self.progress.values()), self._loads() - self._loads_before, self.wasted, self.served)

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Have something done at a time."""
        heapq.heappush(self._events, (when, next(self._order), what))

    def _step(self, limit: float) -> bool:
        machine = min(self.machines.values(), key=lambda each: each.sim.next_event)
        due, wake = machine.sim.next_event, self.router.wake_at
        event = self._events[0][0] if self._events else math.inf
        now = max(self.now, min(due, wake, event))
        if now > limit or math.isinf(now):
            return False
        self.now = now
        if due <= now:
            machine.sim.advance(now)
        elif event <= now:
            heapq.heappop(self._events)[2]()
        else:
            self._obey(self.router.woken(now))
        self._look()
        return True

    def _settled(self) -> None:
        """From now on it counts."""
        self._loads_before = self._loads()
        self.wasted = 0.0

    def _loads(self) -> int:
        return sum(machine.sim.loads_begun for machine in self.machines.values())

    # ---- clients

    def _ask(self, talk: Talk, turn: int) -> None:
        demand = talk.turns[turn].demand
        settled = self.now >= self.setup.settle and demand.client not in self.setup.beside
        self.progress[demand.number] = Progress(demand, self.now, settled)
        if turn + 1 < len(talk.turns):
            self._following[demand.number] = (talk, turn + 1)
        if demand.patience < math.inf:
            self.at(self.now + demand.patience, partial(self._lose_patience, demand.number))
        self._submit(demand)

    def _submit(self, demand: Demand) -> None:
        progress = self.progress[demand.number]
        self._obey(self.router.arrived(visible(demand, progress.arrived, progress.excluded), self.now))

    def _lose_patience(self, number: int) -> None:
        progress = self.progress[number]
        if progress.outcome or progress.first is not None:
            return
        attempt = self.attempts.get(number)
        self._over(progress, "left")
        if attempt is None:
            self.router.left(number, self.now)
        else:
            self._end(attempt, ClientLeft())

    def _over(self, progress: Progress, outcome: str) -> None:
        progress.outcome, progress.ended = outcome, self.now
        self._open -= 1
        follow = self._following.pop(progress.demand.number, None)
        if follow is not None:
            talk, turn = follow
            self.at(self.now + talk.turns[turn].think, partial(self._ask, talk, turn))

    # ---- attempts

    def _obey(self, orders: Sequence[Order]) -> None:
        for order in orders:
            progress = self.progress[order.number]
            if isinstance(order, Refuse):
                if not progress.outcome:
                    self._over(progress, order.why)
            elif progress.outcome or order.number in self.attempts:
                raise AssertionError(f"{self.router.name} sends {order.number}, which is over or on its way")
            else:
                self._send(progress, self.machines[order.server], order)

    def _send(self, progress: Progress, machine: Machine, order: Send) -> None:
        progress.attempts += 1
        attempt = self.attempts[order.number] = Attempt(progress.demand, machine, self.now)
        if machine.mischief is Mischief.REFUSES:
            self.at(self.now + QUICK_REFUSAL, partial(self._end_if_open, attempt, Refused(503, "service unavailable")))
            return
        try:
            job = machine.sim.submit(machine.work(progress.demand), self.now, partial(self._touched.append, attempt))
        except Busy:
            self.at(self.now, partial(self._end_if_open, attempt, Refused(503, BUSY_TEXT)))
            return
        attempt.job = job
        self._touched.append(attempt)

    def _look(self) -> None:
        """What the servers' steps have changed for attempts. Orders that follow may touch others."""
        while self._touched:
            touched, self._touched[:] = list(self._touched), []
            for attempt in touched:
                if self.attempts.get(attempt.demand.number) is attempt and attempt.job is not None:
                    self._follow_up(attempt)

    def _follow_up(self, attempt: Attempt) -> None:
        job = attempt.job
        assert job is not None
        if job.stage is Stage.LOADING and attempt.loading_since is None:
            attempt.loading_since = self.now
        if attempt.began is None and (job.stage is Stage.DECODE or job.stage is Stage.DONE):
            self._began(attempt, job.decode_at)
        if job.stage is Stage.DONE:
            self._end(attempt, Completed(200))
        elif job.stage is Stage.FAILED:
            self._end(attempt, _failure(job.failure, attempt.began is not None))

    def _began(self, attempt: Attempt, when: float) -> None:
        attempt.began = when
        self.served[attempt.machine.id] += 1
        progress = self.progress[attempt.demand.number]
        if progress.first is None:
            progress.first = when
        if attempt.machine.mischief is Mischief.CUTS_OFF:
            self.at(self.now + CUT_AFTER, partial(self._end_if_open, attempt, Incomplete(200, early=True)))
        self._obey(self.router.began(attempt.demand.number, self.now))

    def _end_if_open(self, attempt: Attempt, end: End) -> None:
        if self.attempts.get(attempt.demand.number) is attempt:
            self._end(attempt, end)

    def _end(self, attempt: Attempt, end: End) -> None:
        number, job = attempt.demand.number, attempt.job
        del self.attempts[number]
        progress = self.progress[number]
        done = isinstance(end, Completed)
        if job is not None and not done:
            self.wasted += attempt.lost(self.now)
            if job.stage not in _OPEN:
                attempt.machine.sim.leave(job, self.now)
        again = self._again(progress, attempt, end)
        if not again and not progress.outcome:
            self._over(progress, "completed" if done else _word(end))
        stats = stats_of(job) if job is not None and done else None
        machine = attempt.machine.id
        ending = Ending(number, machine, end, attempt.started, attempt.began, stats, final=not again)
        self._obey(self.router.ended(ending, self.now))
        if again:
            self._submit(progress.demand)

    def _again(self, progress: Progress, attempt: Attempt, end: End) -> bool:
        """Whether it is tried on another server: nothing was answered yet, and that may help."""
        if progress.outcome or attempt.began is not None or progress.attempts >= MOST_ATTEMPTS:
            return False
        if isinstance(end, Refused) and end.busy and self.router.queues:
            progress.attempts -= 1
            return True
        if isinstance(end, Refused):
            if any(isinstance(heard, Refused) and heard.agrees(end) for heard in progress.refusals):
                return False
            progress.refusals.append(end)
        progress.excluded |= {attempt.machine.id}
        return retryable_elsewhere(end)

    # ---- probes

    def _keep_probing(self, machine: Machine) -> None:
        self._probe(machine)
        self.at(self.now + self.setup.probe_interval, partial(self._keep_probing, machine))

    def _probe(self, machine: Machine) -> None:
        machine.sim.advance(self.now)
        self._obey(self.router.probed(machine.sighting(), self.now))


def _machine(server: Server, seed: float) -> Machine:
    sim = SimServer(server.profile, server.files, random.Random(seed))
    machine = Machine(server.id, sim)
    machine.warm(server.warm)
    return machine


def _failure(why: JobFailure | None, begun: bool) -> End:
    if why is JobFailure.MEMORY:
        return Refused(500, MEMORY_TEXT)
    if why is JobFailure.CRASH:
        return StreamError(CRASH_TEXT) if begun else Refused(500, CRASH_TEXT)
    return Failed(BackendBroke("the connection broke", Phase.BODY if begun else Phase.HEADERS))


def _word(end: End) -> str:
    return f"refused {end.status}" if isinstance(end, Refused) else type(end).__name__.lower()
