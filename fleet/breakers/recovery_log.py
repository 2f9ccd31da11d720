"""The book of failures and recoveries: what was tried to bring servers back, how it ended, and what breakers did.

An attempt to recover is a probe of a server that is not healthy, a recovery test, or a request that a half-open breaker
let through to see. Single records are kept in rings, totals since the server was added or its page was reset.

What it is wrong about: a run of failures is one of the server, whatever was tried (probe, test, trial, which model).
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from fleet.breakers.values import BreakerState
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.common.lru_table import LruTable

MOST_SERVERS: Final = 1000
"""Pages in the book; the one that nobody wrote on for the longest time goes first."""
MOST_ATTEMPTS: Final = 400
MOST_MOVES: Final = 200
LONGEST_ERROR: Final = 200

_TYPES: Final[Mapping[str, str]] = {
    "connect_timeout": "timeout",
    "first_byte_timeout": "timeout",
    "idle_timeout": "timeout",
    "connection_refused": "connection_refused",
    "backend_unreachable": "network_error",
    "backend_broke": "network_error",
    "bad_answer": "server_error",
    "stream_error": "server_error",
    "refused_429": "rate_limited",
}
ERROR_TYPES: Final = (*sorted(set(_TYPES.values())), "unknown")


def error_type(kind: str) -> str:
    """The sort of an error, from the fixed word for it (`breakers.outcomes.kind`, `transport_errors.kind_of`)."""
    return _TYPES.get(kind) or ("server_error" if kind.startswith("refused_5") else "unknown")


class Source(enum.Enum):
    """How somebody tried."""

    HEALTH_CHECK = "health_check"
    RECOVERY_TEST = "recovery_test"
    TRIAL = "trial"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed: a fixed word, and a text of ours or the server's (never of a client's)."""

    kind: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class RecoveryAttempt:
    """One attempt. `number` counts the server's attempts from 1, `in_a_row` its failures up to and with this one.

    `model` is empty when the server itself was tried. `state` is that of the pair's breaker (or the server's worst).
    """

    at: float
    server: ServerId
    model: ModelName
    source: Source
    number: int
    in_a_row: int
    state: BreakerState
    error: str = ""
    type: str = ""

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return not self.in_a_row


@dataclass(frozen=True, slots=True)
class RecoveryTransition:
    """A breaker changed its state, after `spent` seconds in the one before."""

    at: float
    pair: Pair
    came_from: BreakerState
    to: BreakerState
    why: str
    spent: float


@dataclass(slots=True)
class Results:
    """How recovery tests ended, and how many seconds those took that came to an end."""

    passed: int = 0
    failed: int = 0
    timed_out: int = 0
    cancelled: int = 0
    seconds: float = 0.0

    @property
    def ended(self) -> int:
        """Those with a result."""
        return self.passed + self.failed + self.timed_out

    def add(self, other: Results) -> None:
        """Count those of another server too."""
        self.passed += other.passed
        self.failed += other.failed
        self.timed_out += other.timed_out
        self.cancelled += other.cancelled
        self.seconds += other.seconds


@dataclass(slots=True)
class ServerLog:
    """What is known of one server. Times are on the caller's clock; None: has not happened.

    `lost_at` is when the newest attempt was made that the ring has dropped: nothing is complete before it.
    """

    attempts: deque[RecoveryAttempt] = field(default_factory=lambda: deque(maxlen=MOST_ATTEMPTS))
    tried: int = 0
    failed: int = 0
    in_a_row: int = 0
    tried_at: float | None = None
    first_failure: float | None = None
    last_failure: float | None = None
    last_success: float | None = None
    last_error: str | None = None
    lost_at: float = -math.inf
    moves: deque[RecoveryTransition] = field(default_factory=lambda: deque(maxlen=MOST_MOVES))
    moved: int = 0
    opened: int = 0
    closed: int = 0
    left_open: int = 0
    open_seconds: float = 0.0
    moved_at: float | None = None
    open_reason: str | None = None
    tests: Results = field(default_factory=Results)

    @property
    def succeeded(self) -> int:
        """Attempts that did not fail."""
        return self.tried - self.failed

    @property
    def failure_rate(self) -> float:
        """Failures per attempt, 0 to 1; 0 without any."""
        return self.failed / self.tried if self.tried else 0.0

    @property
    def mean_gap(self) -> float:
        """Seconds between two failures, on average over all; 0 while there are fewer than two."""
        if self.failed < 2 or self.first_failure is None or self.last_failure is None:
            return 0.0
        return (self.last_failure - self.first_failure) / (self.failed - 1)

    @property
    def failures(self) -> Iterator[RecoveryAttempt]:
        """Those that are kept, newest first."""
        return (attempt for attempt in reversed(self.attempts) if not attempt.ok)

    def try_again(self, pair: Pair, source: Source, state: BreakerState, failure: Failure | None, now: float) -> None:
        """Note one attempt."""
        if len(self.attempts) == MOST_ATTEMPTS:
            self.lost_at = self.attempts[0].at
        self.tried += 1
        self.tried_at = now
        if failure is None:
            self.in_a_row = 0
            self.last_success = now
            self.attempts.append(RecoveryAttempt(now, pair.server, pair.model, source, self.tried, 0, state))
            return
        self.in_a_row += 1
        self._fail(failure, now)
        number, text, sort = self.tried, self.last_error or "", error_type(failure.kind)
        attempt = RecoveryAttempt(now, pair.server, pair.model, source, number, self.in_a_row, state, text, sort)
        self.attempts.append(attempt)

    def _fail(self, failure: Failure, now: float) -> None:
        self.failed += 1
        self.last_failure = now
        self.first_failure = now if self.first_failure is None else self.first_failure
        text = clean(failure.text) or failure.kind or "no reason given"
        if text != self.last_error:  # else one string serves a whole run of failures
            self.last_error = text

    def move(self, move: RecoveryTransition) -> None:
        """Note that a breaker changed its state."""
        self.moves.append(move)
        self.moved += 1
        self.moved_at = move.at
        if move.came_from is BreakerState.OPEN:
            self.left_open += 1
            self.open_seconds += move.spent
        if move.to is BreakerState.OPEN:
            self.opened += 1
            self.open_reason = move.why
        self.closed += move.to is BreakerState.CLOSED


BLANK: Final = ServerLog()
"""What is known of a server that nothing happened to. Never written."""


class RecoveryLog:
    """One page a server. Writers: the servers' and the breakers' actors. Everything is synchronous and O(1).

    Bound: `most` pages with two rings each. `told` hears of every breaker that changes its state; must not fail.
    """

    def __init__(
        self, most: int = MOST_SERVERS, told: Callable[[Pair, BreakerState, float], None] = lambda pair, to, now: None
    ) -> None:
        self._told = told
        self._pages: LruTable[ServerId, ServerLog] = LruTable(most)

    def __len__(self) -> int:
        return len(self._pages)

    def page(self, server: ServerId) -> ServerLog:
        """What is known of a server, for reading only; asking creates nothing."""
        return self._pages.get(server, BLANK)

    def attempt(
        self,
        pair: Pair,
        source: Source,
        now: float,
        *,
        state: BreakerState = BreakerState.CLOSED,
        failure: Failure | None = None,
    ) -> None:
        """An attempt to recover ended; without a `failure` it succeeded. `pair.model` empty: the server itself."""
        self._open(pair.server).try_again(pair, source, state, failure, now)

    def tested(
        self,
        pair: Pair,
        now: float,
        seconds: float,
        *,
        state: BreakerState = BreakerState.HALF_OPEN,
        failure: Failure | None = None,
    ) -> None:
        """A recovery test came to a result: an attempt like any other, counted apart as well."""
        tests = self._open(pair.server).tests
        tests.seconds += seconds
        if failure is None:
            tests.passed += 1
        elif error_type(failure.kind) == "timeout":
            tests.timed_out += 1
        else:
            tests.failed += 1
        self.attempt(pair, Source.RECOVERY_TEST, now, state=state, failure=failure)

    def cancelled(self, server: ServerId) -> None:
        """A recovery test was given up half-way; it proves nothing."""
        self._open(server).tests.cancelled += 1

    def moved(self, pair: Pair, came_from: BreakerState, to: BreakerState, why: str, now: float, spent: float) -> None:
        """A breaker changed its state."""
        self._open(pair.server).move(RecoveryTransition(now, pair, came_from, to, why, spent))
        self._told(pair, to, now)

    def forget(self, server: ServerId) -> bool:
        """Tear the page out; False if there was none."""
        return self._pages.pop(server, None) is not None

    def _open(self, server: ServerId) -> ServerLog:
        """The page to write on, moved to the end of the book."""
        return self._pages.use(server, ServerLog)


def clean(text: str) -> str:
    """One line of at most 200 characters, without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * LONGEST_ERROR]).split())
    return line if len(line) <= LONGEST_ERROR else line[: LONGEST_ERROR - 1] + "…"
