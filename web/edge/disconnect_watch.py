"""Clients that leave, noticed whatever their connection's task is doing, for one system call per connection.

A second set of sockets beside Trio's own, watched by one task: edge-triggered for "the other side has closed". It
fires once, even behind bytes that nobody has read. A half-closed connection counts as left, as it does for Ollama.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
from collections.abc import Callable
from typing import Final, Protocol

import trio

_MOST: Final = 256

Left = Callable[[bool], None]
"""Called once when the client has left. True: all is lost (a reset); False: it has closed its sending side."""


class Leaving(Protocol):
    """Watches connections. `run` calls back until cancelled; whoever closes a socket forgets it first."""

    def watch(self, sock: socket.socket, left: Left) -> None:
        """Raises OSError when the system can watch no more, ValueError when `run` has ended."""

    def forget(self, sock: socket.socket) -> None: ...

    async def run(self) -> None: ...


if sys.platform == "linux":

    class _Leaving:
        """Linux."""

        def __init__(self) -> None:
            self._set = select.epoll()
            self._left: dict[int, Left] = {}

        def watch(self, sock: socket.socket, left: Left) -> None:
            number = sock.fileno()
            self._set.register(number, select.EPOLLRDHUP | select.EPOLLET)
            self._left[number] = left

        def forget(self, sock: socket.socket) -> None:
            number = sock.fileno()
            if self._left.pop(number, None) is not None:
                with contextlib.suppress(OSError, ValueError):  # ValueError: we have stopped
                    self._set.unregister(number)

        async def run(self) -> None:
            """Tell who has left, until cancelled."""
            with contextlib.closing(self._set):
                while True:
                    await trio.lowlevel.wait_readable(self._set.fileno())
                    for number, events in self._set.poll(0, _MOST):
                        if (left := self._left.get(number)) is not None:
                            left(bool(events & (select.EPOLLHUP | select.EPOLLERR)))

else:

    class _Leaving:
        """macOS and the BSDs. Edge-triggered too, but incoming bytes wake it as well."""

        def __init__(self) -> None:
            self._set = select.kqueue()
            self._left: dict[int, Left] = {}

        def watch(self, sock: socket.socket, left: Left) -> None:
            number = sock.fileno()
            self._change(number, select.KQ_EV_ADD | select.KQ_EV_CLEAR)
            self._left[number] = left

        def forget(self, sock: socket.socket) -> None:
            number = sock.fileno()
            if self._left.pop(number, None) is not None:
                with contextlib.suppress(OSError, ValueError):  # ValueError: we have stopped
                    self._change(number, select.KQ_EV_DELETE)

        def _change(self, number: int, flags: int) -> None:
            self._set.control([select.kevent(number, select.KQ_FILTER_READ, flags)], 0)

        async def run(self) -> None:
            """Tell who has left, until cancelled."""
            with contextlib.closing(self._set):
                while True:
                    await trio.lowlevel.wait_readable(self._set.fileno())
                    for event in self._set.control([], _MOST, 0):
                        if event.flags & select.KQ_EV_EOF and (left := self._left.get(event.ident)) is not None:
                            left(event.fflags != 0)


def make() -> Leaving:
    """What this system has."""
    return _Leaving()
