"""The state of one backend server: health x administrative state, inventory, slots, gates, statistics.

Writers: the server's actor (health, inventory, administrative state), the roster (what it is), the dispatcher (opens
leases), leases (close themselves), breaker actors (gates). Everybody else reads.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fleet.breakers.gate import Gate, GateState
from fleet.breakers.holds import Hold
from fleet.common.ids import ANY_MODEL, ModelName, ServerId
from fleet.scheduling.estimates.runner_slots import UNSEEN
from fleet.scheduling.moving_average import PairStats
from fleet.scheduling.slots import Slots

if TYPE_CHECKING:
    from fleet.config import ServerSpec

Row = dict[str, object]


class Health(enum.Enum):
    """What the probes say."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Admin(enum.Enum):
    """What the operator says."""

    ACTIVE = "active"
    DRAINING = "draining"
    DRAINED = "drained"
    MAINTENANCE = "maintenance"


class Order(enum.Enum):
    """What moves the administrative state. `EMPTIED`: the last open lease of a draining server ended."""

    DRAIN = "drain"
    EMPTIED = "emptied"
    ACTIVATE = "activate"
    MAINTAIN = "maintain"


MOVES: Final = {
    (Admin.ACTIVE, Order.DRAIN): Admin.DRAINING,
    (Admin.MAINTENANCE, Order.DRAIN): Admin.DRAINING,
    (Admin.DRAINING, Order.EMPTIED): Admin.DRAINED,
    (Admin.DRAINING, Order.ACTIVATE): Admin.ACTIVE,
    (Admin.DRAINED, Order.ACTIVATE): Admin.ACTIVE,
    (Admin.MAINTENANCE, Order.ACTIVATE): Admin.ACTIVE,
    (Admin.ACTIVE, Order.MAINTAIN): Admin.MAINTENANCE,
    (Admin.DRAINING, Order.MAINTAIN): Admin.MAINTENANCE,
    (Admin.DRAINED, Order.MAINTAIN): Admin.MAINTENANCE,
    (Admin.MAINTENANCE, Order.MAINTAIN): Admin.MAINTENANCE,
}
"""An order that is not in the table for the present state changes nothing."""


_MOST_BYTES: Final = 2**60
"""More than any server has: a sum of such sizes stays exact for every reader."""
_MOST_HOLDS: Final = 64
"""Models of which a server's refusals, and its runners' deaths, are remembered."""
_MOST_LIMITS: Final = 4096
_ONE_DEATH: Final = 1.0
"""Seconds within which those who were there when a runner died hear of it."""
_HEALTHY: Final = Health.HEALTHY  # a module's name is found faster than an enum's member
_ACTIVE: Final = Admin.ACTIVE


def vram_of(row: Row) -> int:
    """Bytes of video memory that one model takes, as its row of /api/ps says; 0 for what can be none."""
    size = row.get("size_vram")
    return size if isinstance(size, int) and 0 < size < _MOST_BYTES else 0


@dataclass(slots=True, eq=False)
class ServerState:
    """Everything the fleet knows of one server. Times are on the caller's monotonic clock, in seconds."""

    spec: ServerSpec
    id: ServerId = field(init=False)
    health: Health = Health.UNKNOWN
    admin: Admin = Admin.ACTIVE
    added: float = 0.0
    since: float = 0.0
    """When health last changed."""
    seen: bool = False
    """Whether its inventory was ever read."""
    why: str = "not probed yet"
    admin_since: float = 0.0
    admin_why: str = "never ordered otherwise"
    by: str = ""
    """Who gave the last order."""
    until: float = math.inf
    """When a maintenance ends by itself."""
    models: dict[ModelName, Row] = field(default_factory=dict)
    resident: dict[ModelName, Row] = field(default_factory=dict)
    version: str | None = None
    last_response: float | None = None
    failed_rounds: int = 0
    gates: dict[ModelName, Gate] = field(default_factory=dict)
    barred: set[ModelName] = field(default_factory=set)
    """Banned or cooling down."""
    cooling: set[ModelName] = field(default_factory=set)
    """Those that are only cooling down: served all the same when nobody else can."""
    holds: dict[ModelName, Hold] = field(default_factory=dict)
    """What it has said to have enough of."""
    died: dict[ModelName, float] = field(default_factory=dict)
    """When its runners died last, as far as that has been counted."""
    unwelcome: str = ""
    """Why requests of the fleet are refused although probes are answered; empty if they are not."""
    stats: dict[ModelName, PairStats] = field(default_factory=dict)
    ledger: Slots = field(init=False)
    learns: bool = field(init=False)
    """Whether what its runners are seen to serve at once bounds what they get."""
    limits: dict[ModelName, int] = field(default_factory=dict)
    """How many that is, where it has been seen; written by who learns it."""
    last_granted: int = 0

    def __post_init__(self) -> None:
        self.id = self.spec.id
        self.ledger = Slots(self.spec.cap)
        self.learns = self.spec.learns

    def follow(self, spec: ServerSpec) -> None:
        """The operator describes it anew."""
        self.spec, self.learns = spec, spec.learns
        self.ledger.capacity = spec.cap

    @property
    def capacity(self) -> float:
        """How many requests it serves at once: as it was told, or as its runners were seen to, those in memory now."""
        if not self.learns:
            return self.ledger.capacity
        runners = {*self.resident, *self.ledger.models()}
        return max(self.ledger.in_use, sum(self.limits.get(model, UNSEEN) for model in runners), UNSEEN)

    @property
    def in_use(self) -> int:
        return self.ledger.in_use

    @property
    def usable(self) -> bool:
        """Healthy and active: may be given work."""
        return self.health is _HEALTHY and self.admin is _ACTIVE

    @property
    def vram(self) -> int:
        """Bytes of video memory that the models in memory take, as the server says."""
        return sum(map(vram_of, self.resident.values()))

    def routable(self, model: ModelName) -> bool:
        """Whether this server could serve the model if it had a free slot."""
        if not self.usable:
            return False
        return model == ANY_MODEL or (
            model in self.models and model not in self.barred and self.gate_state(model) is not GateState.SHUT
        )

    def spare(self, model: ModelName) -> bool:
        """Whether this server could serve the model, but is passed over as long as another can."""
        return (
            model in self.cooling
            and self.usable
            and model in self.models
            and self.gate_state(model) is not GateState.SHUT
        )

    def spare_ready(self, model: ModelName) -> bool:
        """`spare`, with a free slot, and the gate admits."""
        if not self.spare(model) or self.ledger.free < 1 or not self.open_to(model):
            return False
        return (gate := self.gates.get(model)) is None or gate.admits

    def shut_out(self, model: ModelName) -> bool:
        """Whether nothing keeps this server from serving the model but a shut gate (or a cooldown besides)."""
        return (
            model in self.gates
            and self.gates[model].state is GateState.SHUT
            and self.usable
            and model in self.models
            and (model not in self.barred or model in self.cooling)
        )

    def ready(self, model: ModelName) -> bool:
        """Whether this server can take a request for the model right now: a free slot, routable, the gate admits.

        Written out, because it is asked of every candidate for every request.
        """
        ledger = self.ledger
        if ledger.capacity - len(ledger.numbers) < 1 or self.health is not _HEALTHY or self.admin is not _ACTIVE:
            return False
        if model != ANY_MODEL and (model not in self.models or model in self.barred):
            return False
        if (self.holds or self.learns) and not self.open_to(model):
            return False
        return not self.gates or (gate := self.gates.get(model)) is None or gate.admits

    def ready_pinned(self, model: ModelName) -> bool:
        """Likewise for a request that insists on this server, whatever its inventory, bans and gates say."""
        return self.usable and self.ledger.free >= 1 and self.open_to(model)

    def open_to(self, model: ModelName) -> bool:
        """Whether one more request for the model is not more than the server has just said, or is seen, to take."""
        if self.learns and self.ledger.of_model(model) >= self.limits.get(model, UNSEEN):
            return False
        hold = self.holds.get(model)
        return hold is None or hold.admits(self.ledger.of_model(model))

    def ready_alone(self, model: ModelName) -> bool:
        """`ready`, for a request beside which nobody shall run: its runner is idle, or not there."""
        ledger, hold = self.ledger, self.holds.get(model)
        if ledger.free < 1 or ledger.of_model(model) or not (self.routable(model) or self.spare(model)):
            return False
        if hold is not None and hold.limit < 1:
            return False
        return (gate := self.gates.get(model)) is None or gate.admits

    def hold_back(self, model: ModelName, asked: float, now: float) -> None:
        """The server has refused one more than it takes now; see `Hold.refused`. The lease is out of the ledger."""
        self._hold_of(model).refused(self.ledger.of_model(model), asked, now)

    def reserve(self, model: ModelName, until: float) -> None:
        """Keep the pair for a request that has to be alone."""
        self._hold_of(model).reserve(until)

    def reserved(self, model: ModelName) -> bool:
        """Whether it is kept for such a request."""
        hold = self.holds.get(model)
        return hold is not None and hold.reserved

    def counts_death(self, model: ModelName, at: float) -> bool:
        """Whether a runner's death is one that has not been counted: all who were there tell of the same one."""
        known = self.died.get(model, -math.inf)
        if abs(at - known) < _ONE_DEATH:
            return False
        if len(self.died) >= _MOST_HOLDS and model not in self.died:
            del self.died[min(self.died, key=self.died.__getitem__)]
        self.died[model] = max(at, known)
        return True

    def release(self, model: ModelName) -> None:
        """Nobody has to be alone there any more."""
        hold = self.holds.get(model)
        if hold is not None:
            hold.reserved = False

    def show_limit(self, model: ModelName, limit: int) -> bool:
        """Note how many the model's runner takes; True if that is more than before."""
        before = self.limits.get(model, UNSEEN)
        if model in self.limits or len(self.limits) < _MOST_LIMITS:
            self.limits[model] = limit
        return limit > before

    def _hold_of(self, model: ModelName) -> Hold:
        hold = self.holds.get(model)
        if hold is None:
            if len(self.holds) >= _MOST_HOLDS:  # names of models are the client's to invent
                del self.holds[min(self.holds, key=lambda name: self.holds[name].due)]
            hold = self.holds[model] = Hold()
        return hold

    def relax(self, now: float) -> bool:
        """Think over what is held back; True if more may be sent than before."""
        more = False
        for model, hold in list(self.holds.items()):
            if hold.over(now):
                del self.holds[model]
                more = True
            else:
                more |= hold.relaxed(now)
        return more

    def gate_state(self, model: ModelName) -> GateState:
        gate = self.gates.get(model)
        return GateState.OPEN if gate is None else gate.state

    def order(self, order: Order, now: float, why: str, by: str = "", until: float = math.inf) -> bool:
        """Apply an operator's order; True if the administrative state changed (or its reason and end did)."""
        target = MOVES.get((self.admin, order))
        if target is None:
            return False
        if target is not self.admin:
            self.admin_since = now
        self.admin, self.until = target, until
        if order is not Order.EMPTIED:  # the last step of a drain: who ordered that, and why, still holds
            self.admin_why, self.by = why, by
        return True

    def start_anew(self, now: float, why: str) -> None:
        """Forget what the probes said: this is another machine now."""
        self.health, self.since, self.why = Health.UNKNOWN, now, why
        self.seen, self.failed_rounds, self.version, self.last_response = False, 0, None, None
        self.models, self.resident, self.stats, self.holds, self.died, self.limits = {}, {}, {}, {}, {}, {}
        self.unwelcome = ""

    def judge(self, health: Health, now: float, why: str) -> bool:
        """Note a verdict of the probes; True if health changed."""
        if health is self.health:
            return False
        self.health, self.since, self.why = health, now, why
        return True

    def stats_of(self, model: ModelName) -> PairStats:
        """The statistics of one model here, made when first asked for (bounded by the inventory)."""
        stats = self.stats.get(model)
        if stats is None:
            stats = self.stats[model] = PairStats.fresh()
        return stats
