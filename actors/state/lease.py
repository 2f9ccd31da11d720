"""The right to use one slot of one server. Closed exactly once, from anywhere, synchronously."""

from __future__ import annotations

import enum
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from actors.state.messages import BanPair, GateMoved, LeaseClosed, LiftBans, SlotFreed, Welcome
from fleet.breakers.failure_classes import classify
from fleet.breakers.outcomes import ClientLeft, End, Refused, Signal, is_death, kind
from fleet.common.ids import Pair, RequestId
from fleet.scheduling.bans import BanKind
from fleet.scheduling.choice.loaded_runners import wish_of
from fleet.scheduling.cooldown import FAST
from fleet.scheduling.estimates.forecast.terms import Outcome
from fleet.scheduling.scheduler.decisions import AttemptEnd
from fleet.scheduling.server_state import Admin

if TYPE_CHECKING:
    from actors.kit.clock import Clock
    from actors.state.scheduler_state import SchedulerState
    from actors.state.servers import ServerCell, Servers
    from actors.upstream.pool import Abortable
    from fleet.protocol.call import Call
    from fleet.protocol.dialects.base import Statistics
    from fleet.scheduling.moving_average import PairStats
    from fleet.scheduling.scheduler.decisions import Grant

log = logging.getLogger("fleet.lease")


class Cuttable(Protocol):
    """What a lease needs of the answer: to cut it off, which wakes who waits for the client to read."""

    def cut(self) -> None: ...


class Outcomes(Protocol):
    """Who is told how each attempt ended: the breakers, which know this folder, so that it cannot know them."""

    def record(
        self, pair: Pair, signal: Signal, kind: str, generation: int = 0, *, gives_back: bool = True
    ) -> None: ...

    def alive(self, pair: Pair) -> None: ...

    def rescue(self, pairs: Iterable[Pair]) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class LeaseContext:
    """What every lease of a fleet acts on: where its slot counts, and who hears of its end."""

    clock: Clock
    scheduler: SchedulerState
    servers: Servers
    breakers: Outcomes


class WaitingFor(enum.Enum):
    """Whom the exchange is waiting for; decides which limit applies and who is to blame."""

    BACKEND = "backend"
    CLIENT = "client"
    HEAD = "head"
    """The client, to take the head; it does at once, unless it has stalled."""


class Lease:
    """One open attempt. In-flight is the number of these; there is no counter.

    `beat` is when something last moved, and `waiting` on whom it waits since. The server's actor looks at both once a
    second, and whenever a limit that it has seen is due (`stall_watch`); it revokes what has stalled or is too late.
    That keeps timers off the relay path and works even while the writing task is stuck in a shielded send.
    `connection` is the way to the backend, at whatever stage. `stats` is what the answer has told of itself so far.
    """

    __slots__ = (
        "_context",
        "_end",
        "_owes",
        "answer",
        "beat",
        "call",
        "cell",
        "chunks",
        "connection",
        "deadline",
        "ended",
        "expected",
        "first_byte",
        "first_byte_by",
        "generation",
        "grant",
        "number",
        "pair",
        "started",
        "stats",
        "streaming",
        "waiting",
    )

    def __init__(self, context: LeaseContext, cell: ServerCell, grant: Grant, call: Call, now: float) -> None:
        self._context = context
        self._end: End | None = None
        self._owes = False
        self.cell = cell
        self.grant = grant
        self.call = call
        self.number = grant.number
        self.pair = Pair(cell.state.id, grant.model)
        self.generation = grant.gate.generation if grant.gate is not None else 0
        self.answer: Cuttable | None = None
        self.connection: Abortable | None = None
        self.stats: Statistics | None = None
        self.started = self.ended = now
        self.first_byte: float | None = None
        self.beat = now
        self.waiting = WaitingFor.BACKEND
        self.streaming = False
        self.chunks = 0
        self.deadline = math.inf
        self.first_byte_by = math.inf
        self.expected = False
        cell.leases[self.number] = self
        context.servers.in_flight += 1
        cell.watch()

    def limit(self, deadline: float, first_byte: float) -> None:
        """When the request ends, and how many seconds after `started` its head is due: connecting and sending count."""
        self.deadline = deadline
        self.first_byte_by = self.started + first_byte

    def expect(self) -> None:
        """The expectations were told of this attempt, and shall hear of its first byte and its end."""
        self.expected = True
        self._show_limit()

    def speak(self, now: float) -> None:
        """The first byte of an answer came."""
        self.first_byte = now
        if self.expected and self.call.stream:
            expectations = self._context.scheduler.expectations
            expectations.spoke(self.number, self.cell.state, self.pair.model, wish_of(self.call.runner), now)
            self._show_limit()

    @property
    def request_id(self) -> RequestId:
        return self.call.request_id

    @property
    def end(self) -> End | None:
        """How it ended; None while it is open."""
        return self._end

    @property
    def given_up(self) -> bool:
        """Whether nobody wants the backend's answer any more."""
        return self._end is not None

    # All or nothing, though there are nine effects and no way back from any of them. What makes it so is their
    # order. First the mark that makes it once: an effect that closes us again finds us closed. Then what frees the
    # slot: three removals from tables and a count, none of which can fail, so that in-flight is right whatever comes.
    # Then what the attempt has taught. That is the only part with judgement in it, and so the only one that may fail;
    # it has to come before anybody is woken, for the dispatcher decides in our turn, and would send the next request
    # to a pair that has just failed, or count a permit as used that is free. Its failure is nobody's business but the
    # log's: raised here, it would keep the slot from those who wait for it, leave other leases open when many are
    # revoked in a loop, and crash the server's actor at every look. Last those who wait are woken: casts and
    # unparking only leave a message, and what an actor makes of one crashes that actor, not its sender.
    def close(self, end: End, *, owing: bool = False) -> bool:
        """End it: slot free (if it held one), one outcome to the breaker, dispatcher woken. False if closed before.

        `owing`: the outcome follows with `settle`, when it is known whose fault a refusal was. That may take as long as
        another server needs to answer; the trial is over all the same, and so the permit it used up is free again.

        A dispatcher at rest hands the slot on in our turn: a new lease may stand on the same cell before this returns.
        """
        if self._end is not None:
            return False
        self._end = end
        context, cell = self._context, self.cell
        state, scheduler = cell.state, context.scheduler
        cell.leases.pop(self.number, None)
        context.servers.in_flight -= 1
        held_a_slot = state.ledger.close(self.number)
        scheduler.memory.total.close(self.number)
        self.ended = context.clock.now()
        self._owes = True
        try:
            if owing:
                self._give_permit_back()
                if isinstance(end, Refused) and end.busy and self.call.runs:
                    state.hold_back(self.pair.model, end.asked, self.ended)
            else:
                self._tell(classify(end), gives_back=True)
        except Exception:
            self._mourn()
        if self.expected:
            try:
                self._tell_expectations(end)
            except Exception:
                self._mourn()
        if held_a_slot:
            scheduler.mailbox.cast(SlotFreed(self.pair))
        if ended := context.servers.ended:
            ended.unpark_all()
        if state.admin is Admin.DRAINING:
            cell.mailbox.cast(LeaseClosed())
        return True

    def _tell_expectations(self, end: End) -> None:
        """What the attempt has cost; who refuses, or is left, says nothing about time."""
        signal = classify(end)
        outcome: Outcome = "left"
        if signal is not Signal.NEUTRAL:
            outcome = "well" if signal is Signal.SUCCESS else "failed"
        elif isinstance(end, Refused) and end.busy:
            outcome = "busy"
        began = None if self.first_byte is None else self.first_byte - self.started
        self.grant.decision.ended(AttemptEnd(outcome, began, self.ended - self.started, self.stats))
        expectations = self._context.scheduler.expectations
        expectations.ended(self.number, self.stats, self.ended, outcome)
        if is_death(end):
            expectations.unloaded(self.cell.state, self.pair.model, self.ended)
        if outcome == "well" and not self.call.stream:
            expectations.runs(self.cell.state, self.pair.model, wish_of(self.call.runner), self.ended)
        self._show_limit()

    def _show_limit(self) -> None:
        """Where that bounds what a runner gets, say how many it takes by now; who waits may go if that is more."""
        state, scheduler = self.cell.state, self._context.scheduler
        if state.learns and scheduler.expectations.show_limit(state, self.pair.model) and scheduler.tickets:
            scheduler.mailbox.cast(GateMoved(self.pair))

    def settle(self, signal: Signal) -> None:
        """Give the breaker and the scoring what they should learn of a lease that was closed `owing`, once.

        Later calls, and those for a lease that owed nothing, do nothing.
        """
        try:
            self._tell(signal, gives_back=False)
        except Exception:
            self._mourn()

    def _mourn(self) -> None:
        about = {"server": self.pair.server, "model": self.pair.model}
        log.exception("what request %s has taught is lost", self.request_id, extra=about)

    def _tell(self, signal: Signal, *, gives_back: bool) -> None:
        if not self._owes or self._end is None:
            return
        self._owes = False
        if self._counts:
            if signal is Signal.FAILURE and is_death(self._end):
                counts = self.cell.state.counts_death(self.pair.model, self.ended)
                signal = signal if counts else Signal.NEUTRAL
            try:
                self._learn(signal)
            finally:  # the breaker counts on hearing of each permit
                self._record(signal, kind(self._end), gives_back=gives_back)

    def _record(self, signal: Signal, what: str, *, gives_back: bool) -> None:
        """Tell the breaker; if it cannot be told, it gets at least the permit back, or it would try nobody any more."""
        try:
            self._context.breakers.record(self.pair, signal, what, self.generation, gives_back=gives_back)
        except Exception:
            if gives_back:
                self._give_permit_back()
            raise

    def _give_permit_back(self) -> None:
        """Without the outcome. The generation tells whether the gate still shows what the permit was taken from."""
        gate = self.grant.gate
        if gate is not None and gate.generation == self.generation and gate.give_back():
            self._context.breakers.alive(self.pair)

    @property
    def _counts(self) -> bool:
        """Whether the outcome says something about this pair.

        Not for models the server does not list (names are the client's to invent, memory is ours), nor for /api/show,
        which no runner answers; unless it used up a permit, which only an outcome gives back.
        """
        listed = self.pair.model in self.cell.state.models and self.call.runs
        return listed or self.grant.gate is not None

    def revoke(self, end: End) -> None:
        """Take the slot back now: closes the lease and cuts off what the exchange waits for, so that it goes on.

        No cancel scope is needed for that: an attempt waits for its backend or for its client, and both can be cut.
        As with `close`, a new lease may stand on the same cell before this returns.
        """
        if not self.close(end):
            return
        if self.connection is not None:
            self._cut_off(self.connection.abort)
        # A head that is on its way is not cut off, unless it is what has stalled: an error record can follow it.
        stuck = self.waiting is WaitingFor.CLIENT or (self.waiting is WaitingFor.HEAD and isinstance(end, ClientLeft))
        if stuck and self.answer is not None:
            self._cut_off(self.answer.cut)

    def _cut_off(self, cut: Callable[[], None]) -> None:
        """One of two cuts. A socket that cannot be closed keeps neither the other end, nor other leases, uncut."""
        try:
            cut()
        except Exception:
            log.exception("request %s could not be cut off", self.request_id, extra={"server": self.pair.server})

    def _learn(self, signal: Signal) -> None:
        """Statistics for scoring. A failure's time is never averaged in: who fails fast must not look fast.

        Nor is that of an answer in one piece, whose first byte is its last.
        """
        if signal is Signal.NEUTRAL:
            return
        stats, now = self.cell.state.stats_of(self.pair.model), self._context.clock.now()
        stats.success.add(1.0 if signal is Signal.SUCCESS else 0.0, now)
        if signal is Signal.SUCCESS:
            self._cool_no_more(stats)
            if self.first_byte is not None and self.call.stream:
                stats.first_byte.add(self.first_byte - self.started, now)
        elif self.ended - self.started < FAST:
            self._cool(stats)

    def _cool(self, stats: PairStats) -> None:
        """Who fails fast has free slots always, and would draw everybody: pass it over for a while."""
        now = self._context.clock.now()
        seconds = stats.cooling.failed(self.started, now)
        if seconds:
            assert self._end is not None
            why = f"failed {stats.cooling.strikes} times in a row within moments: {kind(self._end)}"
            self._context.scheduler.mailbox.cast(BanPair(self.pair, why, now + seconds, cooldown=True))

    def _cool_no_more(self, stats: PairStats) -> None:
        state = self.cell.state
        if stats.cooling.strikes and stats.cooling.succeeded(self.started) and self.pair.model in state.cooling:
            self._context.scheduler.mailbox.cast(LiftBans(self.pair.server, self.pair.model, BanKind.COOLDOWN))
        if state.unwelcome:
            self.cell.mailbox.cast(Welcome())
