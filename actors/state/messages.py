"""Every message that an actor may find in its mailbox: who sends it, and what bounds how many there can be.

(The breakers' own messages live beside them.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from fleet.common.ids import ModelName, Pair, ServerId
from fleet.scheduling.server_state import Order, Row

if TYPE_CHECKING:
    import trio

    from actors.kit.mailbox import Promise
    from actors.state.ticket import PendingTicket
    from fleet.observability.tracing.trace_context import Trace
    from fleet.scheduling.bans import Ban, BanKind

# ---- to the dispatcher


@dataclass(frozen=True, slots=True)
class Submitted:
    """A request wants a slot. From: exchange. Bound: one per open client connection and attempt."""

    ticket: PendingTicket


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A waiting request gave up, or was refused by a shutdown. From: exchange, system. Bound: one per ticket."""

    ticket: PendingTicket


@dataclass(frozen=True, slots=True)
class SlotFreed:
    """A lease ended; its ledger entries are gone already. From: lease. Bound: one per lease."""

    pair: Pair


@dataclass(frozen=True, slots=True)
class ServerChanged:
    """Health, administrative state or inventory moved. From: server actor. Bound: a few per health round."""

    server: ServerId


@dataclass(frozen=True, slots=True)
class ServerGone:
    """The server was removed. From: system. Bound: one per removal."""

    server: ServerId


@dataclass(frozen=True, slots=True)
class GateMoved:
    """A breaker changed its verdict, or a runner takes more than was known. From: breaker registry, leases.

    Bound: one per transition, and one per request that shows it.
    """

    pair: Pair


@dataclass(frozen=True, slots=True)
class BanPair:
    """Keep a pair away until `until` (monotonic; inf: until lifted). `done`: the ban, or why there is none.

    From: the exchange's passage; admin. Bound: one per attempt or call.
    """

    pair: Pair
    reason: str
    until: float
    cooldown: bool = False
    by: str = ""
    done: Promise[Ban] | None = None


@dataclass(frozen=True, slots=True)
class LiftBans:
    """End all bans of a server, a model and a kind; None stands for any. `done`: those that held.

    From: admin. Bound: one per call.
    """

    server: ServerId | None = None
    model: ModelName | None = None
    kind: BanKind | None = None
    done: Promise[tuple[Ban, ...]] | None = None


@dataclass(frozen=True, slots=True)
class PauseQueue:
    """Grant nothing (or go on). `done`: it is so now. From: admin. Bound: one per call."""

    paused: bool
    by: str = ""
    done: Promise[None] | None = None


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """The fleet's configuration is another one. From: the scheduler's state. Bound: one per change."""


DispatcherMail = (
    Submitted
    | Withdrawn
    | SlotFreed
    | ServerChanged
    | ServerGone
    | GateMoved
    | BanPair
    | LiftBans
    | PauseQueue
    | Reconfigured
)

# ---- to a server actor


@dataclass(frozen=True, slots=True)
class Probed:
    """A health round ended. `error` empty: healthy; `kind`: its word. Rows None: that call failed, keep what is known.

    `asked` is set for those who asked before the round `began` (a verdict on an earlier round is not theirs).

    From: the server's health actor. Bound: one per round.
    """

    error: str
    tags: list[Row] | None
    resident: list[Row] | None
    version: str | None
    seconds: float
    asked: trio.Event | None = None
    kind: str = ""
    began: float = 0.0


@dataclass(frozen=True, slots=True)
class SetAdmin:
    """Drain, activate, maintain; `until` (monotonic) ends a maintenance. `done`: it has been obeyed.

    From: admin, roster. Bound: one per call.
    """

    order: Order
    why: str
    by: str = ""
    until: float = math.inf
    done: Promise[None] | None = None


@dataclass(frozen=True, slots=True)
class LeaseOpened:
    """An idle server got its first lease, or a transfer began: watch for stalls.

    From: dispatcher, transfer. Bound: one per lease or transfer.
    """


@dataclass(frozen=True, slots=True)
class LeaseClosed:
    """A lease of a draining server ended. From: lease. Bound: one per lease."""


@dataclass(frozen=True, slots=True)
class ModelMissing:
    """The server answered "no such model" though its inventory lists it. From: exchange. Bound: one per attempt."""

    model: ModelName


@dataclass(frozen=True, slots=True)
class Unwelcome:
    """The server refuses requests of the fleet as such: 401, 403, 407. From: exchange. Bound: one per attempt."""

    status: int
    model: ModelName


@dataclass(frozen=True, slots=True)
class Welcome:
    """It has answered one after all. From: lease. Bound: one per lease."""


@dataclass(frozen=True, slots=True)
class Unloads:
    """A request has told the server to unload the model as soon as nobody uses it.

    From: the exchange whose request it was. Bound: one per lease.
    """

    model: ModelName


ServerMail = Probed | SetAdmin | LeaseOpened | LeaseClosed | ModelMissing | Unwelcome | Welcome | Unloads

# ---- to the recorder

OURSELVES: Final = "fleet:ai-status"
"""The client of requests that the fleet makes for itself. No address reads like that, and no key's name has a colon."""


class Try(NamedTuple):
    """One attempt of a request. Times on Trio's clock; `first_byte` is None if nothing came."""

    server: str
    outcome: str
    started: float
    first_byte: float | None
    ended: float


@dataclass(slots=True)
class RequestRecord:
    """One finished request. From: exchange. Bound: the recorder's own; what does not fit is counted as dropped."""

    request_id: str
    endpoint: str
    model: str
    client: str
    server: str
    outcome: str
    status: int
    attempts: int
    queue_seconds: float
    first_byte_seconds: float | None
    total_seconds: float
    chunks: int
    prompt_tokens: int | None
    output_tokens: int | None
    stream: bool
    load_seconds: float | None = None
    runner: Mapping[str, object] | None = None
    """The runner options that it asked for."""
    tries: tuple[Try, ...] = ()
    """Its attempts, in order."""
    began: float = 0.0
    """When it arrived, on Trio's clock."""
    trace: Trace | None = None
    """Its place in a trace; None while traces are off."""
    by: str = ""
    """The name of the key that was shown, never the key; empty without one."""
