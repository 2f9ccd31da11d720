"""What an operator may tell the running fleet about its requests: pause, ban, lift, cancel.

Every order is given synchronously. Where the dispatcher has to carry it out, the promise says when it has; await it
with `actors.kit.reply.heard`, at the edges only.
"""

from __future__ import annotations

from typing import Final

from actors.kit.mailbox import Promise
from actors.state.messages import BanPair, LiftBans, PauseQueue, Withdrawn
from actors.state.scheduler_state import SchedulerState
from actors.state.servers import Servers
from fleet.breakers.outcomes import Revoked
from fleet.common.errors import QueueCancelled, RequestCancelled
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.scheduling.bans import Ban, BanKind

_WHAT_NOW: Final = "an operator ended it; ask them before you send it again"


class RequestOrders:
    """Given from any task."""

    def __init__(self, scheduler: SchedulerState, servers: Servers) -> None:
        self._scheduler = scheduler
        self._servers = servers

    def pause(self, paused: bool, by: str = "") -> Promise[None]:
        """Let everybody wait, or go on. What runs goes on in any case."""
        done = Promise[None]()
        self._scheduler.mailbox.cast(PauseQueue(paused, by, done))
        return done

    def ban(self, pair: Pair, reason: str, until: float, by: str) -> Promise[Ban]:
        """Keep a pair away from new requests until `until` (our clock; inf: until lifted), in place of an older ban.

        Refused with ServerNotFound, and with Conflict when there is no room for another.
        """
        done = Promise[Ban]()
        self._scheduler.mailbox.cast(BanPair(pair, reason, until, by=by, done=done))
        return done

    def lift(
        self, server: ServerId | None = None, model: ModelName | None = None, kind: BanKind | None = None
    ) -> Promise[tuple[Ban, ...]]:
        """End all bans and cooldowns of a server, a model and a kind (None: of any); those that held are told."""
        done = Promise[tuple[Ban, ...]]()
        self._scheduler.mailbox.cast(LiftBans(server, model, kind, done))
        return done

    def cancel_waiting(self, request_id: str) -> int:
        """Refuse everybody who waits under this id (clients choose it, so they may be several); how many they were."""
        scheduler = self._scheduler
        found = [ticket for ticket in scheduler.tickets.values() if ticket.request_id == request_id and ticket.open]
        for ticket in found:
            scheduler.tickets.pop(ticket.number, None)
            ticket.refuse(QueueCancelled("the request was cancelled while it waited", details=_WHAT_NOW))
            scheduler.mailbox.cast(Withdrawn(ticket))
        return len(found)

    def cancel_running(self, request_id: str) -> int:
        """Revoke every lease under this id; no other server is tried. How many they were."""
        cells = self._servers.values()
        found = [lease for cell in cells for lease in cell.leases.values() if lease.request_id == request_id]
        for lease in found:
            error = RequestCancelled("the request was cancelled", details=_WHAT_NOW)
            lease.revoke(Revoked("cancelled", error))
        return len(found)
