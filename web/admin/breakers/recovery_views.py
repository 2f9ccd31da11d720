"""How failures and recoveries look in the admin API."""

from __future__ import annotations

from typing import Any, Final

from fleet.breakers.recovery_log import LONGEST_ERROR, RecoveryAttempt, RecoveryTransition, ServerLog, Source
from fleet.breakers.recovery_reports import DAY, Pattern, pattern_of
from fleet.breakers.values import BreakerState
from fleet.common.ids import ServerId
from web.admin.kit.schemas import EPOCH_MS, MS, SHARE, Each, Maybe, OneOf, Said
from web.http.units import epoch_ms, milliseconds

_STATE: Final = OneOf(tuple(state.value for state in BreakerState))
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
SHORT: Final = {
    "serverId": str,
    "failureCount": int,
    "lastFailure": Said(EPOCH_MS, "milliseconds since 1970; 0: never"),
    "recoveryAttempts": int,
    "successfulRecoveries": int,
}
"""A server's statistics as the reference's dashboard reads them."""
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
TEST: Final = {
    "testId": Said(str, "the server and the number of the attempt"),
    "breakerName": Said(str, "server:model"),
    "model": str,
    "endTime": EPOCH_MS,
    "success": bool,
    "timeout": bool,
    "error": Maybe(str),
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


def stats(server: ServerId, page: ServerLog, now: float) -> dict[str, Any]:
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


def short(server: ServerId, page: ServerLog) -> dict[str, Any]:
    """The same in the words of the reference's dashboard."""
    return {
        "serverId": server,
        "failureCount": page.failed,
        "lastFailure": epoch_ms(page.last_failure) or 0,
        "recoveryAttempts": page.tried,
        "successfulRecoveries": page.succeeded,
    }


def failure(attempt: RecoveryAttempt) -> dict[str, Any]:
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


def test(attempt: RecoveryAttempt) -> dict[str, Any]:
    """One recovery test that came to a result."""
    return {
        "testId": f"{attempt.server}-{attempt.number}",
        "breakerName": f"{attempt.server}:{attempt.model}",
        "model": attempt.model,
        "endTime": epoch_ms(attempt.at),
        "success": attempt.ok,
        "timeout": attempt.type == "timeout",
        "error": attempt.error or None,
    }


def transition(move: RecoveryTransition) -> dict[str, Any]:
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
