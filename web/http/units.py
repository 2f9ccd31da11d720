"""What the admin views share: units, names of states, bodies."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import orjson
import trio

from fleet.common.errors import BadRequest, TooLarge
from fleet.scheduling.server_state import Admin, Health
from web.http.quart_request import whole_body

if TYPE_CHECKING:
    from actors.state.fleet_state import ServerCell
    from fleet.scheduling.server_state import ServerState

ROOT: Final = "/api/orchestrator"
LARGEST: Final = 2**20
"""Bytes of a body of the admin API."""
MOST_VALUES: Final = 5_000
_TURN: Final = 25
"""Entries of an answer that are made before others get a turn: half a millisecond or so."""


async def take_turns(number: int) -> None:
    """Let requests go first, now and then: to be awaited after each of many entries of an answer, `number` rising."""
    if number % _TURN == _TURN - 1:
        await trio.lowlevel.checkpoint()


def milliseconds(seconds: float | None) -> int | None:
    """Whole milliseconds."""
    return None if seconds is None else round(seconds * 1000)


def epoch(moment: float | None) -> float | None:
    """Seconds since 1970 of a moment on Trio's clock."""
    return None if moment is None else time.time() - (trio.current_time() - moment)


def epoch_ms(moment: float | None) -> int | None:
    """Milliseconds since 1970 of a moment on Trio's clock."""
    return milliseconds(epoch(moment))


def iso(epoch_seconds: float | None) -> str | None:
    """ISO 8601 in UTC, with milliseconds."""
    if epoch_seconds is None:
        return None
    moment = datetime.fromtimestamp(round(epoch_seconds * 1000) / 1000, UTC)  # rounded as in `milliseconds`
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now_iso() -> str:
    """The time of day."""
    return iso(time.time()) or ""


def status_of(state: ServerState) -> str:
    """One word for a server: what the operator says if that is anything but `active`, else what the probes say."""
    return state.health.value if state.admin is Admin.ACTIVE else state.admin.value


def is_healthy(cell: ServerCell) -> bool:
    """Whether the probes reach it, whatever the operator says."""
    return cell.state.health is Health.HEALTHY


async def json_object(most: int = MOST_VALUES) -> dict[str, object]:
    """The request body as a JSON object; an empty body is an empty one. Raises BadRequest, TooLarge.

    It must be within `LARGEST` bytes and about `most` values: the event loop reads it, and each value may be a problem
    that is told.
    """
    body = await whole_body()
    if not body.strip():
        return {}
    if len(body) > LARGEST or body.count(b",") > most:  # every value but the first has a comma before it
        raise TooLarge(f"the body may have {LARGEST} bytes, and about {most} values")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest("the body is not valid JSON", details=str(error)) from None
    if not isinstance(value, dict):
        raise BadRequest("the body must be a JSON object")
    return value
