"""How an attempt ended, by what word it is known, and whether another server may be tried.

`retryable_elsewhere` decides by type and by what a refusal is about, which `refusals` says. Who is to blame, and what
an end counts as, is said by `failure_classes`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from fleet.common.errors import BackendError, FleetError
from fleet.protocol.refusals import WITNESSED, Ground, gist, ground, is_death_text

REPEATS: Final = 30
"""Ollama gives up on a model that says the same token more often than that in a row, and tells nobody."""
_FULL: Final = (429, 503)


class Signal(enum.Enum):
    """What a breaker learns from one attempt."""

    SUCCESS = "success"
    NEUTRAL = "neutral"
    SOFT_FAILURE = "soft_failure"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Completed:
    """The whole answer went through."""

    status: int


@dataclass(frozen=True, slots=True)
class Incomplete:
    """A stream ended cleanly but without its final record; a normal outcome of Ollama's (repeated tokens).

    `early`: not after `REPEATS` records, so that it cannot have been that.
    """

    status: int
    early: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The backend answered with an error: by its status, or in the first record of a 200.

    `text` is its error text, cut; `missing` a JSON 404 for the model; `ours` whether it is an error in the API's own
    JSON, not a page of something that stands before the server; `asked` the seconds after which it wants to be asked
    again, by its own word.
    """

    status: int
    text: str = ""
    missing: bool = False
    ours: bool = True
    asked: float = 0.0

    @property
    def busy(self) -> bool:
        """Whether the server has enough to do: the request goes back into the line, and nobody is to blame."""
        return self.status in _FULL and self.ground is Ground.BUSY

    @property
    def ground(self) -> Ground:
        """What it is about."""
        return ground(self.status, self.text, missing=self.missing, ours=self.ours)

    @property
    def deadly(self) -> bool:
        """Whether a runner died at work with the request, or with another beside it."""
        return self.ground is Ground.CRASH and is_death_text(self.text)

    def agrees(self, other: Refused) -> bool:
        """Whether two servers said the same of a request, and so that it is the request's fault.

        In what words they mourn their runners makes no difference.
        """
        if self.deadly and other.deadly:
            return True
        if self.status != other.status or self.ground is not other.ground or self.ground not in WITNESSED:
            return False
        return gist(self.text) == gist(other.text)


@dataclass(frozen=True, slots=True)
class Failed:
    """The backend could not be reached, broke or stalled."""

    error: BackendError


@dataclass(frozen=True, slots=True)
class StreamError:
    """The backend reported an error inside a 200 stream."""

    text: str


@dataclass(frozen=True, slots=True)
class ClientLeft:
    """The client closed its connection, or stopped reading for too long (`stalled`)."""

    stalled: bool = False


@dataclass(frozen=True, slots=True)
class Revoked:
    """We took the lease back: drain over, server removed, fleet stopping.

    With an `error`, for good: that is what the client gets, and no other server is tried.
    """

    why: str
    error: FleetError | None = None


End = Completed | Incomplete | Refused | Failed | StreamError | ClientLeft | Revoked


def retryable_elsewhere(end: End) -> bool:
    """Whether another server may do better, provided that no byte reached the client."""
    match end:
        case Failed():
            return True
        case Revoked(error=error):
            return error is None
        case Refused():
            return end.ground is not Ground.CLIENT
        case _:
            return False


def is_death(end: End) -> bool:
    """Whether a runner died at work: one death, of which all who were there tell."""
    match end:
        case Refused():
            return end.deadly
        case StreamError(text=text):
            return is_death_text(text)
        case _:
            return False


def kind(end: End) -> str:
    """A short fixed word for logs, metrics and history."""
    match end:
        case Completed():
            return "completed"
        case Incomplete():
            return "incomplete"
        case Refused(status=status):
            return f"refused_{status}" if status != 200 else "stream_error"
        case Failed(error=error):
            return error.reason.lower()
        case StreamError():
            return "stream_error"
        case ClientLeft(stalled=stalled):
            return "client_stalled" if stalled else "client_left"
        case Revoked(error=refusal):
            return "revoked" if refusal is None else refusal.reason.lower()
