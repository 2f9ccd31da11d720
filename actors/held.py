"""Answers held back for a moment, so that another server may still be tried: error bodies, beginnings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson

from fleet.errors import BackendError, LoopDetected, Phase
from fleet.headers import MOST_HOPS
from fleet.ids import ServerId

if TYPE_CHECKING:
    from actors.cells import FleetCell
    from actors.transport import UpstreamResponse

HOLD: Final = 64 * 1024
"""Most bytes of an answer that are held back."""

_BETTER: Final = {503: 3, 429: 3, 502: 2, 504: 2, 500: 1}
"""Which refusal tells the client most: "busy" says come back, "no such model" (0) would make it download one."""


@dataclass(slots=True)
class Saved:
    """A backend's error response, kept for the case that nobody else does better."""

    response: UpstreamResponse
    body: bytes
    server: ServerId

    def outranks(self, other: Saved | None) -> bool:
        return other is None or _BETTER.get(self.response.status, 0) > _BETTER.get(other.response.status, 0)


async def hold(response: UpstreamResponse, most: int, beat: Callable[[], None]) -> tuple[bytes, bytes]:
    """Body bytes until the end or until at least `most` are there, and `raw` if one read gave them all.

    `beat` is called whenever some came.
    """
    first = await response.receive()
    if response.complete or len(first) >= most:
        return first, response.raw
    pieces = [first]
    held = len(first)
    while pieces[-1] and held < most and not response.complete:
        beat()
        pieces.append(await response.receive())
        held += len(pieces[-1])
    return b"".join(pieces), b""


def before_first_byte(error: BackendError) -> BackendError:
    """A body that breaks before anything reached the client is, to the client, an answer that never began."""
    if error.phase is Phase.BODY:
        error.phase = Phase.HEADERS
    return error


def name_server(error: BackendError, address: str, server: ServerId) -> None:
    """Clients get to know a server's id, never its address."""
    error.message = error.message.replace(address, f"server '{server}'")


def refuse_loop(fleet: FleetCell, seen: Sequence[bytes]) -> None:
    """Raises LoopDetected when a request that came through these fleets has been here before, or through too many."""
    if seen and (fleet.hop in seen or len(seen) >= MOST_HOPS):
        raise LoopDetected(
            "this request has come through this fleet before", details="a server of it is the fleet itself"
        )


def error_text(body: bytes) -> str | None:
    """The text of a JSON error of any dialect, cut; None if the body is not one (a 404 page, say)."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    error = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, dict):
        error = error.get("message")
    return error[:500] if isinstance(error, str) else None
