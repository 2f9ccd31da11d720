"""What a ban means to those who ask for one and to those whom it turns away."""

from __future__ import annotations

import logging

from actors.state.messages import BanPair
from actors.state.servers import Servers
from fleet.common.errors import Conflict, FleetError, NoServer, ServerNotFound
from fleet.common.ids import Pair
from fleet.scheduling.bans import BanKind, Bans
from fleet.scheduling.wait_queue import Ticket

log = logging.getLogger("fleet.dispatcher")

_LONGEST_WAIT = 300.0


def keep(bans: Bans, servers: Servers, message: BanPair, now: float) -> bool:
    """Enter a ban, and answer whoever asked for it; False if it was refused.

    Only of servers there are: whoever takes the name of a removed one later shall not inherit its bans.
    """
    pair, kind = message.pair, BanKind.COOLDOWN if message.cooldown else BanKind.BAN
    refusal = _refusal(bans, servers, message, kind, now)
    ban = bans.get(pair, kind, now)
    if message.done is None:
        if isinstance(refusal, Conflict):
            log.error(refusal.message, extra={"server": pair.server, "model": pair.model})
    elif refusal is None and ban is not None:
        message.done.resolve(ban)
    else:
        message.done.reject(refusal or Conflict("the ban was over before it began"))
    return refusal is None


def turned_away(bans: Bans, ticket: Ticket, now: float) -> FleetError | None:
    """The refusal for a ticket that asks by name for a server that is banned from its model, or None.

    A ban is meant for those too; a breaker or a cooldown is not.
    """
    if ticket.pinned is None or not ticket.runs:
        return None
    ban = bans.get(Pair(ticket.pinned, ticket.model), BanKind.BAN, now)
    if ban is None:
        return None
    what = f"server '{ticket.pinned}' is banned from model '{ticket.model}'"
    wait = min(max(ban.expires_at - now, 1.0), _LONGEST_WAIT)
    return NoServer(what, details=ban.reason, retry_after=wait)


def _refusal(bans: Bans, servers: Servers, message: BanPair, kind: BanKind, now: float) -> FleetError | None:
    pair = message.pair
    if pair.server not in servers:
        return ServerNotFound(f"server '{pair.server}' not found")
    if bans.add(pair, message.reason, now, kind=kind, until=message.until, by=message.by):
        return None
    return Conflict("no room for another ban", details=f"there are {len(bans)}, the most there may be: lift some")
