"""The circuit breaker of one server and model. No clock, no tasks: the caller brings `now`.

Closed: failures in a row count strikes (a soft one half, a success wipes them out); enough strikes, or too high an
error rate, open it. Open: after a jittered period it half-opens; each failed recovery in a row doubles the period, up
to ten times. Half-open: a few trials at a time; enough successes close it, one strike opens it again. Whatever is
forced stays until it is forced otherwise or reset.

Who is all that is left for a model (see `last_resort`) is not shut for so long: it half-opens at once, for one trial at
a time until one succeeds, and after one that fails within moments again.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from fleet.breakers.failure_classes import class_of
from fleet.breakers.gate import Gate
from fleet.breakers.outcomes import Signal
from fleet.breakers.values import (
    MOVES,
    VERDICT,
    BreakerSection,
    BreakerSettings,
    BreakerState,
    BreakerView,
    ErrorWindow,
    FailureRun,
    Transition,
    Why,
)
from fleet.common.ids import Pair
from fleet.common.randomness import Chance

__all__ = ["Breaker", "BreakerSection", "BreakerSettings", "BreakerState", "BreakerView", "Transition", "Why"]

HISTORY: Final = 32
MAX_KINDS: Final = 64
MAX_BACKOFF: Final = 10.0
LOOKS: Final = 4
"""How often per `half_open_timeout` a half-open breaker looks whether its trials hang."""
RESCUE_PAUSE: Final = 0.5
LONGEST_RESCUE_PAUSE: Final = 1.5
"""Seconds between trials of the last that is left: after the first that fails, doubling, and at the most.

Under `queue.no_server_grace` (2 s), so that whoever waits for the model gets a trial before it is refused.
"""
MEMORY: Final = 10
"""Strikes are forgotten after this many error windows without another failure: old news prove nothing."""
_SUCCESS: Final = Signal.SUCCESS  # a module's name is found faster than an enum's member
_CLOSED: Final = BreakerState.CLOSED
_WEIGHT: Final = {Signal.SUCCESS: 0.0, Signal.SOFT_FAILURE: 0.5, Signal.FAILURE: 1.0}


@dataclass(slots=True)
class Breaker:
    """The state machine; it writes its verdict into `gate`, which may outlive it. See the module's text for the rules.

    `wake_at` is when `tick` has something to do; `record` and `tick` say whether the gate changed for the dispatcher.
    Strikes count from the first to the last of a run of failures, whatever lies between except success or a long time.
    """

    pair: Pair
    settings: BreakerSettings
    dice: Chance
    gate: Gate = field(default_factory=Gate)
    state: BreakerState = BreakerState.CLOSED
    since: float = 0.0
    why: str = "born"
    wake_at: float = math.inf
    forced_by: str | None = None
    born: int = 0
    run: FailureRun = field(default_factory=FailureRun)
    window: ErrorWindow = field(default_factory=ErrorWindow)
    struck_at: float = 0.0
    failed_recoveries: int = 0
    last_left: bool = False
    """Whether it is tried, now or at the end of its period, for want of others: one trial at a time."""
    failed_rescues: int = 0
    """Trials in a row that failed so. They do not lengthen the period that holds while there are others."""
    successes: int = 0
    attempts: int = 0
    looked_at: float = 0.0
    silent_since: float = 0.0
    total: int = 0
    total_successes: int = 0
    last_success: float | None = None
    last_failure: float | None = None
    last_kind: str = ""
    kinds: dict[str, int] = field(default_factory=dict)
    history: deque[Transition] = field(default_factory=lambda: deque(maxlen=HISTORY))

    @classmethod
    def fresh(
        cls, pair: Pair, settings: BreakerSettings, dice: Chance, gate: Gate, now: float, forced_by: str | None = None
    ) -> Breaker:
        """A breaker that knows nothing but the verdict its gate shows, which it keeps, and who forced it, if so."""
        new = cls(pair, settings, dice, gate, since=now, forced_by=forced_by, born=gate.generation)
        state = next(state for state, shown in VERDICT.items() if shown is gate.state)
        if state is not BreakerState.CLOSED:
            new._enter(state, "started anew", now)
        return new

    def record(self, signal: Signal, kind: str, now: float, generation: int | None = None) -> bool:
        """Digest the end of one attempt; True if the gate changed (its state, or a permit came back).

        A straggler, admitted before the last change of state, is counted in the totals and proves nothing else. In
        the breaker's first life nothing came before, so everything counts. No `generation` means "of today".
        """
        if signal is _SUCCESS and self.absorb(now, generation):
            return False
        trial = self.state is BreakerState.HALF_OPEN and not self._is_straggler(generation)
        freed = trial and self.gate.give_back()
        return self.judge(signal, kind, now, generation) or freed

    def judge(self, signal: Signal, kind: str, now: float, generation: int | None = None) -> bool:
        """As `record`, of an attempt whose permit is back already."""
        self._count(signal, kind, now)
        if self.state is BreakerState.OPEN or self._is_straggler(generation):
            return False
        if self.state is BreakerState.HALF_OPEN:
            self.attempts += 1
            self.silent_since = now
        changed = False
        if signal is not Signal.NEUTRAL:
            self.window.add(_WEIGHT[signal], now, self.settings.error_rate_window)
            changed = self._succeed(now) if signal is Signal.SUCCESS else self._strike(_WEIGHT[signal], kind, now)
        self._arm()
        return changed

    def absorb(self, now: float, generation: int | None = None) -> bool:
        """Digest a success that changes nothing but counts; False (and nothing done) if it might change more.

        So it is while closed, with no strikes to wipe out: nearly always, and the reason why a success is cheap.
        """
        if self.state is not _CLOSED or self.run.length or self._is_straggler(generation):
            return False
        self.total += 1
        self.total_successes += 1
        self.successes += 1
        self.last_success = now
        self.window.add(0.0, now, self.settings.error_rate_window)
        return True

    def tick(self, now: float) -> bool:
        """Do what is due at `wake_at`; True if the gate changed."""
        if now < self.wake_at:
            return False
        changed = False
        if self.state is BreakerState.OPEN:
            changed = self._move(Why.LAST_LEFT if self.last_left else Why.WAITED, now)
        elif self.state is BreakerState.HALF_OPEN:
            changed = self._look(now)
        else:
            self.run, self.window = FailureRun(), ErrorWindow()
        self._arm()
        return changed

    @property
    def rescue_at(self) -> float:
        """When it may be tried if nobody else is left; infinity unless it is open by itself."""
        if self.state is not BreakerState.OPEN or self.forced_by is not None:
            return math.inf
        failed = self.failed_rescues
        pause = min(RESCUE_PAUSE * 2.0 ** (min(failed, 10) - 1), LONGEST_RESCUE_PAUSE) if failed else 0.0
        return min(self.since + pause, self.gate.retry_at)

    def rescue(self, now: float) -> bool:
        """Nobody else is left: half-open at `rescue_at`, which may be now. True if the gate changed.

        An order for later stands even if others turn up meanwhile: then one trial comes early.
        """
        due = self.rescue_at
        if not math.isfinite(due):
            return False
        self.last_left = True
        if due <= now:
            return self._move(Why.LAST_LEFT, now)
        self.show(due)
        return False

    def returned(self, now: float) -> bool:
        """The server was down and is back: half-open, if it was open by itself. True if the gate changed.

        What it failed at was its going down, or something before that a restart may have ended; and its trials tell.
        """
        if self.state is not BreakerState.OPEN or self.forced_by is not None:
            return False
        return self._move(Why.RETURNED, now)

    def force(self, state: BreakerState, now: float, by: str) -> bool:
        """Put it into a state where it stays, whatever happens, until it is reset or forced again."""
        before = self.gate.state
        self.forced_by = by
        self._enter(state, f"forced by {by}", now)
        return self.gate.state is not before

    def reset(self, now: float) -> bool:
        """Close it and forget its failures and who forced it; the totals stay."""
        before = self.gate.state
        self.forced_by = None
        self.kinds.clear()
        self._enter(BreakerState.CLOSED, "reset", now)
        return self.gate.state is not before

    def quiet(self, now: float) -> bool:
        """Whether there is nothing worth remembering: closed by itself, no strikes, no failure in the window."""
        self.window.prune(now, self.settings.error_rate_window)
        return (
            self.state is BreakerState.CLOSED
            and self.forced_by is None
            and not self.run.length
            and not self.window.failures
        )

    def show(self, retry_at: float) -> None:
        """Publish the verdict at the gate and work out when to wake up."""
        limit = 1 if self.last_left else self.settings.half_open_max_requests
        self.gate.in_vain = self.failed_rescues > 0
        self.gate.show(VERDICT[self.state], limit=limit, retry_at=retry_at)
        self._arm()

    # What follows is the machinery behind the public methods.

    def _is_straggler(self, generation: int | None) -> bool:
        if generation is None or generation == self.gate.generation:
            return False
        return self.state is not BreakerState.CLOSED or self.gate.generation != self.born

    def _count(self, signal: Signal, kind: str, now: float) -> None:
        self.total += 1
        if signal is Signal.SUCCESS:
            self.total_successes += 1
            self.last_success = now
        elif signal is not Signal.NEUTRAL:
            self.last_failure, self.last_kind = now, kind
            kind = kind if kind in self.kinds or len(self.kinds) < MAX_KINDS else "other"
            self.kinds[kind] = self.kinds.get(kind, 0) + 1

    def _succeed(self, now: float) -> bool:
        self.run = FailureRun()
        self.successes += 1
        enough = self.successes >= self.settings.recovery_success_threshold
        if self.state is BreakerState.HALF_OPEN and enough and self.forced_by is None:
            return self._move(Why.RECOVERED, now)
        if self.state is BreakerState.HALF_OPEN and self.last_left:
            self.last_left, self.failed_rescues, self.gate.in_vain = False, 0, False
            return self.gate.widen(self.settings.half_open_max_requests)
        return False

    def _strike(self, weight: float, kind: str, now: float) -> bool:
        self.successes = 0
        self.struck_at = now
        self.run.add(weight, class_of(kind).sort)
        why = self._trip() if self.forced_by is None else None
        return self._move(why, now) if why is not None else False

    def _trip(self) -> Why | None:
        if self.state is BreakerState.HALF_OPEN:
            return Why.TRIAL_FAILED if self.run.strikes >= 1 else None
        if self.run.strikes >= self.run.threshold(self.settings):
            return Why.STRIKES
        enough = self.window.results >= self.settings.error_rate_min_requests
        return Why.ERROR_RATE if enough and self.window.rate >= self.settings.error_rate_threshold else None

    def alive(self, now: float) -> None:
        """A trial that is out has moved: it does not hang."""
        if self.state is BreakerState.HALF_OPEN:
            self.silent_since = now

    def _look(self, now: float) -> bool:
        """Trials that are out while nothing ends or moves for a whole period hang. No traffic is no reason to shut."""
        self.looked_at = now
        if not self.gate.trials_out:
            self.silent_since = now
        if now - self.silent_since < self.settings.half_open_timeout:
            return False
        return self._move(Why.TRIALS_HUNG, now)

    def _move(self, why: Why, now: float) -> bool:
        if self.state is BreakerState.HALF_OPEN and MOVES[self.state, why] is BreakerState.OPEN:
            if self.last_left:
                self.failed_rescues += 1
            else:
                self.failed_recoveries += 1
        self._enter(MOVES[self.state, why], why.value, now)
        return True

    def _enter(self, to: BreakerState, why: str, now: float) -> None:
        """Change state; the gate comes last, so that a crash half-way leaves the old verdict standing."""
        self.history.append(Transition(now, self.state, to, why))
        self.state, self.since, self.why = to, now, why
        if to is not BreakerState.OPEN:
            self.run, self.successes, self.attempts = FailureRun(), 0, 0
        if to is BreakerState.CLOSED:
            self.window, self.failed_recoveries, self.failed_rescues = ErrorWindow(), 0, 0
        if to is not BreakerState.HALF_OPEN or self.forced_by is not None:
            self.last_left = False
        self.looked_at = self.silent_since = now
        self.show(self._retry_at() if to is BreakerState.OPEN else 0.0)

    def _retry_at(self) -> float:
        if self.forced_by is not None:
            return math.inf
        backoff = min(2.0 ** min(self.failed_recoveries, 10), MAX_BACKOFF)
        jitter = 1.0 + self.settings.open_jitter * (2.0 * self.dice.random() - 1.0)
        return self.since + self.settings.open_timeout * backoff * jitter

    def _arm(self) -> None:
        self.wake_at = math.inf if self.forced_by is not None else self._due()

    def _due(self) -> float:
        if self.state is BreakerState.OPEN:
            return self.gate.retry_at
        if self.state is BreakerState.HALF_OPEN:
            return self.looked_at + self.settings.half_open_timeout / LOOKS
        if self.run.length:
            return self.struck_at + self.settings.error_rate_window * MEMORY
        return self.struck_at + self.settings.error_rate_window if self.window.failures else math.inf

    # Views and copies.

    def describe(self, now: float, active_tests: int = 0) -> BreakerView:
        """What the admin API shows."""
        self.window.prune(now, self.settings.error_rate_window)
        return BreakerView(
            pair=self.pair,
            state=self.state,
            since=self.since,
            why=self.why,
            next_step=self._next_step(now),
            failure_count=self.run.length,
            success_count=self.total_successes,
            total_request_count=self.total,
            blocked_request_count=self.gate.refused,
            last_failure=self.last_failure,
            last_failure_kind=self.last_kind,
            last_success=self.last_success,
            next_retry_at=self.gate.retry_at if self.state is BreakerState.OPEN and self.forced_by is None else None,
            error_rate=self.window.rate,
            error_counts=dict(self.kinds),
            consecutive_successes=self.successes,
            half_open_started_at=self.since if self.state is BreakerState.HALF_OPEN else None,
            half_open_attempts=self.attempts,
            consecutive_failed_recoveries=self.failed_recoveries,
            forced_by=self.forced_by,
            active_tests=active_tests,
            history=tuple(self.history),
        )

    def _next_step(self, now: float) -> str:
        if self.forced_by is not None:
            return f"stays {self.state.value} until it is reset (forced by {self.forced_by})"
        if self.state is BreakerState.OPEN:
            return f"half-open in {max(0.0, self.gate.retry_at - now):.0f} s"
        if self.state is BreakerState.HALF_OPEN:
            return f"closes after {self.settings.recovery_success_threshold - self.successes} more successes"
        return f"opens after {self.run.threshold(self.settings) - self.run.strikes:g} more failures in a row"
