"""What the admin views share: whose turn it is, and how a server is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from fleet.scheduling.server_state import Health

if TYPE_CHECKING:
    from actors.state.servers import ServerCell

ROOT: Final = "/api/orchestrator"
_TURN: Final = 25
"""Entries of an answer that are made before others get a turn: half a millisecond or so."""


async def take_turns(number: int) -> None:
    """Let requests go first, now and then: to be awaited after each of many entries of an answer, `number` rising."""
    if number % _TURN == _TURN - 1:
        await trio.lowlevel.checkpoint()


def is_healthy(cell: ServerCell) -> bool:
    """Whether the probes reach it, whatever the operator says."""
    return cell.state.health is Health.HEALTHY
