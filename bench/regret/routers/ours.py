"""The fleet's own scheduler, driven as the dispatcher and the leases drive it, in simulated time.

Only public faces are used: the scheduler's `submit`, `withdraw`, `freed`, `serve`, `sweep` and its index, the breaker's
`record` and `tick`, the bans. So it stands or falls with what the product does. What it leaves out: the retry budget,
the recovery tests of half-open breakers (traffic does that), and the memory of models that did not fit.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, get_args

from bench.regret.demand import VisibleRequest
from bench.regret.router import Ending, KnownServer, Order, Refuse, Send, Sighting
from bench.regret.routers.planning import CANDIDATE, Planning
from fleet.breakers.failure_classes import classify, convict
from fleet.breakers.gate import Gate
from fleet.breakers.last_resort import last_resort
from fleet.breakers.outcomes import Refused, Signal, is_death, kind
from fleet.breakers.state_machine import Breaker, BreakerSettings
from fleet.common.errors import FleetError
from fleet.common.ids import ModelName, Pair, RequestId, ServerId
from fleet.common.model_names import canonical
from fleet.config import Config, ServerSpec
from fleet.config.schema.balancing import Policy
from fleet.protocol.refusals import WITNESSED
from fleet.scheduling.bans import BanKind, Bans
from fleet.scheduling.choice.balancing import make_policy
from fleet.scheduling.cooldown import FAST
from fleet.scheduling.scheduler.decisions import Grant, SchedulerLimits, SchedulerMemory
from fleet.scheduling.scheduler.scheduler import Scheduler
from fleet.scheduling.server_state import Health, ServerState
from fleet.scheduling.wait_queue import Ticket

OURS: Final[tuple[str, ...]] = get_args(get_args(Policy)[0])
"""Every policy that the configuration allows."""
UNCAPPED: Final = 64
"""More than any server of a scenario serves at once."""
_HARMLESS: Final = (Signal.SUCCESS, Signal.NEUTRAL)


@dataclass(slots=True)
class Attempt:
    """A grant in use, or used up while what it has taught is still owed to the breaker."""

    grant: Grant
    generation: int
    started: float
    ended: Ending | None = None


@dataclass(slots=True)
class Case:
    """One request: its ticket while it waits, its attempt while it runs, and refusals that wait for a witness."""

    request: VisibleRequest
    ticket: Ticket | None = None
    attempt: Attempt | None = None
    owed: list[Attempt] = field(default_factory=list)
    back: bool = False
    """Whether it comes back from a server that has enough to do, to the place that it had in line."""
    place: int = 0
    suspect: bool = False
    """Whether a runner died while it was there."""


class Ours:
    """The scheduler with one of the policies that can be configured."""

    queues = True

    def __init__(self, policy: str, servers: Sequence[KnownServer], seed: int) -> None:
        self._planning = Planning() if policy == CANDIDATE else None
        config = Config.model_validate({"load_balancer": {"policy": policy}})
        self.name = policy
        self.wake_at = math.inf
        self._patience = config.timeouts.queue
        self._dice = random.Random(seed)
        self._settings = BreakerSettings.from_config(config.circuit_breaker)
        limits = SchedulerLimits(
            ageing=config.queue.ageing_seconds,
            max_size=config.queue_size,
            candidates=config.load_balancer.candidates,
            grace=config.queue.no_server_grace,
        )
        chosen = self._planning.policy if self._planning else make_policy(config, self._dice)
        self.board = Scheduler(limits, chosen, self._dice, SchedulerMemory.fresh(limits), 0.0)
        self._states = {ServerId(each.id): _state(each, learns=policy == CANDIDATE) for each in servers}
        for state in self._states.values():
            self.board.index.update(state, 0.0)
        self._bans = Bans()
        self._breakers: dict[Pair, Breaker] = {}
        self._numbers = count(1)
        self._cases: dict[int, Case] = {}
        self._waiting: dict[int, int] = {}
        """The request's number by its ticket's."""
        self._deadlines: list[tuple[float, int]] = []
        self._sweep_at = math.inf

    # ---- what happens to requests

    def arrived(self, request: VisibleRequest, now: float) -> Sequence[Order]:
        case = self._cases.setdefault(request.number, Case(request))
        case.ticket = ticket = Ticket(
            case.place if case.back else next(self._numbers),
            RequestId(str(request.number)),
            canonical(request.model),
            0,
            request.arrived,
            excluded=frozenset(ServerId(each) for each in request.excluded),
            back=case.back,
            alone=case.suspect,
        )
        case.place = ticket.number
        if self._planning is not None:
            self._planning.arrived(ticket, request, now)
        try:
            grant = self.board.submit(ticket, now)
        except FleetError as refusal:
            return self._refuse(case, type(refusal).__name__, now)
        if grant is not None:
            return (self._take(case, grant, now),)
        self._waiting[ticket.number] = request.number
        since = request.arrived if case.back else now
        heapq.heappush(self._deadlines, (since + self._patience, ticket.number))
        self._sweep_at = min(self._sweep_at, now + self.board.rules.grace / 2)
        self._set_alarm()
        return ()

    def began(self, number: int, now: float) -> Sequence[Order]:
        """As `actors/requests` has it, an answer convicts those who have refused before."""
        case = self._cases[number]
        orders: list[Order] = []
        if self._planning is not None and case.attempt is not None:
            self._planning.spoke(case.attempt.grant, case.request, now)
        owed, case.owed = case.owed, []
        for attempt in owed:
            assert attempt.ended is not None
            assert isinstance(attempt.ended.end, Refused)
            orders += self._learn(attempt, convict(attempt.ended.end), now)
        return orders

    def ended(self, ending: Ending, now: float) -> Sequence[Order]:
        case = self._cases[ending.number]
        attempt, case.attempt = case.attempt, None
        assert attempt is not None
        attempt.ended = ending
        grant = attempt.grant
        if self._planning is not None:
            self._planning.ended(grant, ending, now)
        grant.server.ledger.close(grant.number)
        self.board.memory.total.close(grant.number)
        orders: list[Order] = []
        case.back = False
        if isinstance(ending.end, Refused) and ending.end.busy:
            case.back = True
            grant.server.hold_back(grant.model, ending.end.asked, now)
            if grant.gate is not None and grant.gate.generation == attempt.generation:
                grant.gate.give_back()
        elif isinstance(ending.end, Refused):
            case.owed.append(attempt)
            if ending.end.deadly and case.suspect:  # its own doing: nobody is blamed
                owed, case.owed = case.owed, []
                for each in owed:
                    orders += self._learn(each, Signal.NEUTRAL, now)
            case.suspect |= ending.end.deadly
            if grant.gate is not None and grant.gate.generation == attempt.generation:
                grant.gate.give_back()
        else:
            self._note_figures(attempt, ending, now)
            orders += self._learn(attempt, classify(ending.end), now)
        if ending.final:
            orders += self._close(case, now)
        self.board.freed(grant.server, grant.model, now)
        return [*orders, *self._serve(grant.server, now)]

    def left(self, number: int, now: float) -> None:
        case = self._cases.pop(number)
        if case.ticket is not None:
            self.board.withdraw(case.ticket)
            self._waiting.pop(case.ticket.number, None)

    def _close(self, case: Case, now: float) -> list[Order]:
        """Nobody will say more: two who said the same blame the request, else each refusal proves what it proves."""
        del self._cases[case.request.number]
        ends = [attempt.ended.end for attempt in case.owed if attempt.ended is not None]
        refusals = [end for end in ends if isinstance(end, Refused)]
        agreed = len(refusals) > 1 and refusals[-1].ground in WITNESSED and refusals[-2].agrees(refusals[-1])
        orders: list[Order] = []
        for attempt, end in zip(case.owed, refusals, strict=True):
            orders += self._learn(attempt, Signal.NEUTRAL if agreed else classify(end), now)
        return orders

    def _refuse(self, case: Case, why: str, now: float) -> list[Order]:
        return [*self._close(case, now), Refuse(case.request.number, why)]

    def _take(self, case: Case, grant: Grant, now: float) -> Send:
        if self._planning is not None and case.ticket is not None:
            self._planning.sent(case.ticket, grant, now)
        generation = grant.gate.generation if grant.gate is not None else 0
        case.ticket, case.attempt = None, Attempt(grant, generation, now)
        return Send(case.request.number, grant.server.id)

    # ---- what servers show

    def probed(self, sighting: Sighting, now: float) -> Sequence[Order]:
        state = self._states[ServerId(sighting.server)]
        rows: dict[ModelName, dict[str, object]] = {
            canonical(model): {"name": model, "context_length": context} for model, context in sighting.resident.items()
        }
        state.resident = rows
        state.last_response = 0.01
        if self._planning is not None:
            self._planning.probed(state, now)
        was_down = state.health is Health.UNHEALTHY
        state.judge(Health.HEALTHY if sighting.reachable else Health.UNHEALTHY, now, "probed")
        if was_down and sighting.reachable:
            for pair, breaker in self._breakers.items():
                if pair.server == state.id:
                    breaker.returned(now)
        self.board.index.update(state, now)
        self.board.moved(state)
        return self._serve(state, now)

    def woken(self, now: float) -> Sequence[Order]:
        orders: list[Order] = []
        for ban_pair in self._bans.expire(now):
            self._states[ban_pair.server].stats_of(ban_pair.model).cooling.rested()
            orders += self._moved(ban_pair, now)
        for pair, breaker in list(self._breakers.items()):
            if breaker.wake_at <= now and breaker.tick(now):
                orders += self._moved(pair, now)
        orders += self._give(self.board.serve_due(now), now)
        while self._deadlines and self._deadlines[0][0] <= now:
            number = self._waiting.pop(heapq.heappop(self._deadlines)[1], None)
            if number is not None:
                orders += self._give_up(number, "QueueTimeout", now)
        if now >= self._sweep_at:
            for ticket, refusal in self.board.sweep(now):
                orders += self._give_up(self._waiting.pop(ticket.number), type(refusal).__name__, now)
            self._sweep_at = now + self.board.rules.grace / 2 if len(self.board.queue) else math.inf
        self._set_alarm()
        return orders

    def _give_up(self, number: int, why: str, now: float) -> list[Order]:
        case = self._cases[number]
        assert case.ticket is not None
        self.board.withdraw(case.ticket)
        return self._refuse(case, why, now)

    def _set_alarm(self) -> None:
        breakers = min((breaker.wake_at for breaker in self._breakers.values()), default=math.inf)
        queue = self._deadlines[0][0] if self._deadlines else math.inf
        self.wake_at = min(self._sweep_at, self._bans.next_expiry(), breakers, queue, self.board.next_due)

    def _serve(self, server: ServerState, now: float) -> list[Order]:
        orders = self._give(self.board.serve(server, now), now)
        for stirred in self.board.index.stirred():
            orders += self._serve(self.board.index.servers[stirred], now)
        for pairs in self.board.index.stranded():
            best = last_resort((self._breakers[pair] for pair in pairs if pair in self._breakers), now)
            if best is not None and best.rescue(now):
                orders += self._moved(best.pair, now)
        self._set_alarm()
        return orders

    def _give(self, granted: Iterable[tuple[Ticket, Grant]], now: float) -> list[Order]:
        return [self._take(self._cases[self._waiting.pop(ticket.number)], grant, now) for ticket, grant in granted]

    # ---- what attempts teach, as leases tell it

    def _note_figures(self, attempt: Attempt, ending: Ending, now: float) -> None:
        stats = attempt.grant.server.stats_of(attempt.grant.model)
        if ending.stats is not None and ending.stats.tokens and ending.stats.eval:
            stats.speed.add(ending.stats.tokens / (ending.stats.eval / 1e9), now)

    def _learn(self, attempt: Attempt, signal: Signal, now: float) -> list[Order]:
        grant, ending = attempt.grant, attempt.ended
        assert ending is not None
        pair = Pair(grant.server.id, grant.model)
        orders: list[Order] = []
        if signal is Signal.FAILURE and is_death(ending.end) and not grant.server.counts_death(grant.model, now):
            signal = Signal.NEUTRAL
        if signal is not Signal.NEUTRAL:
            stats = grant.server.stats_of(grant.model)
            stats.success.add(1.0 if signal is Signal.SUCCESS else 0.0, now)
            if signal is Signal.SUCCESS:
                orders += self._cool_no_more(pair, attempt.started, now)
                if ending.began is not None:
                    stats.first_byte.add(ending.began - attempt.started, now)
            elif now - attempt.started < FAST:
                orders += self._cool(pair, attempt.started, now)
        return [*orders, *self._record(pair, signal, attempt, now)]

    def _record(self, pair: Pair, signal: Signal, attempt: Attempt, now: float) -> list[Order]:
        assert attempt.ended is not None
        breaker = self._breakers.get(pair)
        if breaker is None:
            if signal in _HARMLESS:
                return []
            gate = Gate()
            breaker = self._breakers[pair] = Breaker.fresh(pair, self._settings, self._dice, gate, now)
            self._states[pair.server].gates[pair.model] = gate
        changed = breaker.record(signal, kind(attempt.ended.end), now, attempt.generation)
        self._set_alarm()
        return self._moved(pair, now) if changed else []

    def _cool(self, pair: Pair, started: float, now: float) -> list[Order]:
        seconds = self._states[pair.server].stats_of(pair.model).cooling.failed(started, now)
        if not seconds:
            return []
        self._bans.add(pair, "failed within moments", now, kind=BanKind.COOLDOWN, until=now + seconds)
        self._set_alarm()
        return self._moved(pair, now)

    def _cool_no_more(self, pair: Pair, started: float, now: float) -> list[Order]:
        state = self._states[pair.server]
        stats = state.stats_of(pair.model)
        if not (stats.cooling.strikes and stats.cooling.succeeded(started) and pair.model in state.cooling):
            return []
        self._bans.lift(pair, BanKind.COOLDOWN)
        return self._moved(pair, now)

    def _moved(self, pair: Pair, now: float) -> list[Order]:
        state = self._states[pair.server]
        state.barred, state.cooling = self._bans.barred(pair.server, now), self._bans.cooling(pair.server, now)
        self.board.index.update_pair(state, pair.model, now)
        self.board.moved(state)
        return self._serve(state, now)


def _state(server: KnownServer, *, learns: bool) -> ServerState:
    """`learns`: the policy finds out by itself how many a runner serves at once."""
    spec: dict[str, Any] = {"id": server.id, "url": f"http://{server.id}:11434"}
    if server.slots is not None or learns:
        spec["max_concurrency"] = server.slots or UNCAPPED
    state = ServerState(ServerSpec.model_validate(spec), health=Health.HEALTHY, seen=True)
    sizes = dict(zip(server.models, server.sizes, strict=False))
    state.models = {canonical(model): {"name": model, "size": sizes.get(model)} for model in server.models}
    return state
