"""The dispatcher: one actor that owns the queue and the scoring, and grants leases."""

from __future__ import annotations

import logging
import math
from typing import assert_never

import trio

from actors.cells import FleetCell
from actors.lease import Lease
from actors.messages import (
    BanPair,
    DispatcherMail,
    GateMoved,
    LeaseOpened,
    LiftBan,
    PauseQueue,
    ServerChanged,
    ServerGone,
    SlotFreed,
    Submitted,
    Withdrawn,
)
from actors.ticket import PendingTicket
from fleet.bans import BanKind
from fleet.board import Board
from fleet.errors import FleetError
from fleet.grants import Grant, Rules
from fleet.ids import Pair, ServerId
from fleet.scoring import make_policy

log = logging.getLogger("fleet.dispatcher")


def rules_of(fleet: FleetCell) -> Rules:
    """The board's limits, from the configuration."""
    config = fleet.config
    return Rules(
        ageing=config.queue.ageing_seconds,
        max_size=config.queue_size,
        max_in_flight=config.monitoring.max_concurrent_requests,
        candidates=config.load_balancer.candidates,
        grace=config.queue.no_server_grace,
        may_wait=config.enable_queue,
        decisions=config.load_balancer.decisions,
    )


class Dispatcher:
    """One incarnation. The board is built anew from the cells: servers, and the tickets that nobody has settled."""

    def __init__(self, fleet: FleetCell) -> None:
        self._fleet = fleet
        now = trio.current_time()
        policy = make_policy(fleet.config, fleet.chance)
        self.board = Board(rules_of(fleet), policy, fleet.chance, fleet.memory, now)
        self._sweep_at = math.inf

    async def run(self) -> None:
        """Serve the mailbox until cancelled. A crash loses the message in hand at the most; tickets are re-queued."""
        self._recover(trio.current_time())
        while True:
            message: DispatcherMail | None = None
            with trio.move_on_at(min(self._sweep_at, self._fleet.bans.next_expiry())):
                message = await self._fleet.dispatcher.receive()
            now = trio.current_time()
            if message is None:
                self._tick(now)
            else:
                self._handle(message, now)

    def _recover(self, now: float) -> None:
        """After a crash (or at the start): every server is announced, every open ticket queued again, oldest first."""
        for cell in self._fleet.servers.values():
            self._note_bans(cell.state.id, now)
            self.board.index.update(cell.state, now)
        for ticket in sorted(self._fleet.tickets.values(), key=lambda ticket: (ticket.enqueued, ticket.number)):
            ticket.waiting = False
            self._submit(ticket, now)

    def _handle(self, message: DispatcherMail, now: float) -> None:
        match message:
            case Submitted(ticket):
                self._submit(ticket, now)
            case Withdrawn(ticket):
                self.board.withdraw(ticket)
            case SlotFreed(pair):
                self._freed(pair, now)
            case ServerChanged(server):
                self._changed(server, now)
            case ServerGone(server):
                self._gone(server, now)
            case GateMoved(pair):
                self._pair_moved(pair, now)
            case BanPair():
                self._ban(message, now)
            case LiftBan(pair):
                self._fleet.bans.lift(pair)
                self._pair_moved(pair, now)
            case PauseQueue(paused):
                self._fleet.memory.paused = paused
                self._serve_anywhere(now)
            case _:
                assert_never(message)

    # ---- tickets

    def _submit(self, ticket: PendingTicket, now: float) -> None:
        if not ticket.open or ticket.waiting:
            return
        try:
            grant = self.board.submit(ticket, now)
        except FleetError as refusal:
            self._settle(ticket, None, refusal, now)
            return
        if grant is not None:
            self._settle(ticket, grant, None, now)
        elif self._sweep_at == math.inf:
            self._sweep_at = now + self.board.rules.grace / 2

    def _settle(self, ticket: PendingTicket, grant: Grant | None, refusal: FleetError | None, now: float) -> None:
        """Give the answer; a ticket is never left half-granted, whatever happens to its waiter meanwhile."""
        self._fleet.tickets.pop(ticket.number, None)
        if refusal is not None:
            ticket.refuse(refusal)
            return
        assert grant is not None
        assert ticket.call is not None
        cell = self._fleet.servers[grant.server.id]
        ticket.grant(Lease(self._fleet, cell, grant, ticket.call, now))
        if len(cell.leases) == 1:
            cell.mailbox.cast(LeaseOpened())

    # ---- servers

    def _freed(self, pair: Pair, now: float) -> None:
        cell = self._fleet.servers.get(pair.server)
        if cell is None:
            return
        self.board.freed(cell.state, pair.model, now)
        self._serve(pair.server, now)
        if self.board.rules.max_in_flight is not None:
            self._serve_anywhere(now)

    def _changed(self, server: ServerId, now: float) -> None:
        cell = self._fleet.servers.get(server)
        if cell is None:
            return
        self._note_bans(server, now)
        self.board.index.update(cell.state, now)
        self._serve(server, now)

    def _gone(self, server: ServerId, now: float) -> None:
        state = self.board.index.servers.get(server)
        if state is not None:
            self.board.index.remove(state, now)

    def _serve(self, server: ServerId, now: float) -> None:
        """Hand out what this server can take."""
        state = self.board.index.servers.get(server)
        if state is not None:
            for given in self.board.serve(state, now):
                self._give(given, now)

    def _serve_anywhere(self, now: float) -> None:
        while given := self.board.next_anywhere(now):
            self._give(given, now)

    def _give(self, given: tuple[object, Grant], now: float) -> None:
        ticket, grant = given
        assert isinstance(ticket, PendingTicket)
        if ticket.open:
            self._settle(ticket, grant, None, now)
        else:  # its waiter left; the message that says so is still in the mailbox, behind the one in hand
            self.board.undo(grant, now)

    # ---- gates and bans

    def _pair_moved(self, pair: Pair, now: float) -> None:
        cell = self._fleet.servers.get(pair.server)
        if cell is None:
            return
        self._note_bans(pair.server, now)
        self.board.index.update_pair(cell.state, pair.model, now)
        self._serve(pair.server, now)

    def _ban(self, message: BanPair, now: float) -> None:
        kind = BanKind.COOLDOWN if message.cooldown else BanKind.BAN
        if not self._fleet.bans.add(message.pair, message.reason, now, kind=kind, until=message.until):
            log.error("no room for another ban", extra={"server": message.pair.server, "model": message.pair.model})
        self._pair_moved(message.pair, now)

    def _note_bans(self, server: ServerId, now: float) -> None:
        """Mirror the bans into the server's state, where the index reads them."""
        state = self._fleet.servers[server].state
        bans = self._fleet.bans
        if len(bans) or state.barred:
            state.barred = {ban.pair.model for ban in bans.list(now) if ban.pair.server == server}

    def _tick(self, now: float) -> None:
        for pair in self._fleet.bans.expire(now):
            self._pair_moved(pair, now)
        if now < self._sweep_at:
            return
        for ticket, refusal in self.board.sweep(now):
            assert isinstance(ticket, PendingTicket)
            if ticket.open:
                self._settle(ticket, None, refusal, now)
        self._sweep_at = now + self.board.rules.grace / 2 if self.board.queue.size else math.inf
