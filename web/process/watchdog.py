"""The last resort of a shutdown: a small process beside ours, which ends us when nothing in here can.

Code in C that does not return (an expression that backtracks, say) holds the interpreter. No handler of Python's runs
then, no timer, no thread. What runs all the same is what is C itself: on each signal faulthandler writes our stack
into a pipe, and `web/process/watchdog_child.py` reads it at the other end. Until then it sleeps, and costs nothing.

It cannot end the first process of a container, which the kernel protects from its own children: a container's runtime
kills that from outside (or give it an init).
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from web.process import watchdog_child
from web.process.watchdog_child import HEARD, PATIENCE

log = logging.getLogger("fleet.serve")

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_FAREWELL: Final = 5.0


class Watchdog:
    """Our end of the pipe; negative if there is nobody at the other."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    @contextmanager
    def listening(self) -> Iterator[None]:
        """As long as this is open, the other process learns of each SIGINT and SIGTERM.

        To be opened when the handlers of both have been set: they are called as ever, from behind ours.
        """
        if self._pipe < 0:
            yield
            return
        for number in _SIGNALS:
            faulthandler.register(number, file=self._pipe, all_threads=False, chain=True)
        try:
            yield
        finally:
            for number in _SIGNALS:
                faulthandler.unregister(number)

    def heard(self) -> None:
        """A signal has reached Python: the event loop is alive."""
        self._tell(HEARD)

    def wait(self, seconds: float) -> None:
        """How long we may take from the first signal on."""
        self._tell(b"%b %f" % (PATIENCE, seconds))

    def _tell(self, words: bytes) -> None:
        if self._pipe >= 0:
            with contextlib.suppress(OSError):  # it is gone, or does not read: then there is no last resort
                os.write(self._pipe, words + b"\n")


@contextmanager
def watchdog(seconds: float) -> Iterator[Watchdog]:
    """Start the other process; `seconds` after a first signal it kills us. Where it cannot be started: a warning."""
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        program = [sys.executable, "-I", "-S", watchdog_child.__file__, str(reading), str(seconds)]
        child = subprocess.Popen(program, pass_fds=[reading], stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        log.warning("no watchdog, so a shutdown that hangs in C code does not end by itself: %s", error)
        os.close(writing)
        child, writing = None, -1
    finally:
        os.close(reading)
    try:
        yield Watchdog(writing)
    finally:
        if child is not None:
            os.close(writing)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_FAREWELL)
