"""Out of file descriptors or memory for sockets: told once when it begins and once when it is over."""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Callable
from typing import Final

import trio

_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
PAUSE: Final = 0.1
"""Seconds until it is tried again."""
_QUIET: Final = 60.0
"""Seconds in which the same place tells no second beginning: at the limit, one thing works and the next does not."""


def is_shortage(error: OSError) -> bool:
    """Whether an error says that this process, or the machine, can have no more."""
    return error.errno in _EXHAUSTED


class Shortage:
    """One place that may meet one. `what` does not work then."""

    def __init__(self, what: str, log: logging.Logger, clock: Callable[[], float] = trio.current_time) -> None:
        self._what = what
        self._log = log
        self._clock = clock
        self._quiet_until = -math.inf
        self._told = False

    def met(self, error: OSError) -> None:
        """It does not work."""
        if not self._told and self._clock() >= self._quiet_until:
            self._told = True
            self._quiet_until = self._clock() + _QUIET
            self._log.error("%s: %s", self._what, error.strerror)

    def over(self) -> None:
        """It works."""
        if self._told:
            self._told = False
            self._log.info("%s: no longer", self._what)
