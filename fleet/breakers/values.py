"""The values a circuit breaker deals in: settings, states, moves, its error window, and what the admin API sees."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final, Protocol

from fleet.breakers.failure_classes import FailureKind
from fleet.breakers.gate import GateState
from fleet.common.ids import Pair


class BreakerState(enum.Enum):
    """The breaker's state in the admin API's words: closed means that traffic flows."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Why(enum.Enum):
    """What moves a breaker by itself."""

    STRIKES = "too many failures in a row"
    ERROR_RATE = "error rate too high"
    WAITED = "open period over"
    LAST_LEFT = "nobody else is left"
    RETURNED = "the server is back"
    RECOVERED = "enough successful trials"
    TRIAL_FAILED = "a trial failed"
    TRIALS_HUNG = "trials hang"


MOVES: Final = {
    (BreakerState.CLOSED, Why.STRIKES): BreakerState.OPEN,
    (BreakerState.CLOSED, Why.ERROR_RATE): BreakerState.OPEN,
    (BreakerState.OPEN, Why.WAITED): BreakerState.HALF_OPEN,
    (BreakerState.OPEN, Why.LAST_LEFT): BreakerState.HALF_OPEN,
    (BreakerState.OPEN, Why.RETURNED): BreakerState.HALF_OPEN,
    (BreakerState.HALF_OPEN, Why.RECOVERED): BreakerState.CLOSED,
    (BreakerState.HALF_OPEN, Why.TRIAL_FAILED): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, Why.TRIALS_HUNG): BreakerState.OPEN,
}
VERDICT: Final = {
    BreakerState.CLOSED: GateState.OPEN,
    BreakerState.HALF_OPEN: GateState.LIMITED,
    BreakerState.OPEN: GateState.SHUT,
}


class BreakerSection(Protocol):
    """What `BreakerSettings.from_config` reads: the breaker's section of the configuration, durations in ms."""

    @property
    def base_failure_threshold(self) -> int: ...
    @property
    def min_failure_threshold(self) -> int: ...
    @property
    def max_failure_threshold(self) -> int: ...
    @property
    def adaptive(self) -> bool: ...
    @property
    def open_timeout(self) -> float: ...
    @property
    def half_open_timeout(self) -> float: ...
    @property
    def half_open_max_requests(self) -> int: ...
    @property
    def recovery_success_threshold(self) -> int: ...
    @property
    def active_test_timeout(self) -> float: ...
    @property
    def error_rate_threshold(self) -> float: ...
    @property
    def error_rate_window(self) -> float: ...
    @property
    def error_rate_min_requests(self) -> int: ...
    @property
    def open_jitter(self) -> float: ...


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """The breaker's rules. Durations in seconds; thresholds in strikes (a hard failure is one, a soft one half)."""

    base_failure_threshold: int = 3
    min_failure_threshold: int = 2
    max_failure_threshold: int = 10
    adaptive: bool = True
    open_timeout: float = 120.0
    half_open_timeout: float = 300.0
    half_open_max_requests: int = 3
    recovery_success_threshold: int = 5
    active_test_timeout: float = 300.0
    error_rate_threshold: float = 0.3
    error_rate_window: float = 60.0
    error_rate_min_requests: int = 10
    open_jitter: float = 0.1

    @classmethod
    def from_config(cls, section: BreakerSection) -> BreakerSettings:
        """From the configuration section, whose durations are in milliseconds."""
        return cls(
            base_failure_threshold=section.base_failure_threshold,
            min_failure_threshold=section.min_failure_threshold,
            max_failure_threshold=section.max_failure_threshold,
            adaptive=section.adaptive,
            open_timeout=section.open_timeout / 1000,
            half_open_timeout=section.half_open_timeout / 1000,
            half_open_max_requests=section.half_open_max_requests,
            recovery_success_threshold=section.recovery_success_threshold,
            active_test_timeout=section.active_test_timeout / 1000,
            error_rate_threshold=section.error_rate_threshold,
            error_rate_window=section.error_rate_window / 1000,
            error_rate_min_requests=section.error_rate_min_requests,
            open_jitter=section.open_jitter,
        )


@dataclass(slots=True)
class ErrorWindow:
    """Results and failures of the last `span` seconds, in at most 13 buckets.

    Counts within a bucket are exact, but a bucket leaves as a whole: the window covers between 11/12 and all of its
    span. And a breaker that was just born has not seen the successes before its first failure.
    """

    buckets: list[list[float]] = field(default_factory=list)

    def add(self, weight: float, now: float, span: float) -> None:
        """Count one result; `weight` is how much of a failure it was (0, 0.5, 1)."""
        self.prune(now, span)
        buckets = self.buckets
        if not buckets or now >= buckets[-1][0] + span / 12:
            buckets.append([now, 0, 0])
        newest = buckets[-1]
        newest[1] += 1
        newest[2] += weight

    def prune(self, now: float, span: float) -> None:
        """Let go of what is too old."""
        while self.buckets and self.buckets[0][0] + span <= now:
            del self.buckets[0]

    @property
    def results(self) -> float:
        return sum(bucket[1] for bucket in self.buckets)

    @property
    def failures(self) -> float:
        return sum(bucket[2] for bucket in self.buckets)

    @property
    def rate(self) -> float:
        """Failures per result, 0 to 1; call `prune` first."""
        return self.failures / self.results if self.buckets else 0.0


@dataclass(slots=True)
class FailureRun:
    """The present run of failures: `strikes` by weight, of which some are transient or crashes; `length` failures."""

    strikes: float = 0.0
    transient: float = 0.0
    crashes: float = 0.0
    length: int = 0

    def add(self, weight: float, sort: FailureKind) -> None:
        """One more failure."""
        self.strikes += weight
        self.transient += weight if sort is FailureKind.TRANSIENT else 0.0
        self.crashes += weight if sort is FailureKind.CRASH else 0.0
        self.length += 1

    def threshold(self, rules: BreakerSettings) -> int:
        """Strikes that open the breaker, decided by what this run is made of.

        More than half runner crashes: one less than the base (they take everybody's model down). More than 70 %
        transient (no connection, reset, timeout, 502-504): two more (a restart or a load spike passes by itself).
        The reference program uses the same shares, but -2 and over a window.
        """
        if rules.adaptive and self.crashes > 0.5 * self.strikes:
            return max(rules.min_failure_threshold, rules.base_failure_threshold - 1)
        if rules.adaptive and self.transient > 0.7 * self.strikes:
            return min(rules.max_failure_threshold, rules.base_failure_threshold + 2)
        return rules.base_failure_threshold


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state, for the history that the admin API shows."""

    at: float
    came_from: BreakerState
    to: BreakerState
    why: str


@dataclass(frozen=True, slots=True)
class BreakerView:
    """What the admin API shows of a breaker. Times on the breaker's clock; None: has not happened, or never will.

    `failure_count` is the present run of failures, the other counts are totals since the breaker was born.
    `blocked_request_count` counts attempts turned away at the gate (a dispatcher that skips shut pairs causes none).
    `next_step` says in one line what the breaker waits for.
    """

    pair: Pair
    state: BreakerState
    since: float
    why: str
    next_step: str
    failure_count: int
    success_count: int
    total_request_count: int
    blocked_request_count: int
    last_failure: float | None
    last_failure_kind: str
    last_success: float | None
    next_retry_at: float | None
    error_rate: float
    error_counts: dict[str, int]
    consecutive_successes: int
    half_open_started_at: float | None
    half_open_attempts: int
    consecutive_failed_recoveries: int
    forced_by: str | None
    active_tests: int
    history: tuple[Transition, ...]
