"""How a circuit breaker looks in the admin API: its numbers, its state and what it waits for, the score of its pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fleet.breakers.failure_classes import FailureKind, class_of
from fleet.breakers.values import BreakerState, BreakerView
from fleet.common.ids import ModelName
from fleet.config import Config, Weights
from fleet.scheduling.choice.balancing import Weighted
from fleet.scheduling.server_state import ServerState
from web.admin.kit.schemas import EPOCH_MS, ISO, SHARE, Each, Maybe, OneOf, Said
from web.http.units import epoch, epoch_ms, iso

LOWER: Final = OneOf(tuple(state.value for state in BreakerState))
UPPER: Final = OneOf(tuple(state.value.upper() for state in BreakerState))
_MOMENT: Final = Said(EPOCH_MS, "milliseconds since 1970; 0: never, or none")
_POINTS: Final = Said(float, "0 to 100")

STANDING: Final = {
    "since": ISO,
    "why": str,
    "next": Said(str, "what it waits for"),
    "nextStep": Said(str, "the same as `next`"),
    "forcedBy": Maybe(Said(str, "who forced this state, in which it stays until it is reset")),
    "forcedSince": Maybe(ISO),
}
DRAWERS: Final = ("retryable", "non-retryable", "transient", "permanent", "rateLimited")
"""The reference's sorts of failures."""
NUMBERS: Final[dict[str, Any]] = {
    "failureCount": Said(int, "failures in the present run of them"),
    "successCount": int,
    "totalRequestCount": int,
    "blockedRequestCount": Said(int, "attempts turned away at the breaker"),
    "lastFailure": _MOMENT,
    "lastSuccess": _MOMENT,
    "nextRetryAt": _MOMENT,
    "errorRate": SHARE,
    "errorCounts": dict.fromkeys(DRAWERS, int),
    "errorKinds": Said(Each(int), "failures by the fleet's own words for them"),
    "consecutiveSuccesses": int,
    "halfOpenStartedAt": _MOMENT,
    "halfOpenAttempts": int,
    "consecutiveFailedRecoveries": int,
    "activeTestsInProgress": int,
    "lastFailureReason": Maybe(str),
}
_SCORES: Final = ("latency", "successRate", "load", "capacity", "circuitBreaker", "residency", "throughput", "priority")
LIST_SCORE: Final = Maybe(
    {"totalScore": _POINTS, **{f"{p}Score": _POINTS for p in _SCORES}, "timeoutScore": Maybe(float)}
)
PAIR_SCORE: Final = Maybe({"total": _POINTS, "components": dict.fromkeys(_SCORES, _POINTS)})


def stats_shape(state: OneOf) -> dict[str, Any]:
    """The shape of `stats`, with states in upper or lower case."""
    return {"state": state, **NUMBERS, **STANDING}


def listed_shape(state: OneOf) -> dict[str, Any]:
    """The shape of `listed`."""
    return {"serverId": str, "serverIdOnly": str, "model": str, **stats_shape(state), "lbScore": LIST_SCORE}


def named_shape(**more: Any) -> dict[str, Any]:
    """The shape of `named`."""
    return {"name": Said(str, "server:model"), "serverId": str, "model": str, **stats_shape(UPPER), **more}


def standing(view: BreakerView) -> dict[str, Any]:
    """Since when, why, and what next; who forced it, if somebody did."""
    since = iso(epoch(view.since))
    return {
        "since": since,
        "why": view.why,
        "next": view.next_step,
        "nextStep": view.next_step,
        "forcedBy": view.forced_by,
        "forcedSince": since if view.forced_by is not None else None,
    }


def stats(view: BreakerView, *, upper: bool) -> dict[str, Any]:
    """Everything about one breaker but its pair. Times in epoch milliseconds, 0 for "never", as in the reference."""
    return {
        "state": view.state.value.upper() if upper else view.state.value,
        "failureCount": view.failure_count,
        "successCount": view.success_count,
        "totalRequestCount": view.total_request_count,
        "blockedRequestCount": view.blocked_request_count,
        "lastFailure": epoch_ms(view.last_failure) or 0,
        "lastSuccess": epoch_ms(view.last_success) or 0,
        "nextRetryAt": epoch_ms(view.next_retry_at) or 0,
        "errorRate": view.error_rate,
        "errorCounts": _counts(view),
        "errorKinds": view.error_counts,
        "consecutiveSuccesses": view.consecutive_successes,
        "halfOpenStartedAt": epoch_ms(view.half_open_started_at) or 0,
        "halfOpenAttempts": view.half_open_attempts,
        "consecutiveFailedRecoveries": view.consecutive_failed_recoveries,
        "activeTestsInProgress": view.active_tests,
        "lastFailureReason": view.last_failure_kind or None,
        **standing(view),
    }


def listed(view: BreakerView, config: Config, state: ServerState | None, *, upper: bool) -> dict[str, Any]:
    """One breaker in a list; `state` is that of its server."""
    server, score = view.pair.server, _score(config, state, view.pair.model)
    shown = None
    if score is not None:
        total, parts = score
        shown = {"totalScore": total, **{f"{part}Score": value for part, value in parts.items()}, "timeoutScore": None}
    about = {"serverId": server, "serverIdOnly": server, "model": view.pair.model}
    return {**about, **stats(view, upper=upper), "lbScore": shown}


def named(view: BreakerView) -> dict[str, Any]:
    """One breaker by itself, under the reference's name for it."""
    return {"name": key(view), "serverId": view.pair.server, "model": view.pair.model, **stats(view, upper=True)}


def key(view: BreakerView) -> str:
    """The reference's name for a pair."""
    return f"{view.pair.server}:{view.pair.model}"


def pair_score(config: Config, state: ServerState, model: ModelName) -> dict[str, Any] | None:
    """The score that the pair would have in a choice made now; None as `_score` says."""
    score = _score(config, state, model)
    return None if score is None else {"total": score[0], "components": score[1]}


def summary(views: Sequence[BreakerView], added: float) -> dict[str, Any]:
    """All breakers of a server as one: its state is the best of theirs, for where any is closed, traffic flows.

    Counts are sums, times the latest, the error rate the highest, the next retry the soonest. `added`: our clock.
    """
    best = min((view.state for view in views), key=_RANK.index, default=BreakerState.CLOSED)
    moved = [view for view in views if view.state is not BreakerState.CLOSED]
    shown = [stats(view, upper=False) for view in views]
    sums = {name: sum(each[name] for each in shown) for name in _SUMMED}
    latest = {name: max((each[name] for each in shown), default=0) for name in _LATEST}
    newest = max(views, key=lambda view: view.last_failure or 0.0, default=None)
    soonest = min(moved, key=lambda view: view.next_retry_at or float("inf"), default=None)
    return {
        "state": best.value,
        **sums,
        **latest,
        "nextRetryAt": min((each["nextRetryAt"] for each in shown if each["nextRetryAt"]), default=0),
        "errorCounts": {name: sum(each["errorCounts"][name] for each in shown) for name in DRAWERS},
        "errorKinds": _added(views),
        "lastFailureReason": (newest.last_failure_kind or None) if newest else None,
        "since": iso(epoch(max((view.since for view in moved), default=added))),
        **_told(views, soonest),
        "forcedBy": None,
        "forcedSince": None,
    }


_RANK: Final = (BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN)
_LATEST: Final = ("lastFailure", "lastSuccess", "halfOpenStartedAt", "errorRate")
_SUMMED: Final = tuple(
    name for name in NUMBERS if name not in (*_LATEST, "nextRetryAt", "errorCounts", "errorKinds", "lastFailureReason")
)


def _told(views: Sequence[BreakerView], soonest: BreakerView | None) -> dict[str, str]:
    opened, half = (sum(view.state is state for view in views) for state in (BreakerState.OPEN, BreakerState.HALF_OPEN))
    why = f"{len(views)} models: {opened} open, {half} half-open, {len(views) - opened - half} closed"
    step = "nothing to wait for" if soonest is None else f"{soonest.pair.model}: {soonest.next_step}"
    return {"why": why, "next": step, "nextStep": step}


def _added(views: Sequence[BreakerView]) -> dict[str, int]:
    kinds: dict[str, int] = {}
    for view in views:
        for kind, count in view.error_counts.items():
            kinds[kind] = kinds.get(kind, 0) + count
    return kinds


def _counts(view: BreakerView) -> dict[str, int]:
    """Failures in the reference's five drawers, two of which stay empty: nothing that ends by itself is permanent."""
    drawers = dict.fromkeys(DRAWERS, 0)
    for kind, count in view.error_counts.items():
        drawers[_DRAWERS[class_of(kind).sort]] += count
    return drawers


_DRAWERS: Final = {
    FailureKind.TRANSIENT: "transient",
    FailureKind.OVERLOAD: "rateLimited",
    FailureKind.CRASH: "retryable",
    FailureKind.OTHER: "retryable",
}
_EVEN: Final = Weighted(Weights(**dict.fromkeys(Weighted.parts, 1.0)))


def _score(config: Config, state: ServerState | None, model: ModelName) -> tuple[float, dict[str, float]] | None:
    """Total and parts, 0 to 100, by the scoring that routes requests.

    None: another policy is in effect, or the server does not list the model.
    """
    if state is None or config.load_balancer.policy != Weighted.name or model not in state.models:
        return None
    weights = [float(getattr(config.load_balancer.weights, part)) for part in Weighted.parts]
    parts = _EVEN.score(state, model)
    total = sum(weight * part for weight, part in zip(weights, parts, strict=True)) / sum(weights)
    return round(100 * total, 2), {name: round(100 * part, 2) for name, part in zip(_SCORES, parts, strict=True)}
