"""What ends a request that stalls or takes too long: a look at everything open on one server, now and then."""

from __future__ import annotations

import math
from typing import Final

from actors.state.lease import Lease, Outcomes, WaitingFor
from actors.state.servers import ServerCell
from fleet.breakers.outcomes import ClientLeft, Failed, Revoked
from fleet.common.errors import FirstByteTimeout, IdleTimeout, Phase
from fleet.config import Config

EVERY: Final = 1.0
"""Seconds between two looks at the most."""


def check(config: Config, breakers: Outcomes, cell: ServerCell, now: float) -> None:
    """Revoke what has stalled or whose time is up; note whether anything is left to look at."""
    for lease in list(cell.leases.values()):
        _check_lease(config, breakers, lease, now)
    for running in list(cell.transfers):
        running.check(now, config)
    cell.watched = bool(cell.leases or cell.transfers)


def next_check(cell: ServerCell, now: float) -> float:
    """When to look again: soon, and no later than the first limit that is known beforehand."""
    return min(now + EVERY, min(map(_due, cell.leases.values()), default=math.inf))


def _due(lease: Lease) -> float:
    return lease.deadline if lease.streaming else min(lease.deadline, lease.first_byte_by)


def _check_lease(config: Config, breakers: Outcomes, lease: Lease, now: float) -> None:
    if not lease.streaming and now >= lease.first_byte_by:
        lease.revoke(_no_answer(lease, lease.first_byte_by - lease.started))
    elif now >= lease.deadline:
        lease.revoke(_out_of_time(config, lease, now))
    elif lease.waiting is not WaitingFor.BACKEND:
        if now - lease.beat >= config.timeouts.write:
            lease.revoke(ClientLeft(stalled=True))
    elif lease.streaming:
        _check_stream(config, breakers, lease, now - lease.beat)


def _out_of_time(config: Config, lease: Lease, now: float) -> Failed | Revoked:
    """A server that had its time and gave nothing is to blame, or nobody would ever learn that it hangs.

    (A generation in one piece has no limit but the deadline.) Who is late because of something else is not.
    """
    silent = lease.first_byte is None and lease.waiting is WaitingFor.BACKEND
    if silent and now - lease.started >= config.timeouts.first_byte:
        return _no_answer(lease, now - lease.started)
    return Revoked("total timeout")


def _check_stream(config: Config, breakers: Outcomes, lease: Lease, silent: float) -> None:
    if lease.generation and silent < EVERY:
        breakers.alive(lease.pair)
    idle = config.timeouts.idle
    if silent >= idle:
        text = f"server '{lease.pair.server}' was silent for {idle:g} s in the middle of an answer"
        lease.revoke(Failed(IdleTimeout(text, Phase.BODY)))


def _no_answer(lease: Lease, seconds: float) -> Failed:
    what = "no answer" if lease.streaming else "no response headers"
    text = f"server '{lease.pair.server}' sent {what} within {round(seconds, 1):g} s"
    return Failed(FirstByteTimeout(text, Phase.HEADERS))
