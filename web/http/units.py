"""What the admin views share: units, and names of states."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, overload

import trio

from fleet.scheduling.server_state import Admin, Health

if TYPE_CHECKING:
    from actors.state.servers import ServerCell
    from fleet.scheduling.server_state import ServerState

ROOT: Final = "/api/orchestrator"
_TURN: Final = 25
"""Entries of an answer that are made before others get a turn: half a millisecond or so."""


async def take_turns(number: int) -> None:
    """Let requests go first, now and then: to be awaited after each of many entries of an answer, `number` rising."""
    if number % _TURN == _TURN - 1:
        await trio.lowlevel.checkpoint()


@overload
def milliseconds(seconds: float) -> int: ...
@overload
def milliseconds(seconds: float | None) -> int | None: ...
def milliseconds(seconds: float | None) -> int | None:
    """Whole milliseconds."""
    return None if seconds is None else round(seconds * 1000)


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


@overload
def iso(epoch_seconds: float) -> str: ...
@overload
def iso(epoch_seconds: float | None) -> str | None: ...
def iso(epoch_seconds: float | None) -> str | None:
    """ISO 8601 in UTC, with milliseconds."""
    if epoch_seconds is None:
        return None
    moment = datetime.fromtimestamp(round(epoch_seconds * 1000) / 1000, UTC)  # rounded as in `milliseconds`
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now_iso() -> str:
    """The time of day."""
    return iso(time.time())


def status_of(state: ServerState) -> str:
    """One word for a server: what the operator says if that is anything but `active`, else what the probes say."""
    return state.health.value if state.admin is Admin.ACTIVE else state.admin.value


def is_healthy(cell: ServerCell) -> bool:
    """Whether the probes reach it, whatever the operator says."""
    return cell.state.health is Health.HEALTHY
