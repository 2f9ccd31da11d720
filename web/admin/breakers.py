"""Circuit breakers that remember something; a pair without one is closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from quart import Blueprint, Response

from web import replies
from web.admin.common import admin_blueprint, epoch, epoch_ms, iso

if TYPE_CHECKING:
    from actors.system import System
    from fleet.breaker_values import BreakerView


def blueprint(system: System) -> Blueprint:
    """The list."""
    routes = admin_blueprint("breakers")

    @routes.get("/circuit-breakers")
    async def all_breakers() -> Response:
        views = system.breakers.describe(trio.current_time())
        return replies.json({"success": True, "circuitBreakers": [describe(view) for view in views]})

    return routes


def describe(view: BreakerView) -> dict[str, object]:
    """One breaker as the list shows it. Times in epoch milliseconds, 0 for "never", as the reference has them."""
    return {
        "serverId": view.pair.server,
        "serverIdOnly": view.pair.server,
        "model": view.pair.model,
        "state": view.state.value.upper(),
        "failureCount": view.failure_count,
        "successCount": view.success_count,
        "totalRequestCount": view.total_request_count,
        "blockedRequestCount": view.blocked_request_count,
        "lastFailure": epoch_ms(view.last_failure) or 0,
        "lastSuccess": epoch_ms(view.last_success) or 0,
        "nextRetryAt": epoch_ms(view.next_retry_at) or 0,
        "errorRate": view.error_rate,
        "errorCounts": view.error_counts,
        "consecutiveSuccesses": view.consecutive_successes,
        "halfOpenStartedAt": epoch_ms(view.half_open_started_at) or 0,
        "halfOpenAttempts": view.half_open_attempts,
        "consecutiveFailedRecoveries": view.consecutive_failed_recoveries,
        "activeTestsInProgress": view.active_tests,
        "lastFailureReason": view.last_failure_kind or None,
        "since": iso(epoch(view.since)),
        "why": view.why,
        "nextStep": view.next_step,
        "forcedBy": view.forced_by,
    }
