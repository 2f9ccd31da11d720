"""What a breaker's mailbox takes. The registry alone puts things in; each message says on whose behalf."""

from __future__ import annotations

from dataclasses import dataclass

from actors.kit.mailbox import Promise
from fleet.breakers.outcomes import Signal
from fleet.breakers.recovery_log import Failure
from fleet.breakers.state_machine import BreakerState, BreakerView


@dataclass(frozen=True, slots=True)
class RecordOutcome:
    """An attempt ended. Sent for: `Lease.close` and `Lease.settle`. Bound: one per lease, and so per attempt.

    `gives_back`: the permit of the trial, if it was one, comes with it.
    """

    signal: Signal
    kind: str
    generation: int
    at: float
    gives_back: bool = True


@dataclass(frozen=True, slots=True)
class Force:
    """Put the breaker into a state by order. Sent for: the admin API. Bound: one per admin request."""

    state: BreakerState
    by: str
    reply: Promise[BreakerView]


@dataclass(frozen=True, slots=True)
class Reset:
    """Close it and forget. Sent for: the admin API. Bound: one per admin request."""

    reply: Promise[BreakerView]


@dataclass(frozen=True, slots=True)
class TryNow:
    """Run a recovery test as soon as possible. Sent for: the admin API. Bound: one per admin request.

    The reply is None when no test can be made now: not half-open, a test or trial is out, or the tester declines.
    """

    reply: Promise[bool | None]


@dataclass(frozen=True, slots=True)
class TryEnded:
    """A recovery test is over; None: it could not be made, or was given up after it had begun (`cancelled`).

    `failure` says why it did not pass. Sent for: the actor's own child. Bound: one at a time.
    """

    passed: bool | None
    generation: int
    seconds: float = 0.0
    failure: Failure | None = None
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Alive:
    """A trial under way moves. Sent for: the server's actor. Bound: one per lease and second, while half-open."""

    at: float


@dataclass(frozen=True, slots=True)
class Rescue:
    """Nobody else is left for the model. Sent for: the dispatcher. Bound: one per look, while it is to be tried."""


@dataclass(frozen=True, slots=True)
class Returned:
    """The server was down and is back. Sent for: its probes. Bound: one per round that finds it so."""


@dataclass(frozen=True, slots=True)
class Rearm:
    """The settings changed. Sent for: the configuration. Bound: one per reload."""


BreakerMail = RecordOutcome | Force | Reset | TryNow | TryEnded | Alive | Rescue | Returned | Rearm
