"""What a board hands out (grants, decisions), keeps to (rules) and never forgets (memory)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from fleet.breakers.gate import Gate
from fleet.common.ids import ModelName, RequestId, ServerId
from fleet.scheduling.choice.balancing import Parts, Scored
from fleet.scheduling.estimates.forecast.terms import AnswerTold, Outcome
from fleet.scheduling.rates import ServiceRate
from fleet.scheduling.server_state import ServerState
from fleet.scheduling.slots import Slots
from fleet.scheduling.wait_queue import Hope


@dataclass(slots=True, eq=False)
class AttemptEnd:
    """What came of a decision. Seconds since the grant; `told`: what the answer said of itself."""

    outcome: Outcome
    first_byte: float | None
    total: float
    told: AnswerTold | None


@dataclass(slots=True, eq=False)
class Decision:
    """Why a request went where it went, as it was found; put into words only when somebody asks.

    `scored`: the ready servers looked at, the chosen one first, with the parts of their scores. One that was alone was
    compared with nobody, so it has no parts. `hope`: what it had waited for. Nobody changes a decision or a grant after
    it was made (they are not frozen, because that would triple the cost of making one), but to say what came of it.
    """

    at: float
    request_id: RequestId
    model: ModelName
    policy: str
    waited: float
    scored: Sequence[Scored]
    parts: Sequence[str] = ()
    """The names of the parts."""
    hope: Hope | None = None
    fallback: bool = False
    """See `Ticket.fallback`."""
    end: AttemptEnd | None = None
    """None while it is open, and of policies that do not plan."""

    def ended(self, end: AttemptEnd) -> None:
        """The attempt is over."""
        self.end = end

    @property
    def chosen(self) -> ServerId:
        return self.scored[0][0].id

    @property
    def candidates(self) -> tuple[tuple[ServerId, Parts], ...]:
        """Who was looked at, by name."""
        return tuple((server.id, parts) for server, parts in self.scored)


@dataclass(slots=True, eq=False)
class Grant:
    """A slot taken: entered in both ledgers under `number`, with a permit of the gate when that is half-open."""

    number: int
    server: ServerState
    model: ModelName
    gate: Gate | None
    decision: Decision


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """The limits a board keeps to. Seconds; `max_in_flight` is the fleet-wide cap (None: the sum of the slots)."""

    ageing: float = 30.0
    max_size: int = 1000
    max_in_flight: int | None = None
    candidates: int = 16
    grace: float = 2.0
    may_wait: bool = True
    decisions: int = 256


@dataclass(slots=True)
class ServiceAverage:
    """The mean wait of everything granted so far, in seconds."""

    count: int = 0
    total: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.total += seconds

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0


@dataclass(slots=True)
class SchedulerMemory:
    """What outlives a crash of the dispatcher: the fleet-wide ledger, rates, decisions, counters."""

    total: Slots
    decisions: deque[Decision]
    rate: ServiceRate = field(default_factory=ServiceRate)
    rates: dict[ModelName, ServiceRate] = field(default_factory=dict)
    numbers: int = 0
    queued: int = 0
    dropped: int = 0
    waited: ServiceAverage = field(default_factory=ServiceAverage)
    paused: bool = False
    paused_since: float | None = None
    """When it last began or ended; None: it never was."""
    paused_by: str = ""

    @classmethod
    def fresh(cls, rules: SchedulerLimits) -> SchedulerMemory:
        return cls(Slots(_cap(rules)), deque(maxlen=rules.decisions))

    def keep_to(self, rules: SchedulerLimits) -> None:
        """Other rules hold from now on: what runs beyond a lower cap goes on, the oldest decisions are forgotten."""
        self.total.capacity = _cap(rules)
        if self.decisions.maxlen != rules.decisions:
            self.decisions = deque(self.decisions, maxlen=rules.decisions)


def _cap(rules: SchedulerLimits) -> float:
    return float("inf") if rules.max_in_flight is None else rules.max_in_flight
