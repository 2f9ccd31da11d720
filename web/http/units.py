"""What the admin views share: units, and names of states."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, overload

import trio

from fleet.common.times import iso, milliseconds
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


@overload
def epoch(moment: float) -> float: ...
@overload
def epoch(moment: float | None) -> float | None: ...
def epoch(moment: float | None) -> float | None:
    """Seconds since 1970 of a moment on Trio's clock."""
    return None if moment is None else time.time() - (trio.current_time() - moment)


@overload
def epoch_ms(moment: float) -> int: ...
@overload
def epoch_ms(moment: float | None) -> int | None: ...
def epoch_ms(moment: float | None) -> int | None:
    """Milliseconds since 1970 of a moment on Trio's clock."""
    return milliseconds(epoch(moment))


def now_iso() -> str:
    """The time of day."""
    return iso(time.time())


def is_healthy(cell: ServerCell) -> bool:
    """Whether the probes reach it, whatever the operator says."""
    return cell.state.health is Health.HEALTHY
