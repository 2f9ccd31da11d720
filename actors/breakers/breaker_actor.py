"""One breaker at work: a cell that outlives crashes, and the actor that reads its mail and keeps its timers."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, assert_never

import trio

from actors.breakers.messages import (
    Alive,
    BreakerMail,
    Force,
    Rearm,
    RecordOutcome,
    Rescue,
    Reset,
    Returned,
    TryEnded,
    TryNow,
)
from actors.kit.mailbox import ActorGone, Mailbox, Promise
from actors.kit.supervisor import RestartPolicy
from actors.upstream.transport_errors import kind_of
from fleet.breakers.outcomes import Signal
from fleet.breakers.persistence import restore, snapshot
from fleet.breakers.recovery_log import Failure, RecoveryLog, Source
from fleet.breakers.state_machine import Breaker, BreakerState
from fleet.common.errors import BackendError
from fleet.common.ids import Pair

log = logging.getLogger("fleet.breaker")

POLICY: Final = RestartPolicy(restarts=2, within=60.0)
"""From the snapshot, then fresh, then the registry lets the pair fail open."""
TEST_GAP: Final = 10.0
"""Seconds between two recovery tests of a pair (plus up to half of it, by chance)."""


class RecoveryTester(Protocol):
    """Tries a pair out with a small request of its own; never loads a model by surprise nor bothers a busy server."""

    def test(self, pair: Pair, timeout: float) -> Awaitable[bool | None]:
        """True: works; False: fails; None: not possible now. It has `timeout` seconds, then it is cancelled.

        Raises BackendError for a failure that says why.
        """
        ...


@dataclass(slots=True)
class BreakerCell:
    """What must outlive a crash of the actor: machine, gate, mail, and when the last one was.

    Writer: the actor; the registry makes and ends it, and while the actor rests lets it absorb successes. `scope` ends
    the task, restarts and all.
    """

    breaker: Breaker
    mailbox: Mailbox[BreakerMail]
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    crashed_at: float = -math.inf
    testing: bool = False
    test_at: float = 0.0
    asked: list[Promise[bool | None]] = field(default_factory=list)

    def mend(self, message: BreakerMail | None, saved: Mapping[str, Any] | None, permits: int, now: float) -> None:
        """A crash loses the message in hand and nothing else: the machine is again what was `saved` before.

        Not if nothing could be saved, nor if it has crashed lately already, since what was saved may be the reason:
        then a fresh one keeps the verdict of the gate. The permit of a trial whose end the message told is given back,
        unless one (of `permits`) was.
        """
        if isinstance(message, TryEnded):
            self.testing = False
            self.answer_tests(None)
        gate = self.breaker.gate
        ended = isinstance(message, RecordOutcome | TryEnded) and message.generation == gate.generation
        given_back = isinstance(message, RecordOutcome) and not message.gives_back
        if ended and not given_back and gate.permits == permits:
            gate.give_back()
        old, again = self.breaker, now - self.crashed_at < POLICY.within
        self.crashed_at = now
        if again or saved is None:
            self.breaker = Breaker.fresh(old.pair, old.settings, old.dice, gate, now, old.forced_by)
        else:
            self.breaker = restore(old.pair, old.settings, old.dice, gate, saved)

    def end(self) -> None:
        """No reader will come back: stop the task, tell everybody who waits."""
        self.scope.cancel()  # before the mailbox: a cancelled reader is no crash, one on a closed channel is
        while (message := self.mailbox.receive_nowait()) is not None:
            if isinstance(message, Force | Reset | TryNow):
                message.reply.reject(ActorGone(f"{self.mailbox.name} has ended"))
        self.mailbox.close()
        self.answer_tests(None)

    def answer_tests(self, passed: bool | None) -> None:
        """Tell those who asked for a test."""
        for promise in self.asked:
            promise.resolve(passed)
        self.asked.clear()


class TrialRoom(Protocol):
    """Where actors get leave to test, so that a server is tested by one of them at a time."""

    @property
    def tester(self) -> RecoveryTester | None: ...

    @property
    def book(self) -> RecoveryLog:
        """Where trials, tests and moves are noted."""
        ...

    def moved(self, pair: Pair) -> None:
        """A breaker has begun, ended or changed its state, or who forced it."""
        ...

    def enter(self, pair: Pair) -> bool:
        """Whether this pair may be tested now; if so, `leave` must follow."""
        ...

    def leave(self, pair: Pair) -> None:
        """The test is over."""
        ...


class BreakerActor:
    """Reads the mail of one cell until the breaker is quiet. `on_change` hears of every change at the gate."""

    def __init__(
        self,
        cell: BreakerCell,
        room: TrialRoom,
        on_change: Callable[[Pair], None],
        retire: Callable[[BreakerCell], None],
    ) -> None:
        self._cell = cell
        self._room = room
        self._on_change = on_change
        self._retire = retire

    async def run(self) -> None:
        """One incarnation; returns when the breaker has retired. A crash leaves a whole machine behind."""
        self._room.moved(self._cell.breaker.pair)
        async with trio.open_nursery() as self._tests:
            await self._read()

    async def _read(self) -> None:
        cell = self._cell
        while True:
            message = None
            # A deadline that has passed already wins over waiting mail, so a busy mailbox holds up no timer.
            with trio.move_on_at(self._wake_at()):
                message = await cell.mailbox.receive()
            saved, permits, now = None, cell.breaker.gate.permits, trio.current_time()
            try:
                saved = snapshot(cell.breaker)
                self._handle(message, now)
                quiet = cell.breaker.quiet(now)
            except Exception:
                cell.mend(message, saved, permits, now)
                self._on_change(cell.breaker.pair)  # what changed half-way was perhaps not told
                raise
            if quiet and not cell.mailbox.depth:
                # Nothing was awaited since the decision, so no message can slip in.
                self._retire(cell)
                return

    def _wake_at(self) -> float:
        return min(self._cell.breaker.wake_at, self._cell.test_at if self._may_test() else math.inf)

    def _handle(self, message: BreakerMail | None, now: float) -> None:
        """One message, or None when a deadline has passed; never awaits, so each message is atomic."""
        cell = self._cell
        before, since, forced_by = cell.breaker.state, cell.breaker.since, cell.breaker.forced_by
        changed = cell.breaker.tick(now) if message is None else self._digest(message, now)
        if (cell.breaker.state, cell.breaker.since, cell.breaker.forced_by) != (before, since, forced_by):
            self._room.moved(cell.breaker.pair)
        if cell.breaker.state is not before:
            self._announce(before, now - since)
        if self._may_test() and cell.test_at <= now:
            self._start_test()
        if changed:
            self._on_change(cell.breaker.pair)

    def _announce(self, before: BreakerState, spent: float) -> None:
        """`spent`: seconds in the state before."""
        breaker = self._cell.breaker
        self._cell.test_at = 0.0
        if breaker.last_left:  # its one permit is for who waits; only if nobody comes, a test shall have it
            self._delay_test(trio.current_time())
        self._room.book.moved(breaker.pair, before, breaker.state, breaker.why, breaker.since, spent)
        log.info(
            "breaker of %s on %s: %s -> %s (%s)",
            breaker.pair.model,
            breaker.pair.server,
            before.value,
            breaker.state.value,
            breaker.why,
            extra={"server": breaker.pair.server, "model": breaker.pair.model},
        )

    def _digest(self, message: BreakerMail, now: float) -> bool:
        breaker = self._cell.breaker
        match message:
            case RecordOutcome(signal=signal, kind=kind, generation=generation, at=at, gives_back=gives_back):
                self._note_trial(message, now)
                digest = breaker.record if gives_back else breaker.judge
                return digest(signal, kind, at, generation)
            case Force(state=state, by=by, reply=reply):
                changed = breaker.force(state, now, by)
                reply.resolve(breaker.describe(now))
                return changed
            case Reset(reply=reply):
                changed = breaker.reset(now)
                reply.resolve(breaker.describe(now))
                return changed
            case TryNow(reply=reply):
                return self._ask_test(reply)
            case TryEnded():
                return self._end_test(message, now)
            case Alive(at=at):
                breaker.alive(at)
                return False
            case Rescue():
                return breaker.rescue(now)
            case Returned():
                return breaker.returned(now)
            case Rearm():
                breaker.show(breaker.gate.retry_at)
                return False
            case _:
                assert_never(message)

    def _note_trial(self, record: RecordOutcome, now: float) -> None:
        """A request that the half-open gate let through, and that proved something, was an attempt to recover."""
        breaker = self._cell.breaker
        fresh = breaker.state is BreakerState.HALF_OPEN and record.generation == breaker.gate.generation
        if not fresh or record.signal is Signal.NEUTRAL:
            return
        failure = None if record.signal is Signal.SUCCESS else Failure(record.kind, f"a trial ended: {record.kind}")
        self._room.book.attempt(breaker.pair, Source.TRIAL, now, state=BreakerState.HALF_OPEN, failure=failure)

    # Recovery tests: a test is a trial like any other and uses a permit, but only when no traffic tries the pair.

    def _may_test(self) -> bool:
        cell = self._cell
        breaker = cell.breaker
        wanted = breaker.state is BreakerState.HALF_OPEN and (breaker.forced_by is None or bool(cell.asked))
        return wanted and not cell.testing and self._room.tester is not None

    def _ask_test(self, reply: Promise[bool | None]) -> bool:
        self._cell.asked.append(reply)
        if self._may_test() and self._start_test():
            return False
        if not self._cell.testing:
            self._cell.answer_tests(None)
        return False

    def _start_test(self) -> bool:
        cell = self._cell
        gate, pair, tester = cell.breaker.gate, cell.breaker.pair, self._room.tester
        self._delay_test(trio.current_time())
        if tester is None or gate.trials_out or not self._room.enter(pair):
            return False
        gate.take()
        cell.testing = True
        self._tests.start_soon(self._test, tester, pair, gate.generation)
        if not gate.admits:
            self._on_change(pair)
        return True

    def _delay_test(self, now: float) -> None:
        self._cell.test_at = now + TEST_GAP * (1.0 + 0.5 * self._cell.breaker.dice.random())

    async def _test(self, tester: RecoveryTester, pair: Pair, generation: int) -> None:
        """The child. Whatever happens to it, it reports back: the mailbox outlives us both."""
        ended = TryEnded(None, generation, cancelled=True)
        try:
            ended = await self._try(tester, pair, generation)
        except Exception:  # a tester's own fault is no evidence against the pair
            log.exception("recovery test of %s on %s crashed", pair.model, pair.server)
            ended = TryEnded(None, generation)
        finally:
            self._room.leave(pair)
            self._cell.mailbox.cast(ended)

    async def _try(self, tester: RecoveryTester, pair: Pair, generation: int) -> TryEnded:
        """One test, which may fail, but not for longer than its time."""
        timeout, began = self._cell.breaker.settings.active_test_timeout, trio.current_time()
        passed: bool | None = False
        failure: Failure | None = Failure("first_byte_timeout", f"no answer within {timeout:g} s")
        with trio.move_on_after(timeout):
            try:
                passed = await tester.test(pair, timeout)
                failure = Failure("", "the recovery test failed") if passed is False else None
            except BackendError as error:
                failure = Failure(kind_of(error), error.message)
        return TryEnded(passed, generation, trio.current_time() - began, failure)

    def _end_test(self, message: TryEnded, now: float) -> bool:
        cell = self._cell
        breaker, book = cell.breaker, self._room.book
        cell.testing = False
        self._delay_test(now)
        cell.answer_tests(message.passed)
        if message.passed is None:  # nothing was tried to its end, so nothing is recorded
            if message.cancelled:
                book.cancelled(breaker.pair.server)
            return message.generation == breaker.gate.generation and breaker.gate.give_back()
        book.tested(breaker.pair, now, message.seconds, state=breaker.state, failure=message.failure)
        signal = Signal.SUCCESS if message.passed else Signal.FAILURE
        return breaker.record(signal, "recovery_test", now, message.generation)
