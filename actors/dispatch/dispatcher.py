"""The dispatcher: one actor that owns the queue and the scoring, and grants leases."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import assert_never

import trio

from actors.dispatch.announcement import announce
from actors.dispatch.ban_refusals import keep, turned_away
from actors.state.config_ref import ConfigRef
from actors.state.lease import Lease, LeaseContext
from actors.state.messages import (
    BanPair,
    DispatcherMail,
    GateMoved,
    LiftBans,
    PauseQueue,
    Reconfigured,
    ServerChanged,
    ServerGone,
    SlotFreed,
    Submitted,
    Withdrawn,
)
from actors.state.ticket import PendingTicket
from fleet.common.errors import FleetError, NoServer
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.config import Config
from fleet.scheduling.choice.balancing import BalancingPolicy, make_policy
from fleet.scheduling.choice.expected_completion import ExpectedCompletion
from fleet.scheduling.scheduler.decisions import Grant, SchedulerLimits
from fleet.scheduling.scheduler.scheduler import Scheduler
from fleet.scheduling.wait_queue import Ticket

log = logging.getLogger("fleet.dispatcher")

OtherMail = Withdrawn | ServerChanged | ServerGone | GateMoved | BanPair | LiftBans | PauseQueue | Reconfigured

_BATCH = 64
"""Messages handled before the event loop gets a turn."""


def rules_of(config: Config) -> SchedulerLimits:
    """The board's limits, from the configuration."""
    return SchedulerLimits(
        ageing=config.queue.ageing_seconds,
        max_size=config.queue_size,
        max_in_flight=config.monitoring.max_concurrent_requests,
        candidates=config.load_balancer.candidates,
        grace=config.queue.no_server_grace,
        may_wait=config.enable_queue,
        decisions=config.load_balancer.decisions,
    )


class Dispatcher:
    """One incarnation. The board is built anew from the cells: servers, and the tickets that nobody has settled.

    `on_pause` hears that the queue was paused, or goes on.
    """

    def __init__(self, config: ConfigRef, leases: LeaseContext, on_pause: Callable[[], None]) -> None:
        self._config = config
        self._leases = leases
        self._on_pause = on_pause
        self._scheduler = scheduler = leases.scheduler
        self._servers = leases.servers
        self._now, self._dice = leases.clock.now, leases.clock.chance
        now = trio.current_time()
        rules, policy = rules_of(config.current), self._policy(config.current)
        scheduler.memory.keep_to(rules)
        self.board = Scheduler(rules, policy, self._dice, scheduler.memory, now)
        self._sweep_at = math.inf
        self._rest = trio.CancelScope()

    async def run(self) -> None:
        """Serve the mailbox until cancelled. A crash loses the message in hand at the most; tickets are re-queued.

        At rest, which is nearly always, messages are handled in the sender's turn: then this task only keeps the time.
        """
        self._recover(trio.current_time())
        mailbox = self._scheduler.mailbox
        while True:
            message: DispatcherMail | None = None
            with trio.move_on_at(
                min(self._sweep_at, self._scheduler.bans.next_expiry(), self.board.next_due)
            ) as self._rest:
                message = await mailbox.receive(self._at_once)
            now = trio.current_time()
            if message is None:
                self._tick(now)
                message = mailbox.receive_nowait()  # or mail would wait for as long as anything is due
            # A batch per turn: among hundreds of busy streams, a turn of the event loop is what a grant costs.
            handled = 0
            while message is not None:
                self._handle(message, now)
                handled += 1
                message = mailbox.receive_nowait() if handled < _BATCH else None

    def _at_once(self, message: DispatcherMail) -> None:
        self._handle(message, self._now())

    # The task of this actor sleeps with a deadline computed before: the next sweep, end of a ban, or reconsideration.
    # But at rest the messages are handled in the turns of their senders (see `Mailbox`), without waking it, and one of
    # them may be what has to be looked at earlier: the first ticket that nobody can serve, a ban that ends soon. With
    # nothing to do the deadline is infinite, so a request without a server would not be refused after its grace; nor
    # would later messages help, which do not wake the task either. Hence whoever brings `_sweep_at` or the end of a ban
    # forward calls this. Only ever earlier: a wake-up too many costs one look at what is due, after which the deadline
    # is computed anew, one too few costs a request. Moving the deadline of the scope, rather than cancelling it, leaves
    # the task asleep now. While the task runs, its last scope has been left and the call does nothing; it need not,
    # because the task computes its deadline when it has handled what there is.
    def _wake_by(self, when: float) -> None:
        """A message that is handled while the task rests may bring its next deadline forward."""
        if when < self._rest.deadline:
            self._rest.deadline = when

    def _recover(self, now: float) -> None:
        """After a crash (or at the start): slots are recounted from the open leases, every server is announced, every
        open ticket queued again, oldest first. A ticket that cannot be handled is refused, or it would crash us again.
        """
        open_leases: set[int] = set()
        for cell in self._servers.values():
            cell.state.ledger.keep_only(cell.leases)
            open_leases |= cell.leases.keys()
            self._note_bans(cell.state.id, now)
            self.board.index.update(cell.state, now)
        self._scheduler.memory.total.keep_only(open_leases)
        self._scheduler.expectations.estimates.keep_only(open_leases, now)
        for ticket in sorted(self._scheduler.tickets.values(), key=lambda ticket: (ticket.enqueued, ticket.number)):
            try:
                self._submit(ticket, now)
            except Exception:
                log.exception("request cannot be dispatched", extra={"request_id": ticket.request_id})
                self._refuse(ticket, FleetError("internal error while dispatching this request"))
        self._stir(now)

    def _handle(self, message: DispatcherMail, now: float) -> None:
        """One message. The two that every request sends are asked for first: a match costs more than their handling."""
        if isinstance(message, Submitted):
            self._submit(message.ticket, now)
        elif isinstance(message, SlotFreed):
            self._freed(message.pair, now)
        else:
            self._handle_other(message, now)

    def _handle_other(self, message: OtherMail, now: float) -> None:
        match message:
            case Withdrawn(ticket):
                self.board.withdraw(ticket)
            case ServerChanged(server):
                self._changed(server, now)
            case ServerGone(server):
                self._gone(server, now)
            case GateMoved(pair):
                self._pair_moved(pair, now)
            case BanPair():
                self._ban(message, now)
            case LiftBans():
                self._lift(message, now)
            case PauseQueue():
                self._pause(message, now)
            case Reconfigured():
                self._reconfigure(now)
            case _:
                assert_never(message)
        self._stir(now)

    def _stir(self, now: float) -> None:
        """Those who were passed over, or are shut out, may be all that is left for somebody who waits."""
        for server in self.board.index.stirred():
            self._serve(server, now)
        for pairs in self.board.index.stranded():
            self._leases.breakers.rescue(pairs)

    def _reconfigure(self, now: float) -> None:
        """Go on by the rules of the new configuration: who waits goes on waiting, what runs goes on running."""
        config = self._config.current
        self.board.reconfigure(rules_of(config), self._policy(config), now)
        self._serve_anywhere(now)
        if len(self.board.queue):
            self._sweep_at = min(self._sweep_at, now + self.board.rules.grace / 2)
            self._wake_by(self._sweep_at)

    def _policy(self, config: Config) -> BalancingPolicy:
        """What is expected of requests outlives us, as it outlives another policy."""
        if config.load_balancer.policy == ExpectedCompletion.name:
            return self._scheduler.expectations
        return make_policy(config, self._dice)

    # ---- tickets

    def _submit(self, ticket: PendingTicket, now: float) -> None:
        if not ticket.open or ticket in self.board.queue:
            return
        if ticket.pinned and self._turn_away(ticket, now):
            return
        if self.board.policy.prices is not None and ticket.profile is None:
            announce(self._scheduler, ticket, now)
        try:
            grant = self.board.submit(ticket, now)
        except FleetError as refusal:
            self._refuse(ticket, refusal)
            return
        if grant is not None:
            self._grant(ticket, grant, now)
            return
        self._sweep_at = min(self._sweep_at, now + self.board.rules.grace / 2)
        self._wake_by(min(self._sweep_at, self.board.next_due))

    def _refuse(self, ticket: PendingTicket, refusal: FleetError) -> None:
        self._scheduler.tickets.pop(ticket.number, None)
        if isinstance(refusal, NoServer):
            self._scheduler.unserved.note(ticket.model, self._now())
        if ticket.open:
            ticket.refuse(refusal)

    def _grant(self, ticket: PendingTicket, grant: Grant, now: float) -> None:
        """Give the lease; a grant that nobody can use any more is taken back."""
        cell = self._servers.get(grant.server.id)
        if cell is None or cell.state is not grant.server:  # removed; the message that says so is still behind us
            self.board.undo(grant)
            self.board.index.remove(grant.server, now)
            self.board.moved(grant.server)
            self._submit(ticket, now)
            return
        if not ticket.open:  # its waiter left; likewise
            self.board.undo(grant)
            return
        assert ticket.call is not None
        try:
            lease = Lease(self._leases, cell, grant, ticket.call, now)
        except Exception:  # we crash, and the ticket is queued again; slot and permit must not stay behind
            if cell.leases.pop(grant.number, None) is not None:
                self._servers.in_flight -= 1
            self.board.undo(grant)
            raise
        ticket.grant(lease)
        self._scheduler.tickets.pop(ticket.number, None)
        if grant.server.learns and ticket.profile is None:
            announce(self._scheduler, ticket, now, thoroughly=False)
        if ticket.profile is not None and ticket.runs:  # last: should it fail, nobody waits for what we have in hand
            self._scheduler.expectations.sent(ticket, grant.number, grant.server, now)
            lease.expect()

    # ---- servers

    def _freed(self, pair: Pair, now: float) -> None:
        cell = self._servers.get(pair.server)
        if cell is not None:
            self.board.freed(cell.state, pair.model, now)
        self._serve(pair.server, now)

    def _changed(self, server: ServerId, now: float) -> None:
        cell = self._servers.get(server)
        if cell is None:
            return
        self._note_bans(server, now)
        self.board.index.update(cell.state, now)
        self.board.moved(cell.state)
        self._serve(server, now)

    def _gone(self, server: ServerId, now: float) -> None:
        state = self.board.index.servers.get(server)
        cell = self._servers.get(server)
        if state is not None and (cell is None or cell.state is not state):
            self.board.index.remove(state, now)
            self.board.moved(state)
        self._scheduler.bans.lift_server(server)
        self._serve(server, now)

    def _serve(self, server: ServerId, now: float) -> None:
        """Hand out what this server can take; under a fleet-wide cap, what any server can take, in order."""
        state = self.board.index.servers.get(server)
        if self.board.rules.max_in_flight is not None:
            if state is not None:
                self.board.index.update_slots(state)
            self._serve_anywhere(now)
        elif state is not None:
            for ticket, grant in self.board.serve(state, now):
                self._give(ticket, grant, now)
        if len(self.board.queue):
            self._wake_by(self.board.next_due)

    def _serve_anywhere(self, now: float) -> None:
        for ticket, grant in self.board.serve_anywhere(now):
            self._give(ticket, grant, now)
        self._wake_by(self.board.next_due)

    def _give(self, ticket: Ticket, grant: Grant, now: float) -> None:
        assert isinstance(ticket, PendingTicket)
        self._grant(ticket, grant, now)

    # ---- gates and bans

    def _pair_moved(self, pair: Pair, now: float) -> None:
        cell = self._servers.get(pair.server)
        if cell is None:
            return
        self._note_bans(pair.server, now)
        self.board.index.update_pair(cell.state, pair.model, now)
        self.board.moved(cell.state)
        self._serve(pair.server, now)

    def _pairs_moved(self, pairs: Iterable[Pair], now: float) -> None:
        """As `_pair_moved`, for as many as there may be: each server is looked at once."""
        models: dict[ServerId, list[ModelName]] = {}
        for pair in pairs:
            models.setdefault(pair.server, []).append(pair.model)
        for server, moved in models.items():
            cell = self._servers.get(server)
            if cell is not None:
                self._note_bans(server, now)
                for model in moved:
                    self.board.index.update_pair(cell.state, model, now)
                self.board.moved(cell.state)
                self._serve(server, now)

    def _ban(self, message: BanPair, now: float) -> None:
        kept = keep(self._scheduler.bans, self._servers, message, now)
        self._pairs_moved(self._scheduler.bans.displaced(), now)
        if not kept:
            return
        self._wake_by(message.until)
        if not message.cooldown:
            for ticket in [each for each in self._scheduler.tickets.values() if each.pinned == message.pair.server]:
                self._turn_away(ticket, now)
        self._pair_moved(message.pair, now)

    def _lift(self, message: LiftBans, now: float) -> None:
        gone = self._scheduler.bans.lift_matching(message.server, message.model, message.kind)
        self._pairs_moved([ban.pair for ban in gone], now)
        if message.done is not None:
            message.done.resolve(tuple(ban for ban in gone if ban.holds(now)))

    def _turn_away(self, ticket: PendingTicket, now: float) -> bool:
        """Refuse a ticket that insists on a banned server; True if it did."""
        refusal = turned_away(self._scheduler.bans, ticket, now)
        if refusal is None or not ticket.open:
            return False
        self.board.withdraw(ticket)
        self._refuse(ticket, refusal)
        return True

    def _pause(self, message: PauseQueue, now: float) -> None:
        memory = self._scheduler.memory
        if memory.paused != message.paused:
            memory.paused, memory.paused_since, memory.paused_by = message.paused, now, message.by
            self._on_pause()
        self._serve_anywhere(now)
        if message.done is not None:
            message.done.resolve(None)

    def _note_bans(self, server: ServerId, now: float) -> None:
        """Mirror the bans into the server's state, where the index reads them."""
        state = self._servers[server].state
        bans = self._scheduler.bans
        if len(bans) or state.barred:
            state.barred, state.cooling = bans.barred(server, now), bans.cooling(server, now)
            self._wake_by(bans.next_expiry())

    def _tick(self, now: float) -> None:
        expired = self._scheduler.bans.expire(now)
        for pair in expired:
            if (cell := self._servers.get(pair.server)) and (stats := cell.state.stats.get(pair.model)):
                stats.cooling.rested()
        self._pairs_moved(expired, now)
        self._stir(now)
        for ticket, grant in self.board.serve_due(now):
            self._give(ticket, grant, now)
        if now < self._sweep_at:
            return
        for ticket, refusal in self.board.sweep(now):
            assert isinstance(ticket, PendingTicket)
            self._refuse(ticket, refusal)
        self._sweep_at = now + self.board.rules.grace / 2 if len(self.board.queue) else math.inf
