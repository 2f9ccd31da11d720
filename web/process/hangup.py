"""SIGHUP: from a service manager or `kill` it says "read everything anew", from a terminal that closes "end".

Which of both it is, the terminal tells: one that is gone answers every poll with a hangup. And whoever still writes to
it gets an error, which must neither end the fleet nor fill anything.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import signal
import stat
import sys
from collections.abc import Callable
from typing import Final, TextIO

_GONE: Final = frozenset((errno.EIO, errno.EPIPE, errno.ENXIO, errno.EBADF))
_came = [0]


def bear() -> None:
    """From here on a SIGHUP ends nothing; it is remembered. What `nohup` has started stays deaf to terminals."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _note)


def ignore() -> None:
    """For the rest of this process, the interpreter's own end included."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def came_early() -> bool:
    """Whether a SIGHUP has come since `bear`; asking forgets it."""
    came, _came[0] = _came[0], 0
    return came > 0


def _note(number: int, frame: object) -> None:
    _came[0] += 1


class Terminal:
    """The terminal that this process belongs to, if there is one. Make it before SIGHUP has another handler."""

    def __init__(self) -> None:
        self._open: int | None = None
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            return
        with contextlib.suppress(OSError):
            self._open = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def gone(self) -> bool:
        """Whether it was there and has been closed since."""
        if self._open is None:
            return False
        poll = select.poll()
        poll.register(self._open, 0)  # a hangup is told in any case
        return bool(poll.poll(0))

    def close(self) -> None:
        """Forget it. Idempotent."""
        if self._open is not None:
            os.close(self._open)
            self._open = None


def bearing(say: Callable[[str], None]) -> Callable[[str], None]:
    """The same, but no error when nobody can hear it any more."""

    def said(text: str) -> None:
        try:
            say(text)
        except OSError as error:
            if not silenced(error, sys.stdout):
                raise

    return said


def silenced(error: BaseException | None, stream: object) -> bool:
    """Whether an error is that of a terminal or pipe which is gone; what is written there goes nowhere from now on.

    A file on a disk that fails or is full is another matter: it may have room again.
    """
    if not (isinstance(error, OSError) and error.errno in _GONE):
        return False
    try:
        number = stream.fileno()  # type: ignore[attr-defined]
        if stat.S_ISREG(os.fstat(number).st_mode):
            return False
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, number)
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):
        return False
    return True


class BearingHandler(logging.StreamHandler[TextIO]):
    """Writes to a stream until that is gone."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (its name in the standard library)
        """Called within the `except` of a record that could not be written."""
        if not silenced(sys.exc_info()[1], self.stream):
            super().handleError(record)
