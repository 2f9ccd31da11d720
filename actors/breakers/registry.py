"""All circuit breakers: made when a pair first fails, retired when there is nothing left to remember.

Absence means closed. Whatever happens to one breaker, its siblings go on: nothing leaves the task of one but its log.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

import trio

from actors.breakers.breaker_actor import POLICY, BreakerActor, BreakerCell, RecoveryTester
from actors.breakers.messages import Alive, BreakerMail, Force, Rearm, RecordOutcome, Rescue, Reset, Returned, TryNow
from actors.kit.mailbox import Mailbox, Promise
from actors.kit.supervisor import RestartLimit, supervise
from fleet.breakers.gate import Gate
from fleet.breakers.last_resort import last_resort
from fleet.breakers.outcomes import Signal
from fleet.breakers.persistence import restore, snapshot
from fleet.breakers.recovery_log import RecoveryLog
from fleet.breakers.state_machine import Breaker, BreakerSettings, BreakerState, BreakerView
from fleet.common.ids import Pair, ServerId
from fleet.common.randomness import Chance
from fleet.config import Config

__all__ = ["BreakerRegistry", "GateBoard", "RecoveryTester"]

log = logging.getLogger("fleet.breaker")

MAX_BREAKERS: Final = 10_000
PAUSE: Final = 300.0
"""Seconds for which a pair whose breaker kept crashing goes without one."""
_HARMLESS: Final = (Signal.SUCCESS, Signal.NEUTRAL)


class GateBoard(Protocol):
    """Where the dispatcher finds gates. Ignores servers it does not know."""

    def set_gate(self, pair: Pair, gate: Gate | None) -> None: ...


class BreakerRegistry:
    """Makes, finds and ends breakers. Everything but `run` is synchronous and may be called from any task.

    `on_change` hears when the gate of a pair changed for the dispatcher, which may grant leases in the same turn: what
    it sees must be settled by then, so state changes first. It must not call back. Times are `trio.current_time`.
    """

    def __init__(
        self,
        settings: BreakerSettings,
        *,
        gates: GateBoard,
        on_change: Callable[[Pair], None],
        rng: Chance,
        enabled: bool = True,
        tester: RecoveryTester | None = None,
        limit: int = MAX_BREAKERS,
        book: RecoveryLog | None = None,
        on_move: Callable[[Pair], None] = lambda pair: None,
    ) -> None:
        self.settings = settings
        self.enabled = enabled
        self.tester = tester
        self.book = RecoveryLog() if book is None else book  # an empty one is false
        self.on_move = on_move
        """Told when a breaker begins, ends or changes its state, or who forced it: so that it can be kept."""
        self._gates = gates
        self._on_change = on_change
        self._rng = rng
        self._limit = limit
        self._cells: dict[Pair, BreakerCell] = {}
        self._crowded = False
        """There are as many as there may be, and none of them is closed by itself: known from the last look at all."""
        self._paused: dict[Pair, float] = {}
        self._tested: set[ServerId] = set()
        self._generation = 0  # the highest any gate has reached: numbers are never used twice
        self._nursery: trio.Nursery | None = None

    def __len__(self) -> int:
        return len(self._cells)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the actors' tasks until cancelled. Breakers made before start now."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for cell in self._cells.values():
                nursery.start_soon(self._keep, cell)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def record(self, pair: Pair, signal: Signal, kind: str, generation: int = 0, *, gives_back: bool = True) -> None:
        """An attempt on this pair ended; called once per lease. `generation` is the gate's at admission, 0 without.

        `gives_back`: with its permit, if it used one up; False: the lease has given that back before.
        """
        cell = self._cells.get(pair)
        if cell is None:
            if signal in _HARMLESS or not self._wanted(pair):
                return
            cell = self._birth(pair)
        if cell is None:
            return
        now = trio.current_time()
        # A success that only counts needs no actor, unless one has mail that came before.
        if signal is Signal.SUCCESS and cell.mailbox.resting and cell.breaker.absorb(now, generation):
            return
        cell.mailbox.cast(RecordOutcome(signal, kind, generation, now, gives_back))

    def alive(self, pair: Pair) -> None:
        """An attempt on this pair has just moved; matters only while its breaker is half-open."""
        cell = self._cells.get(pair)
        if cell is not None and cell.breaker.state is BreakerState.HALF_OPEN:
            cell.mailbox.cast(Alive(trio.current_time()))

    def rescue(self, pairs: Iterable[Pair]) -> None:
        """Nobody serves a model but these, whose gates are shut: the best of them is tried, at once or within moments.

        The actor does it, in a turn of its own: the dispatcher asks, perhaps from within `on_change`.
        """
        cells = [cell for pair in pairs if (cell := self._cells.get(pair)) is not None]
        best = last_resort([cell.breaker for cell in cells], trio.current_time())
        if best is not None:
            self._cells[best.pair].mailbox.cast(Rescue())

    # For the admin API.

    def describe(self, now: float | None = None) -> list[BreakerView]:
        """All breakers that live."""
        return [self._view(cell, now) for cell in self._cells.values()]

    def states(self) -> Iterator[tuple[Pair, BreakerState, int]]:
        """Of all breakers that live: pair, state, failures in a row. Far cheaper than to describe them."""
        return ((pair, cell.breaker.state, cell.breaker.run.length) for pair, cell in self._cells.items())

    def pairs(self) -> list[Pair]:
        """Of all breakers that live; for `get`, one by one, by who lets others run in between."""
        return list(self._cells)

    def get(self, pair: Pair, now: float | None = None) -> BreakerView | None:
        """One breaker; None means closed with nothing to remember. Asking creates nothing."""
        cell = self._cells.get(pair)
        return None if cell is None else self._view(cell, now)

    def untouched(self, pair: Pair, since: float) -> BreakerView:
        """What a pair without a breaker looks like: closed since it is known."""
        blank = Breaker.fresh(pair, self.settings, self._rng, Gate(), since).describe(since)
        if self.enabled:
            return replace(blank, why="nothing has failed lately")
        return replace(blank, why="breakers are switched off", next_step="stays closed while breakers are off")

    def force(self, pair: Pair, state: BreakerState, by: str) -> Promise[BreakerView] | None:
        """Put a pair into a state until it is reset or forced again; None if breakers are off or there is no room.

        The caller checks that the server exists; the model may be one that it does not list (yet).
        """
        cell = self._cells.get(pair)
        if cell is None and self.enabled:
            cell = self._birth(pair)
        if cell is None:
            return None
        reply = Promise[BreakerView]()
        cell.mailbox.cast(Force(state, by, reply))
        return reply

    def reset(self, pair: Pair) -> Promise[BreakerView] | None:
        """Close and forget; the answer is the view just after. None: there is nothing to reset."""
        self._paused.pop(pair, None)
        cell = self._cells.get(pair)
        if cell is None:
            return None
        reply = Promise[BreakerView]()
        cell.mailbox.cast(Reset(reply))
        return reply

    def test(self, pair: Pair) -> Promise[bool | None] | None:
        """Run a recovery test now. None, or an answer of None: not half-open, or not possible at the moment."""
        cell = self._cells.get(pair)
        if cell is None:
            return None
        reply = Promise[bool | None]()
        cell.mailbox.cast(TryNow(reply))
        return reply

    # For those who change the fleet.

    def returned(self, server: ServerId) -> None:
        """Probes found a server that was down to be well: its open breakers have their trials now."""
        for pair, cell in self._cells.items():
            if pair.server == server and cell.breaker.state is BreakerState.OPEN:
                cell.mailbox.cast(Returned())

    def forget_server(self, server: ServerId) -> None:
        """The server was removed: its breakers end, its gates go, and so does its page in the book."""
        for pair in [pair for pair in self._cells if pair.server == server]:
            self._end(self._cells[pair])
        self.book.forget(server)
        for pair in [pair for pair in self._paused if pair.server == server]:
            del self._paused[pair]

    def follow(self, before: Config, now: Config) -> None:
        """Go on by another configuration; what it does not change stays untouched."""
        settings, enabled = BreakerSettings.from_config(now.circuit_breaker), now.enable_circuit_breaker
        if (settings, enabled) != (self.settings, self.enabled):
            self.configure(settings, enabled)

    def configure(self, settings: BreakerSettings, enabled: bool) -> None:
        """New settings, for living breakers too; switched off, all end and every gate goes."""
        self.settings, self.enabled = settings, enabled
        for cell in list(self._cells.values()):
            if not enabled:
                self._end(cell, "breakers were switched off")
                continue
            cell.breaker.settings = settings
            cell.mailbox.cast(Rearm())

    # Over a restart.

    def memory_of(self, pair: Pair) -> dict[str, Any] | None:
        """A snapshot of a breaker that is not closed, or was forced to be; None: nothing worth keeping."""
        cell = self._cells.get(pair)
        if cell is None or (cell.breaker.state is BreakerState.CLOSED and cell.breaker.forced_by is None):
            return None
        return snapshot(cell.breaker)

    def resume(self, pair: Pair, memory: Mapping[str, Any], shift: float) -> bool:
        """Go on with the breaker of an earlier process; `shift` as in `restore`. False: there is one, or no room.

        Raises KeyError, TypeError or ValueError if that is no snapshot.
        """
        breaker = restore(pair, self.settings, self._rng, Gate(generation=self._generation), memory, shift)
        if not self.enabled or pair in self._cells or len(self._cells) >= self._limit:
            return False
        breaker.born = breaker.gate.generation
        self._house(breaker)
        self._on_change(pair)
        return True

    # Recovery tests: one per server at a time (see `TrialRoom`).

    def enter(self, pair: Pair) -> bool:
        """Leave to test a pair."""
        if pair.server in self._tested:
            return False
        self._tested.add(pair.server)
        return True

    def leave(self, pair: Pair) -> None:
        """The test of a pair is over."""
        self._tested.discard(pair.server)

    def moved(self, pair: Pair) -> None:
        """A breaker has begun, ended or changed its state, or who forced it."""
        cell = self._cells.get(pair)
        if cell is None or _is_closed(cell):
            self._crowded = False
        self.on_move(pair)

    # Birth and death.

    def _wanted(self, pair: Pair) -> bool:
        if not self.enabled:
            return False
        if self._paused and trio.current_time() < self._paused.get(pair, -math.inf):
            return False
        self._paused.pop(pair, None)
        return True

    def _birth(self, pair: Pair) -> BreakerCell | None:
        if len(self._cells) >= self._limit and not self._make_room():
            return None
        now = trio.current_time()
        return self._house(Breaker.fresh(pair, self.settings, self._rng, Gate(generation=self._generation), now))

    def _house(self, breaker: Breaker) -> BreakerCell:
        pair = breaker.pair
        cell = BreakerCell(breaker, Mailbox[BreakerMail](f"breaker {pair.model} on {pair.server}"))
        self._cells[pair] = cell
        self._gates.set_gate(pair, breaker.gate)
        if self._nursery is not None:
            self._nursery.start_soon(self._keep, cell)
        return cell

    def _make_room(self) -> bool:
        """Too many pairs fail: the oldest breaker that is closed by itself goes; if there is none, no more are made.

        Then it is not looked for again until one closes or ends, for every failure of a pair without a breaker asks.
        """
        if self._crowded:
            return False
        for cell in self._cells.values():
            if _is_closed(cell):
                log.warning("more than %d breakers: dropped %s", self._limit, cell.mailbox.name)
                self._end(cell)
                return True
        self._crowded = True
        log.warning("%d breakers, none of them closed: no more are made", self._limit)
        return False

    async def _keep(self, cell: BreakerCell) -> None:
        """The task of one breaker. Nothing escapes from it."""
        actor = BreakerActor(cell, self, self._on_change, self._end)
        try:
            with cell.scope:
                await supervise(cell.mailbox.name, actor.run, POLICY)
        except RestartLimit:
            self._fail_open(cell)
        except Exception:  # an error that met our own cancellation half-way; the breaker was ending anyway
            log.warning("%s ended with an error", cell.mailbox.name, exc_info=True)
            self._end(cell, "it ended with an error")

    def _fail_open(self, cell: BreakerCell) -> None:
        """The breaker cannot be kept alive: better no protection for a while than a gate nobody moves."""
        pair = cell.breaker.pair
        log.critical("%s keeps crashing: fails open for %d s", cell.mailbox.name, PAUSE, extra={"alert": True})
        now = trio.current_time()
        if len(self._paused) >= self._limit:
            self._paused = {pair: until for pair, until in self._paused.items() if until > now}
        self._paused[pair] = now + PAUSE
        self._end(cell, "it kept crashing")

    def _end(self, cell: BreakerCell, why: str = "") -> None:
        """Forget a breaker, whatever its state; its pair is open again. `why` it ends if it was not closed already."""
        breaker = cell.breaker
        pair, gate = breaker.pair, breaker.gate
        self._generation = max(self._generation, gate.generation)
        if self._cells.get(pair) is cell:
            del self._cells[pair]
            self._gates.set_gate(pair, None)
            self.moved(pair)
            self._note_end(cell, why)
            if not gate.admits:
                self._on_change(pair)
        cell.end()

    def _note_end(self, cell: BreakerCell, why: str) -> None:
        """What an end means for the book: a test under way is given up; a breaker that was not closed is, now."""
        breaker, now = cell.breaker, trio.current_time()
        if cell.testing:
            self.book.cancelled(breaker.pair.server)
        if breaker.state is not BreakerState.CLOSED:
            self.book.moved(breaker.pair, breaker.state, BreakerState.CLOSED, why, now, now - breaker.since)

    def _view(self, cell: BreakerCell, now: float | None) -> BreakerView:
        return cell.breaker.describe(trio.current_time() if now is None else now, int(cell.testing))


def _is_closed(cell: BreakerCell) -> bool:
    """Whether it may go when there are too many: closed, and not because somebody wants it to be."""
    return cell.breaker.state is BreakerState.CLOSED and cell.breaker.forced_by is None
