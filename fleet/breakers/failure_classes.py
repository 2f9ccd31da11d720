"""What counts as failed: one row per outcome, one column for each of those who judge by it.

They do not judge alike, and shall not. Statistics (shares of errors of the admin API, totals) count every request that
got no answer, whoever is to blame. Alerts, the verdict, the live feed, the page and the files for Prometheus count what
the fleet or its servers did wrong: nobody is to be woken up because a client asks for a model that does not exist, or
because an operator cancels. The breaker judges single attempts, and by what a refusal is about (`GROUNDS`): a status
alone does not say whose fault it was.

The rows are outcomes of requests; an attempt has the same words. What has no row here is a failure for everybody.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from fleet.breakers.outcomes import End, Incomplete, Refused, Signal, StreamError, kind
from fleet.protocol.refusals import Ground, is_crash_text


class FailureKind(enum.Enum):
    """What sort of failure an outcome stands for, as far as the breaker's threshold is concerned."""

    TRANSIENT = "transient"
    CRASH = "crash"
    OVERLOAD = "overload"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class FailureClass:
    """One outcome (`outcomes.kind`, or a `FleetError`'s reason in lower case), and what it counts as.

    `breaker`: what the breaker of an attempt that ended so learns; `ground`: that is up to what the refusal is about;
    None: no attempt ends so. `sort` is what kind of failure it takes it for, where it does. `left`: the client went
    away, which is status 499. `queue`: the queue refused it, and why.
    """

    outcome: str
    statistics: bool
    alerts: bool
    breaker: Signal | Literal["ground"] | None = None
    sort: FailureKind = FailureKind.OTHER
    left: bool = False
    queue: str = ""


def _fine(outcome: str, breaker: Signal | None, *, left: bool = False) -> FailureClass:
    """Nobody was failed."""
    return FailureClass(outcome, statistics=False, alerts=False, breaker=breaker, left=left)


def _own_doing(outcome: str, breaker: Signal | Literal["ground"] | None = None) -> FailureClass:
    """Not answered, for good reason, or because somebody wanted it."""
    return FailureClass(outcome, statistics=True, alerts=False, breaker=breaker)


def _failure(
    outcome: str,
    breaker: Signal | Literal["ground"] | None = None,
    sort: FailureKind = FailureKind.OTHER,
    queue: str = "",
) -> FailureClass:
    """The fleet, or a server, has failed a client."""
    return FailureClass(outcome, statistics=True, alerts=True, breaker=breaker, sort=sort, queue=queue)


REFUSED_4XX: Final = _own_doing("refused_4xx", "ground")
REFUSED: Final = _failure("refused_xxx", "ground")
UNKNOWN: Final = _failure("anything else", Signal.FAILURE)

CLASSES: Final = (
    # ---- what an attempt ends with
    _fine("completed", Signal.SUCCESS),
    _fine("incomplete", Signal.NEUTRAL),  # a stream without a final record is normal for Ollama
    _fine("client_left", Signal.NEUTRAL, left=True),
    _fine("client_stalled", Signal.NEUTRAL, left=True),
    _failure("refused_429", "ground", FailureKind.OVERLOAD),
    REFUSED_4XX,
    _failure("refused_500", "ground", FailureKind.CRASH),
    _failure("refused_502", "ground", FailureKind.TRANSIENT),
    _failure("refused_503", "ground", FailureKind.TRANSIENT),
    _failure("refused_504", "ground", FailureKind.TRANSIENT),
    REFUSED,
    _failure("stream_error", "ground", FailureKind.CRASH),
    _failure("backend_unreachable", Signal.FAILURE, FailureKind.TRANSIENT),
    _failure("connect_timeout", Signal.FAILURE, FailureKind.TRANSIENT),
    _failure("first_byte_timeout", Signal.FAILURE, FailureKind.TRANSIENT),
    _failure("idle_timeout", Signal.FAILURE, FailureKind.TRANSIENT),
    _failure("backend_broke", Signal.FAILURE, FailureKind.TRANSIENT),
    _failure("bad_answer", Signal.FAILURE),
    _failure("backend_refused", Signal.FAILURE),
    _failure("backend_error", Signal.FAILURE),
    _failure("revoked", Signal.NEUTRAL),
    _own_doing("request_cancelled", Signal.NEUTRAL),
    # ---- what only a request ends with
    _own_doing("queue_cancelled"),
    _failure("queue_full", queue="full"),
    _failure("queue_timeout", queue="timeout"),
    _failure("total_timeout"),
    _failure("no_server"),
    _failure("out_of_descriptors"),
    _failure("loop_detected"),
    _failure("internal_error"),
    _own_doing("model_not_found"),
    _own_doing("route_missing"),
    _own_doing("server_not_found"),
    _own_doing("invalid_request"),
    _own_doing("request_body_timeout"),
    _own_doing("poisonous_request"),
    _own_doing("body_too_large"),
    _own_doing("unauthorized"),
    _own_doing("forbidden"),
    _own_doing("shutting_down"),
    UNKNOWN,
)
"""The table. `refused_4xx` and `refused_xxx` are all statuses without a row of their own."""

_ROWS: Final = {row.outcome: row for row in CLASSES}
STALLED: Final = "idle_timeout"
"""The outcome of a stream that fell silent."""
NO_ERRORS: Final = frozenset(row.outcome for row in CLASSES if not row.statistics)
"""Outcomes that statistics do not count as errors; every other one, with a row or without, they do."""
LEFT: Final = frozenset(row.outcome for row in CLASSES if row.left)
"""Outcomes in which the client left, or did not read any more."""
REJECTED: Final = {row.outcome: row.queue for row in CLASSES if row.queue}
"""Outcomes of requests that the queue had no room or no time for, and how it says so."""


class Weight(NamedTuple):
    """What a refusal on some ground proves: by itself, and when another server then answered the same request."""

    alone: Signal
    convicted: Signal


GROUNDS: Final[Mapping[Ground, Weight]] = {
    Ground.CLIENT: Weight(Signal.NEUTRAL, Signal.NEUTRAL),
    Ground.MODEL: Weight(Signal.NEUTRAL, Signal.NEUTRAL),
    Ground.ROUTE: Weight(Signal.NEUTRAL, Signal.NEUTRAL),
    Ground.BUSY: Weight(Signal.NEUTRAL, Signal.NEUTRAL),
    Ground.STANDING: Weight(Signal.NEUTRAL, Signal.FAILURE),
    Ground.MEMORY: Weight(Signal.NEUTRAL, Signal.FAILURE),
    Ground.DOUBT: Weight(Signal.NEUTRAL, Signal.FAILURE),
    Ground.SIZE: Weight(Signal.NEUTRAL, Signal.SOFT_FAILURE),  # smaller requests may be welcome
    Ground.GATEWAY: Weight(Signal.FAILURE, Signal.FAILURE),
    Ground.CRASH: Weight(Signal.FAILURE, Signal.FAILURE),
}


def class_of(outcome: str) -> FailureClass:
    """The row of an outcome."""
    found = _ROWS.get(outcome)
    if found is not None:
        return found
    if outcome.startswith("refused_"):
        return REFUSED_4XX if outcome.startswith("refused_4") else REFUSED
    return UNKNOWN


def failed(outcome: str) -> bool:
    """Whether a request that ended so was failed by the fleet or its servers: the column of the alerts."""
    return class_of(outcome).alerts


def classify(end: End) -> Signal:
    """What the breaker of this server and model should learn of an attempt, as long as nobody has seen another."""
    if isinstance(end, Incomplete) and end.early:
        return Signal.SOFT_FAILURE  # half a strike: with tools, words that were repeated may have been kept back
    learned = class_of(kind(end)).breaker
    if learned == "ground":
        return GROUNDS[_ground(end)].alone
    return learned or Signal.NEUTRAL  # an attempt that ended for the request's reasons proves nothing


def convict(end: Refused) -> Signal:
    """What the breaker should learn of a server that refused a request which another then answered."""
    learned = class_of(kind(end)).breaker
    if learned == "ground":
        return GROUNDS[_ground(end)].convicted
    return learned or Signal.NEUTRAL


def _ground(end: End) -> Ground:
    match end:
        case Refused():
            return end.ground
        case StreamError(text=text) if is_crash_text(text):
            return Ground.CRASH
        case _:
            return Ground.DOUBT


_UNCOUNTED: Final = sorted(row.outcome for row in CLASSES if not row.alerts and row is not REFUSED_4XX)
HARMLESS_PATTERN: Final = "|".join((*_UNCOUNTED, "refused_4([013-9].|2[0-8]|xx)"))
"""The outcomes that alerts do not count, as an (anchored) regular expression for Prometheus."""
