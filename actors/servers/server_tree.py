"""The branch of one server in the tree of actors: its actor and its health loop, side by side."""

from __future__ import annotations

import logging
from functools import partial

import trio

from actors.kit.supervisor import RestartLimit, supervise
from actors.requests.stall_watch import EVERY, check
from actors.servers.health_probe import run_health
from actors.servers.server_actor import ServerActor
from actors.servers.server_context import ServerContext
from actors.state.messages import ServerChanged
from actors.state.servers import ServerCell
from fleet.breakers.outcomes import Revoked
from fleet.scheduling.server_state import Health

log = logging.getLogger("fleet.server")

_RETRY = 30.0
"""Seconds until a server whose actor kept crashing is tried again."""


async def run_server(context: ServerContext, cell: ServerCell) -> None:
    """Keep one server's branch alive until `cell.scope` is cancelled; then close its connections.

    Never takes the other servers along.
    """
    try:
        with cell.scope:
            while True:
                await _run_branch(context, cell)
    finally:
        cell.pool.close()
        with trio.move_on_after(1.0, shield=True):
            await cell.client.aclose()


async def _run_branch(context: ServerContext, cell: ServerCell) -> None:
    """Runs until the branch gives up; then the server counts as down, and after a while it is tried again."""
    about = {"server": cell.state.id}
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervise, f"server {cell.state.id}", lambda: ServerActor(context, cell).run())
            nursery.start_soon(supervise, f"health {cell.state.id}", partial(run_health, context, cell))
    except* RestartLimit:
        log.error("server is given up for %g s: its actor keeps crashing", _RETRY, extra=about)
        cell.state.judge(Health.UNHEALTHY, trio.current_time(), "its actor keeps crashing")
        context.scheduler.mailbox.cast(ServerChanged(cell.state.id))
    await _rest(context, cell)


async def _rest(context: ServerContext, cell: ServerCell) -> None:
    """Nobody serves the mailbox for a while; what runs goes on, within the limits that it always has."""
    until = trio.current_time() + _RETRY
    while (now := trio.current_time()) < until:
        try:
            check(context.config.current, context.breakers, cell, now)
        except Exception:  # perhaps the very thing that crashed the actor
            log.exception("open requests cannot be looked at", extra={"server": cell.state.id})
        await trio.sleep_until(min(now + EVERY, until))


def cut(cell: ServerCell, why: str) -> None:
    """End everything that is open on a server, now."""
    for lease in list(cell.leases.values()):
        lease.revoke(Revoked(why))
    for running in list(cell.transfers):
        running.revoke(why)
