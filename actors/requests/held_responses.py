"""Answers held back for a moment, so that another server may still be tried: error bodies, beginnings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fleet.breakers.outcomes import Refused
from fleet.common.errors import BackendError, LoopDetected, Phase
from fleet.common.ids import ServerId
from fleet.models.inventory import parsed
from fleet.protocol.headers import MOST_HOPS, field
from fleet.protocol.refusals import Ground

if TYPE_CHECKING:
    from actors.upstream.pool import UpstreamResponse

HOLD: Final = 64 * 1024
"""Most bytes of an answer that are held back."""

_BETTER: Final = {503: 4, 429: 4, 502: 3, 504: 3}
_WORSE: Final = {Ground.MODEL: 1, Ground.STANDING: 0, Ground.ROUTE: 0}
"""Which refusal tells the client most: "busy" says come back, "no such model" would make it download one."""


@dataclass(slots=True)
class HeldResponse:
    """A backend's error response, kept for the case that nobody else does better. `end` is what it means."""

    response: UpstreamResponse
    body: bytes
    server: ServerId
    end: Refused

    def outranks(self, other: HeldResponse) -> bool:
        """Whether this tells the client more."""
        return self._rank() > other._rank()

    @property
    def retry_after(self) -> float | None:
        """The server's own word on when to come back, in seconds, if it is a plain number."""
        return retry_after(self.response)

    def _rank(self) -> int:
        return _WORSE.get(self.end.ground, _BETTER.get(self.end.status, 2))


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


async def hold_record(response: UpstreamResponse, beat: Callable[[], None]) -> tuple[bytes, bytes]:
    """As `hold`, until the first line of a stream is whole: a server that dies before that has answered nothing."""
    first, raw = await hold(response, 1, beat)
    if b"\n" in first or response.complete:
        return first, raw
    pieces, held = [first], len(first)
    while pieces[-1] and b"\n" not in pieces[-1] and held < HOLD:
        pieces.append(await response.receive())
        held += len(pieces[-1])
        beat()
    return b"".join(pieces), b""


def retry_after(response: UpstreamResponse) -> float | None:
    """When the server wants to be asked again, in seconds, if it says so in a plain number."""
    value = field(response.headers, b"retry-after") or b""
    return float(value) if value.isdigit() and len(value) <= 6 else None


def before_first_byte(error: BackendError) -> BackendError:
    """A body that breaks before anything reached the client is, to the client, an answer that never began."""
    if error.phase is Phase.BODY:
        error.phase = Phase.HEADERS
    return error


def name_server(error: BackendError, address: str, server: ServerId) -> None:
    """Clients get to know a server's id, never its address."""
    error.message = error.message.replace(address, f"server '{server}'")


def refuse_loop(hop: bytes, seen: Sequence[bytes]) -> None:
    """Raises LoopDetected when a request that came through these fleets has been here (`hop`), or through too many."""
    if seen and (hop in seen or len(seen) >= MOST_HOPS):
        raise LoopDetected(
            "this request has come through this fleet before", details="a server of it is the fleet itself"
        )


def error_text(body: bytes) -> str | None:
    """The text of a JSON error of any dialect, cut; None if the body is not one (a 404 page, say).

    A stream's first record counts too, with or without the framing of an event.
    """
    error: object = (_object(body) or _object(_first_record(body))).get("error")
    if isinstance(error, dict):
        error = error.get("message")
    return error[:500] if isinstance(error, str) else None


def page_text(body: bytes) -> str:
    """The beginning of a refusal that is no JSON error, for comparing it with another."""
    return body[:500].decode("utf-8", "replace").strip()


def _first_record(body: bytes) -> bytes:
    lines = (line.removeprefix(b"data:").strip() for line in body.split(b"\n", 3)[:3])
    return next((line for line in lines if line.startswith(b"{")), b"")


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = parsed(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
