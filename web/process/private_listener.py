"""The private door of the Quart app: Hypercorn on a Unix socket that only this process's user can reach.

It hears nobody but the edge, in well-formed requests, so it may believe what the edge says about who asks.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import trio

from web.process import stale_directories
from web.process.bind import Bound
from web.process.stale_directories import SOCKET, PrivateDirectory

PEER: Final = b"x-fleet-peer"
"""The field in which the edge says who asks; it removes a client's own."""
FACE: Final = b"x-fleet-face"
"""And the one in which it says on which of our ports (see `web.http.ports`)."""
_BACKLOG: Final = 1024
_PLACES: Final = (None, "/tmp")
"""Where the directory may lie; None is the system's default, which TMPDIR may have made too long for a socket."""


class NoPlace(Exception):
    """The private socket can be made nowhere. The message is one sentence for the operator."""


class _Hatch:
    """A way in without the file system. Nothing is buffered: what is sent has been taken, so no socket is forgotten."""

    def __init__(self) -> None:
        self.send, self.receive = trio.open_memory_channel[socket.socket](0)

    def close(self) -> None:
        self.send.close()
        self.receive.close()


@dataclass(frozen=True, slots=True)
class Inner:
    """Where the app listens. `path` lies in a directory of mode 0700."""

    path: str
    bound: Bound
    _hatch: _Hatch = field(default_factory=_Hatch)

    @property
    def arriving(self) -> trio.MemoryReceiveChannel[socket.socket]:
        """Connections that came past the listener: who serves `bound` serves them too, and closes this at the end."""
        return self._hatch.receive

    async def hand_over(self) -> socket.socket:
        """A connection to the app that needs no path. Raises OSError and BrokenResourceError when nobody serves it."""
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            theirs.setblocking(False)
            await self._hatch.send.send(theirs)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        return ours

    def close(self) -> None:
        """Neither way in stays open."""
        self._hatch.close()
        with contextlib.suppress(OSError):
            self.bound.close()


@contextmanager
def private_socket(now: float) -> Iterator[Inner]:
    """A listening Unix socket in a fresh private directory; both are gone afterwards. Raises NoPlace.

    What fleets that were killed have left where it lies is removed first. `now`: the time of day.
    """
    directory, path, sock = _opened(now)
    inner = Inner(path, Bound((sock,), "localhost", 0, "the private socket"))
    try:
        yield inner
    finally:
        inner.close()
        directory.remove()


def _opened(now: float) -> tuple[PrivateDirectory, str, socket.socket]:
    why = ""
    for place in _PLACES:
        stale_directories.sweep(place, now)
        try:
            return _listening(place)
        except OSError as error:
            why = error.strerror or str(error)
    raise NoPlace(f"cannot make the private socket ({why}); set TMPDIR to a short path that can be written to")


def _listening(place: str | None) -> tuple[PrivateDirectory, str, socket.socket]:
    directory = PrivateDirectory(place)
    path = os.path.join(directory.path, SOCKET)
    with contextlib.ExitStack() as undoing:
        undoing.callback(directory.remove)
        sock = undoing.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        sock.bind(path)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
        undoing.pop_all()
    return directory, path, sock
