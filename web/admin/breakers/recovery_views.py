"""How failures and recoveries look in the admin API."""

from __future__ import annotations

from typing import Annotated, TypeVar

from fleet.breakers.recovery_log import LONGEST_ERROR, RecoveryAttempt, RecoveryTransition, ServerLog, Source
from fleet.breakers.recovery_reports import DAY, Pattern, pattern_of
from fleet.breakers.values import BreakerState
from fleet.common.ids import ServerId
from fleet.common.times import ClockReading, milliseconds
from web.admin.kit.answers import EPOCH_MS, MS, SHARE, JsonObject

TYPES = Annotated[dict[str, int], "failures by type"]
_NEVER = Annotated[int, "milliseconds since 1970; 0: never"]


class ImpactJson(JsonObject, kw_only=True):
    """What breakers made of a server, in short."""

    total_transitions: int
    open_state_contributions: int
    last_transition: EPOCH_MS | None
    last_open_reason: str | None


class RecoveryStatsJson(JsonObject, kw_only=True):
    """The statistics of one server."""

    server_id: str
    total_recovery_attempts: int
    successful_recoveries: int
    failed_recoveries: int
    current_consecutive_failures: int
    last_recovery_attempt: _NEVER
    failure_rate: SHARE
    average_time_between_failures: Annotated[float, "milliseconds; 0: fewer than two failures"]
    pattern: Annotated[Pattern, "of the last 24 hours"]
    circuit_breaker_impact: ImpactJson
    last_failure_reason: str | None
    first_recorded_failure: EPOCH_MS | None
    last_successful_recovery: EPOCH_MS | None


class ShortStatsJson(JsonObject, kw_only=True):
    """A server's statistics as the reference's dashboard reads them."""

    server_id: str
    failure_count: int
    last_failure: _NEVER
    recovery_attempts: int
    successful_recoveries: int


class HowJson(JsonObject, kw_only=True):
    """How a server was tried, and what its breaker was then."""

    source: Source
    circuit_breaker_state: BreakerState


class FailureJson(JsonObject, kw_only=True):
    """One failed attempt."""

    timestamp: EPOCH_MS
    server_id: str
    model: Annotated[str, "null: the server itself"] | None
    error: Annotated[str, f"at most {LONGEST_ERROR} characters"]
    error_type: str
    attempt_number: int
    consecutive_failures: int
    source: Source
    circuit_breaker_state: BreakerState
    metadata: HowJson


class RecoveryTestJson(JsonObject, kw_only=True):
    """One recovery test that came to a result."""

    test_id: Annotated[str, "the server and the number of the attempt"]
    breaker_name: Annotated[str, "server:model"]
    model: str
    end_time: EPOCH_MS
    success: bool
    timeout: bool
    error: str | None


class TransitionJson(JsonObject, kw_only=True):
    """One change of a breaker."""

    timestamp: EPOCH_MS
    server_id: str
    model: str
    previous_state: BreakerState
    new_state: BreakerState
    reason: str
    time_in_previous_state: MS


Stats = TypeVar("Stats", bound=RecoveryStatsJson)


def stats(kind: type[Stats], server: ServerId, page: ServerLog, at: ClockReading) -> Stats:
    """The statistics of one server, as `kind`."""
    return kind(
        server_id=server,
        total_recovery_attempts=page.tried,
        successful_recoveries=page.succeeded,
        failed_recoveries=page.failed,
        current_consecutive_failures=page.in_a_row,
        last_recovery_attempt=at.epoch_ms(page.tried_at) or 0,
        failure_rate=round(page.failure_rate, 4),
        average_time_between_failures=round(1000 * page.mean_gap, 1),
        pattern=pattern_of(page, at.now - DAY),
        circuit_breaker_impact=ImpactJson(
            total_transitions=page.moved,
            open_state_contributions=page.opened,
            last_transition=at.epoch_ms(page.moved_at),
            last_open_reason=page.open_reason,
        ),
        last_failure_reason=page.last_error,
        first_recorded_failure=at.epoch_ms(page.first_failure),
        last_successful_recovery=at.epoch_ms(page.last_success),
    )


def short(server: ServerId, page: ServerLog, at: ClockReading) -> ShortStatsJson:
    """The same in the words of the reference's dashboard."""
    return ShortStatsJson(
        server_id=server,
        failure_count=page.failed,
        last_failure=at.epoch_ms(page.last_failure) or 0,
        recovery_attempts=page.tried,
        successful_recoveries=page.succeeded,
    )


def failure(attempt: RecoveryAttempt, at: ClockReading) -> FailureJson:
    """One failed attempt."""
    return FailureJson(
        timestamp=at.epoch_ms(attempt.at),
        server_id=attempt.server,
        model=attempt.model or None,
        error=attempt.error,
        error_type=attempt.type,
        attempt_number=attempt.number,
        consecutive_failures=attempt.in_a_row,
        source=attempt.source,
        circuit_breaker_state=attempt.state,
        metadata=HowJson(source=attempt.source, circuit_breaker_state=attempt.state),
    )


def test(attempt: RecoveryAttempt, at: ClockReading) -> RecoveryTestJson:
    """One recovery test that came to a result."""
    return RecoveryTestJson(
        test_id=f"{attempt.server}-{attempt.number}",
        breaker_name=f"{attempt.server}:{attempt.model}",
        model=attempt.model,
        end_time=at.epoch_ms(attempt.at),
        success=attempt.ok,
        timeout=attempt.type == "timeout",
        error=attempt.error or None,
    )


def transition(move: RecoveryTransition, at: ClockReading) -> TransitionJson:
    """One change of a breaker."""
    return TransitionJson(
        timestamp=at.epoch_ms(move.at),
        server_id=move.pair.server,
        model=move.pair.model,
        previous_state=move.came_from,
        new_state=move.to,
        reason=move.why,
        time_in_previous_state=milliseconds(move.spent),
    )
