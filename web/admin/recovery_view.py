"""How failures and recoveries look in the admin API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fleet.breaker_values import State
from fleet.recoveries import LONGEST_ERROR, Source
from fleet.recovery_views import DAY, Pattern, pattern_of
from web.admin.common import epoch_ms, milliseconds
from web.admin.shapes import EPOCH_MS, MS, SHARE, Each, Maybe, OneOf, Said

if TYPE_CHECKING:
    from fleet.ids import ServerId
    from fleet.recoveries import Attempt, Move, Page

_STATE: Final = OneOf(tuple(state.value for state in State))
_SOURCE: Final = OneOf(tuple(source.value for source in Source))
PATTERN: Final = OneOf(tuple(pattern.value for pattern in Pattern))
TYPES: Final = Said(Each(int), "failures by type")
STATS: Final = {
    "serverId": str,
    "totalRecoveryAttempts": int,
    "successfulRecoveries": int,
    "failedRecoveries": int,
    "currentConsecutiveFailures": int,
    "lastRecoveryAttempt": Said(EPOCH_MS, "milliseconds since 1970; 0: never"),
    "failureRate": SHARE,
    "averageTimeBetweenFailures": Said(float, "milliseconds; 0: fewer than two failures"),
    "pattern": Said(PATTERN, "of the last 24 hours"),
    "circuitBreakerImpact": {
        "totalTransitions": int,
        "openStateContributions": int,
        "lastTransition": Maybe(EPOCH_MS),
        "lastOpenReason": Maybe(str),
    },
    "lastFailureReason": Maybe(str),
    "firstRecordedFailure": Maybe(EPOCH_MS),
    "lastSuccessfulRecovery": Maybe(EPOCH_MS),
}
FAILURE: Final = {
    "timestamp": EPOCH_MS,
    "serverId": str,
    "model": Maybe(Said(str, "null: the server itself")),
    "error": Said(str, f"at most {LONGEST_ERROR} characters"),
    "errorType": str,
    "attemptNumber": int,
    "consecutiveFailures": int,
    "source": _SOURCE,
    "circuitBreakerState": _STATE,
    "metadata": {"source": _SOURCE, "circuitBreakerState": _STATE},
}
TRANSITION: Final = {
    "timestamp": EPOCH_MS,
    "serverId": str,
    "model": str,
    "previousState": _STATE,
    "newState": _STATE,
    "reason": str,
    "timeInPreviousState": MS,
}


def stats(server: ServerId, page: Page, now: float) -> dict[str, Any]:
    """The statistics of one server."""
    return {
        "serverId": server,
        "totalRecoveryAttempts": page.tried,
        "successfulRecoveries": page.succeeded,
        "failedRecoveries": page.failed,
        "currentConsecutiveFailures": page.in_a_row,
        "lastRecoveryAttempt": epoch_ms(page.tried_at) or 0,
        "failureRate": round(page.failure_rate, 4),
        "averageTimeBetweenFailures": round(1000 * page.mean_gap, 1),
        "pattern": pattern_of(page, now - DAY).value,
        "circuitBreakerImpact": {
            "totalTransitions": page.moved,
            "openStateContributions": page.opened,
            "lastTransition": epoch_ms(page.moved_at),
            "lastOpenReason": page.open_reason,
        },
        "lastFailureReason": page.last_error,
        "firstRecordedFailure": epoch_ms(page.first_failure),
        "lastSuccessfulRecovery": epoch_ms(page.last_success),
    }


def failure(attempt: Attempt) -> dict[str, Any]:
    """One failed attempt."""
    how = {"source": attempt.source.value, "circuitBreakerState": attempt.state.value}
    return {
        "timestamp": epoch_ms(attempt.at),
        "serverId": attempt.server,
        "model": attempt.model or None,
        "error": attempt.error,
        "errorType": attempt.type,
        "attemptNumber": attempt.number,
        "consecutiveFailures": attempt.in_a_row,
        **how,
        "metadata": how,
    }


def transition(move: Move) -> dict[str, Any]:
    """One change of a breaker."""
    return {
        "timestamp": epoch_ms(move.at),
        "serverId": move.pair.server,
        "model": move.pair.model,
        "previousState": move.came_from.value,
        "newState": move.to.value,
        "reason": move.why,
        "timeInPreviousState": milliseconds(move.spent),
    }
