"""How an attempt ended, who is to blame, and whether another server may be tried.

`classify` gives the breaker one of four signals; `retryable_elsewhere` says whether failover makes sense. Both decide
by type, phase and status; Ollama's own known texts are the last resort, for its 500s (many are the client's fault).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from fleet.errors import BackendError, FleetError


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
    """A stream ended cleanly but without its final record; a normal outcome of Ollama's (repeated tokens)."""

    status: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The backend answered with an error status. `text` is its error text, cut; `missing` a JSON 404 for the model."""

    status: int
    text: str = ""
    missing: bool = False


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

_CRASH_TEXTS = (
    "runner has unexpectedly stopped",
    "llama-server process",
    "error starting llama-server",
    "timed out waiting for llama-server",
    "out-of-memory",
    "out of memory",
    "may be incompatible",
    "llama runner process",
    "error was encountered while running the model",
)
_CLIENT_FAULTS = ('option "', "invalid format", "template:", "json:", "invalid option")
"""How Ollama's 500s about the client's own input begin; what follows may quote the client, so it proves nothing."""
_RETRY_STATUS = frozenset({408, 425, 429, 502, 503, 504})


def is_crash_text(text: str) -> bool:
    """Whether one of Ollama's own known texts says that the model runner died."""
    lowered = text.lower().lstrip()
    if lowered.startswith(_CLIENT_FAULTS):
        return False
    return any(known in lowered for known in _CRASH_TEXTS)


def classify(end: End) -> Signal:
    """What the breaker of this server and model should learn."""
    match end:
        case Completed():
            return Signal.SUCCESS
        case Incomplete() | ClientLeft() | Revoked():
            return Signal.NEUTRAL
        case Failed():
            return Signal.FAILURE
        case StreamError(text=text):
            return Signal.FAILURE if is_crash_text(text) else Signal.NEUTRAL
        case Refused(status=status, text=text):
            return _classify_status(status, text)


def _classify_status(status: int, text: str) -> Signal:
    if status == 429:
        return Signal.SOFT_FAILURE
    if status in (502, 503, 504):
        return Signal.FAILURE
    if status >= 500:
        return Signal.FAILURE if is_crash_text(text) else Signal.NEUTRAL
    return Signal.NEUTRAL


def retryable_elsewhere(end: End) -> bool:
    """Whether another server may do better, provided that no byte reached the client."""
    match end:
        case Failed():
            return True
        case Revoked(error=error):
            return error is None
        case Refused(status=status, text=text, missing=missing):
            return missing or status in _RETRY_STATUS or (status == 500 and is_crash_text(text))
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
            return f"refused_{status}"
        case Failed(error=error):
            return error.reason.lower()
        case StreamError():
            return "stream_error"
        case ClientLeft(stalled=stalled):
            return "client_stalled" if stalled else "client_left"
        case Revoked(error=refusal):
            return "revoked" if refusal is None else refusal.reason.lower()
