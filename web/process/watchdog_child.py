"""The other end of `watchdog`, a program of its own (`watchdog_child.py DESCRIPTOR PATIENCE`), without our code.

It sleeps on a pipe from its parent and ends with it (the pipe closes). In the pipe: a stack per signal, written by the
parent's C library, and lines by the parent's own Python, `heard` per signal and `patience SECONDS`.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from typing import Final

STACK: Final = b"Stack (most recent call first):"
"""What begins each stack, as faulthandler writes it."""
HEARD: Final = b"heard"
PATIENCE: Final = b"patience"
UNHEARD: Final = 5.0
"""Seconds within which a second signal must be heard: whoever signals twice wants it to end now."""
_KEPT: Final = 16 * 1024
_LAST_LOOK: Final = 0.5


class Vigil:
    """What the pipe has told: how many signals came, how many Python has heard, and until when the parent may live."""

    def __init__(self, patience: float) -> None:
        self.deadline = float("inf")
        self.stack: list[bytes] = []
        self._patience = patience
        self._signals = self._heard = 0
        self._rest = b""

    def feed(self, data: bytes, now: float) -> None:
        """Take what one read gave."""
        *lines, self._rest = (self._rest + data)[-_KEPT:].split(b"\n")
        for line in lines:
            self._line(line, now)
        if self._signals:
            self.deadline = min(self.deadline, now + self._patience)
        if self._signals >= 2 and self._heard < self._signals:
            self.deadline = min(self.deadline, now + UNHEARD)
        elif self._signals >= 2:
            self.deadline = now + self._patience  # it heard after all, and ends itself

    def _line(self, line: bytes, now: float) -> None:
        word, _, value = line.partition(b" ")
        if line == STACK:
            self._signals += 1
            self.stack = [line]
        elif line == HEARD:
            self._heard += 1
        elif word == PATIENCE:
            self._patience = float(value)
        elif self.stack:
            self.stack.append(line)


def watch(pipe: int, parent: int, patience: float) -> None:
    """Until the pipe closes; or the parent is killed, because it has not ended by its deadline."""
    vigil = Vigil(patience)
    while True:
        left = vigil.deadline - time.monotonic()
        if left <= 0:
            break
        if select.select([pipe], [], [], None if left == float("inf") else left)[0]:
            data = os.read(pipe, _KEPT)
            if not data:
                return
            vigil.feed(data, time.monotonic())
    _end(pipe, parent, vigil)


def _end(pipe: int, parent: int, vigil: Vigil) -> None:
    """Ask once more where it stands, say so, kill it."""
    os.kill(parent, signal.SIGTERM)
    while select.select([pipe], [], [], _LAST_LOOK)[0]:
        data = os.read(pipe, _KEPT)
        if not data:
            return
        vigil.feed(data, time.monotonic())
    where = b"\n".join(vigil.stack)
    os.write(
        2, b"fleet: told to stop, but it hangs and answers nobody; killed from outside. It stood here:\n%b\n" % where
    )
    os.kill(parent, signal.SIGKILL)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # meant for the parent; we end with it
        signal.signal(number, signal.SIG_IGN)
    watch(int(sys.argv[1]), os.getppid(), float(sys.argv[2]))
