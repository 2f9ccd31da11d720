"""What outlives a crash: made in the supervisor's frame, handed to every incarnation of an actor."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import trio

from actors.kit.mailbox import Mailbox
from actors.servers.model_lookup import Lookout
from actors.state.messages import DispatcherMail, LeaseOpened, ServerMail
from actors.state.ticket import PendingTicket
from actors.state.totals import Tallies
from actors.storage.journal import Journal
from fleet.breakers.outcomes import Signal
from fleet.breakers.recovery_log import Book
from fleet.common.ids import Pair, ServerId
from fleet.models.load_times import LoadTimes
from fleet.models.runner_options import Demand
from fleet.observability.metrics.registry import Meter
from fleet.protocol.missing_endpoints import MissingRoutes
from fleet.scheduling.bans import Bans
from fleet.scheduling.decisions import Memory
from fleet.scheduling.rates import RetryBudget
from fleet.scheduling.server_state import ServerState
from fleet.security.rate_limit import Limiter

if TYPE_CHECKING:
    from actors.observability.tracing import Tracer
    from actors.state.lease import Lease
    from actors.state.request_log import Recorder
    from actors.state.transfer import Transfer
    from actors.upstream.control_client import OllamaClient
    from actors.upstream.pool import Pool
    from fleet.config import Config


class Outcomes(Protocol):
    """Who is told how each attempt ended (the breaker registry)."""

    def record(
        self, pair: Pair, signal: Signal, kind: str, generation: int = 0, *, gives_back: bool = True
    ) -> None: ...

    def alive(self, pair: Pair) -> None: ...


@dataclass(slots=True, eq=False)
class ServerCell:
    """One server: its state, connections, open leases, mailbox."""

    state: ServerState
    pool: Pool
    client: OllamaClient
    mailbox: Mailbox[ServerMail]
    leases: dict[int, Lease] = field(default_factory=dict)
    transfers: set[Transfer] = field(default_factory=set)
    probe_now: trio.Event = field(default_factory=trio.Event)
    probed: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    rounds: int = 0
    looked: float = -math.inf
    """When the last round of probes began, on Trio's clock."""
    probe_at: float | None = None
    """When the next round of probes begins, on Trio's clock; None while one is under way."""
    watched: bool = False
    """Whether the server's actor looks at leases and transfers once a second; it stops when there are none."""

    def watch(self) -> None:
        """Something was opened on the server."""
        if not self.watched:
            self.watched = True
            self.mailbox.cast(LeaseOpened())


@dataclass(slots=True)
class Reloads:
    """How reading the configuration anew went. `since` (epoch seconds) and `text` while the file cannot be used."""

    succeeded: int = 0
    failed: int = 0
    at: float | None = None
    """When one succeeded last, epoch seconds."""
    since: float | None = None
    text: str = ""

    @property
    def ok(self) -> bool:
        """Whether the last one did."""
        return self.since is None


@dataclass(slots=True, eq=False)
class FleetCell:
    """The whole fleet, as the dispatcher, the leases and the exchanges see it."""

    config: Config
    memory: Memory
    dispatcher: Mailbox[DispatcherMail]
    breakers: Outcomes
    budget: RetryBudget
    recorder: Recorder
    bans: Bans = field(default_factory=Bans)
    servers: dict[ServerId, ServerCell] = field(default_factory=dict)
    tickets: dict[int, PendingTicket] = field(default_factory=dict)
    numbers: int = 0
    chance: random.Random = field(default_factory=random.Random)
    wall: Callable[[], float] = field(default=lambda: 0.0)
    draining: bool = False
    now: Callable[[], float] = field(default_factory=lambda: trio.lowlevel.current_clock().current_time)
    """`trio.current_time` by the shortest way: it is asked several times per request."""
    journal: Journal = field(default_factory=Journal)
    demand: Demand = field(default_factory=Demand)
    loads: LoadTimes = field(default_factory=LoadTimes)
    recoveries: Book = field(default_factory=Book)
    """What was tried to bring servers back, and what breakers did."""
    reloads: Reloads = field(default_factory=Reloads)
    hop: bytes = b""
    """This fleet's name in the header that betrays loops."""
    ended: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    """Unparked whenever a lease or transfer ends."""
    missing: MissingRoutes = field(default_factory=MissingRoutes)
    """What servers that are too old do not have."""
    meter: Meter = field(default_factory=Meter)
    """What Prometheus counts."""
    limiters: defaultdict[str, Limiter] = field(default_factory=lambda: defaultdict(Limiter))
    """What clients have left of their rate limits, by listener."""
    tracer: Tracer | None = None
    """Who traces requests; None while that is off."""
    tally: Tallies = field(init=False)
    """Figures of finished requests."""
    lookout: Lookout = field(init=False)
    """Who looks for models that no server lists."""

    def __post_init__(self) -> None:
        self.tally = Tallies(self.now, self.wall, self.journal)
        self.lookout = Lookout(self)

    @property
    def live(self) -> int:
        """How many requests are open: waiting for a slot or holding one."""
        return len(self.tickets) + sum(len(cell.leases) for cell in self.servers.values())

    def epoch(self, moment: float) -> float:
        """Seconds since 1970 of a moment on our clock, for what is kept or shown."""
        return self.wall() - (self.now() - moment)

    def moment(self, epoch: float) -> float:
        """The moment on our clock of seconds since 1970; may lie before our clock began."""
        return self.now() - (self.wall() - epoch)

    def next_number(self) -> int:
        self.numbers += 1
        return self.numbers
