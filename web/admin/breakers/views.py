"""How a circuit breaker looks in the admin API: its numbers, its state and what it waits for, the score of its pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeVar

from msgspec import field

from fleet.breakers.failure_classes import FailureKind, class_of
from fleet.breakers.values import BreakerState, BreakerView
from fleet.common.ids import ModelName
from fleet.common.times import ClockReading
from fleet.config import Config, Weights
from fleet.scheduling.choice.balancing import Weighted
from fleet.scheduling.server_state import ServerState
from web.admin.kit.answers import ISO, SHARE, JsonObject
from web.admin.kit.schemas import OneOf

LOWER = Annotated[str, OneOf(tuple(state.value for state in BreakerState))]
UPPER = Annotated[str, OneOf(tuple(state.value.upper() for state in BreakerState))]
_MOMENT = Annotated[int, "milliseconds since 1970; 0: never, or none"]
_POINTS = Annotated[float, "0 to 100"]
_SCORES: Final = (
    "latency",
    "success_rate",
    "load",
    "capacity",
    "circuit_breaker",
    "residency",
    "throughput",
    "priority",
)


class ErrorCountsJson(JsonObject, kw_only=True):
    """Failures in the reference's five drawers, two of which stay empty: nothing that ends by itself is permanent."""

    retryable: int = 0
    non_retryable: int = field(name="non-retryable", default=0)
    transient: int = 0
    permanent: int = 0
    rate_limited: int = 0


class BreakerStatsJson(JsonObject, kw_only=True):
    """Everything about one breaker but its pair. Times in epoch milliseconds, 0 for "never", as in the reference."""

    state: LOWER
    failure_count: Annotated[int, "failures in the present run of them"]
    success_count: int
    total_request_count: int
    blocked_request_count: Annotated[int, "attempts turned away at the breaker"]
    last_failure: _MOMENT
    last_success: _MOMENT
    next_retry_at: _MOMENT
    error_rate: SHARE
    error_counts: ErrorCountsJson
    error_kinds: Annotated[dict[str, int], "failures by the fleet's own words for them"]
    consecutive_successes: int
    half_open_started_at: _MOMENT
    half_open_attempts: int
    consecutive_failed_recoveries: int
    active_tests_in_progress: int
    last_failure_reason: str | None
    since: ISO
    why: str
    next: Annotated[str, "what it waits for"]
    next_step: Annotated[str, "the same as `next`"]
    forced_by: Annotated[str, "who forced this state, in which it stays until it is reset"] | None
    forced_since: ISO | None


class ListScoreJson(JsonObject, kw_only=True):
    """The score that a pair would have in a choice made now, as the reference's list has it."""

    total_score: _POINTS
    latency_score: _POINTS
    success_rate_score: _POINTS
    load_score: _POINTS
    capacity_score: _POINTS
    circuit_breaker_score: _POINTS
    residency_score: _POINTS
    throughput_score: _POINTS
    priority_score: _POINTS
    timeout_score: float | None = None


class ScorePartsJson(JsonObject, kw_only=True):
    """What the total is the mean of."""

    latency: _POINTS
    success_rate: _POINTS
    load: _POINTS
    capacity: _POINTS
    circuit_breaker: _POINTS
    residency: _POINTS
    throughput: _POINTS
    priority: _POINTS


class ScoreJson(JsonObject, kw_only=True):
    """The score that a pair would have in a choice made now."""

    total: _POINTS
    components: ScorePartsJson


class _ListedFirst(BreakerStatsJson):  # not `kw_only`: its fields come first
    server_id: str
    server_id_only: str
    model: str


class ListedBreakerJson(_ListedFirst, kw_only=True):
    """One breaker in the list of a server."""

    lb_score: ListScoreJson | None


class UpperListedBreakerJson(ListedBreakerJson, kw_only=True):
    """One breaker in the list of all."""

    state: UPPER


class _NamedFirst(BreakerStatsJson):  # not `kw_only`: its fields come first
    name: Annotated[str, "server:model"]
    server_id: str
    model: str


class NamedBreakerJson(_NamedFirst, kw_only=True):
    """One breaker by itself, under the reference's name for it."""

    state: UPPER


Stats = TypeVar("Stats", bound=BreakerStatsJson)
Listed = TypeVar("Listed", bound=ListedBreakerJson)
Named = TypeVar("Named", bound=NamedBreakerJson)


def stats(kind: type[Stats], view: BreakerView, at: ClockReading, **about: Any) -> Stats:
    """One breaker as `kind`, whose further fields are `about`."""
    since = at.iso(view.since)
    upper = issubclass(kind, UpperListedBreakerJson | NamedBreakerJson)
    return kind(
        state=view.state.value.upper() if upper else view.state.value,
        failure_count=view.failure_count,
        success_count=view.success_count,
        total_request_count=view.total_request_count,
        blocked_request_count=view.blocked_request_count,
        last_failure=at.epoch_ms(view.last_failure) or 0,
        last_success=at.epoch_ms(view.last_success) or 0,
        next_retry_at=at.epoch_ms(view.next_retry_at) or 0,
        error_rate=view.error_rate,
        error_counts=_counts(view),
        error_kinds=view.error_counts,
        consecutive_successes=view.consecutive_successes,
        half_open_started_at=at.epoch_ms(view.half_open_started_at) or 0,
        half_open_attempts=view.half_open_attempts,
        consecutive_failed_recoveries=view.consecutive_failed_recoveries,
        active_tests_in_progress=view.active_tests,
        last_failure_reason=view.last_failure_kind or None,
        since=since,
        why=view.why,
        next=view.next_step,
        next_step=view.next_step,
        forced_by=view.forced_by,
        forced_since=since if view.forced_by is not None else None,
        **about,
    )


def listed(
    kind: type[Listed], view: BreakerView, at: ClockReading, config: Config, state: ServerState | None
) -> Listed:
    """One breaker in a list; `state` is that of its server."""
    server, score = view.pair.server, _score(config, state, view.pair.model, at.now)
    shown = None
    if score is not None:
        total, parts = score
        shown = ListScoreJson(total_score=total, **{f"{part}_score": value for part, value in parts.items()})
    return stats(kind, view, at, server_id=server, server_id_only=server, model=view.pair.model, lb_score=shown)


def named(kind: type[Named], view: BreakerView, at: ClockReading, **more: Any) -> Named:
    """One breaker by itself."""
    return stats(kind, view, at, name=key(view), server_id=view.pair.server, model=view.pair.model, **more)


def key(view: BreakerView) -> str:
    """The reference's name for a pair."""
    return f"{view.pair.server}:{view.pair.model}"


def pair_score(config: Config, state: ServerState, model: ModelName, now: float) -> ScoreJson | None:
    """The score that the pair would have in a choice made now; None as `_score` says."""
    score = _score(config, state, model, now)
    return None if score is None else ScoreJson(total=score[0], components=ScorePartsJson(**score[1]))


def summary(views: Sequence[BreakerView], added: float, at: ClockReading) -> BreakerStatsJson:
    """All breakers of a server as one: its state is the best of theirs, for where any is closed, traffic flows.

    Counts are sums, times the latest, the error rate the highest, the next retry the soonest. `added`: our clock.
    """
    best = min((view.state for view in views), key=_RANK.index, default=BreakerState.CLOSED)
    moved = [view for view in views if view.state is not BreakerState.CLOSED]
    shown = [stats(BreakerStatsJson, view, at) for view in views]
    newest = max(views, key=lambda view: view.last_failure or 0.0, default=None)
    soonest = min(moved, key=lambda view: view.next_retry_at or float("inf"), default=None)
    step = "nothing to wait for" if soonest is None else f"{soonest.pair.model}: {soonest.next_step}"
    return BreakerStatsJson(
        state=best.value,
        **{name: sum(getattr(each, name) for each in shown) for name in _SUMMED},
        **{name: max((getattr(each, name) for each in shown), default=0) for name in _LATEST},
        next_retry_at=min((each.next_retry_at for each in shown if each.next_retry_at), default=0),
        error_counts=_counts(*views),
        error_kinds=_added(views),
        last_failure_reason=(newest.last_failure_kind or None) if newest else None,
        since=at.iso(max((view.since for view in moved), default=added)),
        why=_told(views),
        next=step,
        next_step=step,
        forced_by=None,
        forced_since=None,
    )


_RANK: Final = (BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN)
_LATEST: Final = ("last_failure", "last_success", "half_open_started_at", "error_rate")
_SUMMED: Final = (
    "failure_count",
    "success_count",
    "total_request_count",
    "blocked_request_count",
    "consecutive_successes",
    "half_open_attempts",
    "consecutive_failed_recoveries",
    "active_tests_in_progress",
)


def _told(views: Sequence[BreakerView]) -> str:
    opened, half = (sum(view.state is state for view in views) for state in (BreakerState.OPEN, BreakerState.HALF_OPEN))
    return f"{len(views)} models: {opened} open, {half} half-open, {len(views) - opened - half} closed"


def _added(views: Sequence[BreakerView]) -> dict[str, int]:
    kinds: dict[str, int] = {}
    for view in views:
        for kind, count in view.error_counts.items():
            kinds[kind] = kinds.get(kind, 0) + count
    return kinds


def _counts(*views: BreakerView) -> ErrorCountsJson:
    drawers: Counter[str] = Counter()
    for view in views:
        for kind, count in view.error_counts.items():
            drawers[_DRAWERS[class_of(kind).sort]] += count
    return ErrorCountsJson(**drawers)


_DRAWERS: Final = {
    FailureKind.TRANSIENT: "transient",
    FailureKind.OVERLOAD: "rate_limited",
    FailureKind.CRASH: "retryable",
    FailureKind.OTHER: "retryable",
}
_EVEN: Final = Weighted(Weights(**dict.fromkeys(Weighted.parts, 1.0)))


def _score(
    config: Config, state: ServerState | None, model: ModelName, now: float
) -> tuple[float, dict[str, float]] | None:
    """Total and parts, 0 to 100, by the scoring that routes requests.

    None: another policy is in effect, or the server does not list the model.
    """
    if state is None or config.load_balancer.policy != Weighted.name or model not in state.models:
        return None
    weights = [float(getattr(config.load_balancer.weights, part)) for part in Weighted.parts]
    parts = _EVEN.score(state, model, now)
    total = sum(weight * part for weight, part in zip(weights, parts, strict=True)) / sum(weights)
    return round(100 * total, 2), {name: round(100 * part, 2) for name, part in zip(_SCORES, parts, strict=True)}
