"""The servers there are: of each what outlives a crash of its actors, and of all together whether they take work."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from actors.kit.mailbox import Mailbox
from actors.state.messages import LeaseOpened, ServerMail
from fleet.common.errors import ServerNotFound
from fleet.common.ids import ModelName, ServerId
from fleet.config import Config
from fleet.scheduling.server_state import Health, ServerState

if TYPE_CHECKING:
    from actors.state.lease import Lease
    from actors.state.transfer import Transfer
    from actors.upstream.control_client import OllamaClient
    from actors.upstream.pool import Pool


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
    looked_for: set[ModelName] = field(default_factory=set)
    """Models of its inventory that a request has loaded and a probe was asked for, which has not shown them yet."""
    unloaded: dict[ModelName, float] = field(default_factory=dict)
    """When a request had a model unloaded: a list that was asked for before that is wrong about it."""
    probe_at: float | None = None
    """When the next round of probes begins, on Trio's clock; None while one is under way."""
    watched: bool = False
    """Whether the server's actor looks at leases and transfers once a second; it stops when there are none."""

    def watch(self) -> None:
        """Something was opened on the server."""
        if not self.watched:
            self.watched = True
            self.mailbox.cast(LeaseOpened())

    def greet(self) -> None:
        """A connection to the server was made: if it counts as down, it may be back, so look at once.

        What a round of probes itself connects tells nothing new; it will be judged by its answers.
        """
        if self.state.health is Health.UNHEALTHY and self.probe_at is not None:
            self.probe_now.set()

    def look_for(self, model: ModelName) -> None:
        """A request has just been answered by a model that the last probe did not show as loaded: look again.

        Once, until a probe shows it or an interval has passed without: there are servers that never say what is loaded,
        and models that go at once.
        """
        state = self.state
        if model not in self.looked_for and model in state.models and state.health is Health.HEALTHY:
            self.looked_for.add(model)
            self.probe_now.set()


class Servers(dict[ServerId, ServerCell]):
    """All servers by id. Writer: the membership. Everything is synchronous.

    A dict itself, not one inside of it: the dispatcher and the exchanges look servers up for every request.
    """

    __slots__ = ("draining", "ended", "in_flight")

    def __init__(self) -> None:
        super().__init__()
        self.draining = False
        """Whether the fleet shuts down: no new work, what runs goes on."""
        self.in_flight = 0
        """How many leases are open. Counted by the leases, not added up: every retry asks."""
        self.ended = trio.lowlevel.ParkingLot()
        """Unparked whenever a lease or transfer ends, and when a server is drained or ordered about."""

    def follow(self, before: Config, now: Config) -> None:
        """By other settings of health, everybody is probed at once: else a long interval would first have to end."""
        if now.health != before.health:
            for cell in self.values():
                cell.probe_now.set()

    def drain(self) -> None:
        """The fleet shuts down."""
        self.draining = True

    def cell(self, server: ServerId) -> ServerCell:
        """One of them; raises ServerNotFound."""
        cell = self.get(server)
        if cell is None:
            raise ServerNotFound(f"server '{server}' not found")
        return cell

    def known(self, model: ModelName) -> bool:
        """Whether any server, even a dead one, lists the model."""
        return any(model in cell.state.models for cell in self.values())
