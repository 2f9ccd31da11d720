"""What goes wrong on the way to a backend, in our words: the table at the border.

Texts are one line, name host and port, and never quote what was sent or received.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from typing import Final

import trio

from fleet.common.errors import (
    BackendBroke,
    BackendError,
    BackendUnreachable,
    BadAnswer,
    FleetError,
    OutOfDescriptors,
    Phase,
)
from fleet.http1.body_framing import WireError

NO_CONNECTION: Final = (OSError, trio.BrokenResourceError, UnicodeError)
"""All that dialling may raise; TLS errors are among them."""
BROKEN: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, WireError)
"""All that a link or a parser may raise when a connection goes bad."""

_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE)
_DEEPEST: Final = 16

_BROKE: Final[tuple[tuple[type[Exception], str], ...]] = (
    (trio.ClosedResourceError, "the connection was given up"),
    (ConnectionError, "the connection was reset"),
    (TimeoutError, "the host fell silent"),  # keep-alive probes went unanswered
)


def broke(address: str, phase: Phase, error: BaseException | None = None) -> BackendBroke:
    """The error for a connection that went bad in `phase`; without `error`: the server closed it."""
    what = "the connection was closed without an answer" if error is None else "the connection was lost"
    if isinstance(error, WireError):
        what = f"invalid HTTP: {error}"
    what = next((text for kind, text in _BROKE if isinstance(error, kind)), what)
    return BackendBroke(f"{address} broke off ({phase.value}): {what}.", phase)


def unreachable(address: str, error: BaseException) -> FleetError:
    """The error for a connection that was never made; when we are out of file descriptors, no backend is to blame."""
    if any(_is_shortage(cause) for cause in _causes(error)):
        return OutOfDescriptors("the fleet has too many open files", retry_after=1.0)
    return BackendUnreachable(f"{address} cannot be reached: {_reason(error)}.", Phase.CONNECT)


def _is_shortage(cause: BaseException) -> bool:
    """Whether we have no descriptor left. A resolver that has none either says that the name cannot be found."""
    if isinstance(cause, socket.gaierror):
        try:
            os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            return error.errno in _EXHAUSTED
    return isinstance(cause, OSError) and cause.errno in _EXHAUSTED


def kind_of(error: BackendError) -> str:
    """The fixed word for a control call that failed, by types alone (see `fleet.breakers.recovery_log.error_type`)."""
    if isinstance(error, BadAnswer):
        return "bad_answer"
    return "connection_refused" if _refused(error) else error.reason.lower()


def _refused(error: BaseException | None) -> bool:
    """Whether a refused connection is behind it."""
    for _ in range(_DEEPEST):
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if error is None or isinstance(error, ConnectionRefusedError):
            return error is not None
        error = error.__cause__ or error.__context__
    return False


def _reason(error: BaseException) -> str:
    for cause in _causes(error):
        match cause:
            case ssl.SSLCertVerificationError():
                return f"certificate not trusted, {_one_line(cause.verify_message)}"
            case ssl.SSLError():
                return f"TLS handshake failed, {_one_line(cause.reason or 'no reason given')}"
            case OSError(errno=int() as number) if number > 0 and not isinstance(cause, socket.gaierror):
                return os.strerror(number)  # not Trio's longer text, which repeats the address
            case OSError(strerror=str() as text):
                return _one_line(text)
            case UnicodeError():
                return "not a valid host name"
    return "no connection"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """From the bottom up: Trio wraps what the system said, and collects it when a name has several addresses."""
    if isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if error is not None:
        yield from _causes(error.__cause__)
        yield error


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]
