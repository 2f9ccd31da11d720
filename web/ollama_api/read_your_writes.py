"""Read your own writes: whoever changed a server's models is told so only when the fleet has seen the change."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import trio

from actors.system import System
from fleet.common.ids import ServerId
from fleet.protocol.call import Downstream, Headers

WITHIN: Final = 2.0
"""Seconds the client's last line waits for the probes; a server that is slower is believed later."""
_LONGEST: Final = 64 * 1024
"""Bytes we are willing to hold back; no progress line comes near."""
_SUCCESS: Final = b'"success"'


def refresh(system: System, servers: Sequence[ServerId]) -> None:
    """Ask for a probe of each server, and go on."""
    for server in servers:
        if server in system.servers:
            system.refresh(server)


async def reread(system: System, servers: Sequence[ServerId]) -> None:
    """Probe every server now, side by side, for `WITHIN` seconds at most."""

    # What is held back counts against the time that a client has to take our last words.
    within = min(WITHIN, system.config.timeouts.write / 2)

    async def one(server: ServerId) -> None:
        if server in system.servers:
            await system.probe(server, within)

    async with trio.open_nursery() as nursery:
        for server in servers:
            nursery.start_soon(one, server)


@contextmanager
def held(system: System, servers: Sequence[ServerId], down: Downstream) -> Iterator[LastHeld]:
    """A downstream whose end waits for fresh inventories of `servers`; without an end they are only asked for."""
    last = LastHeld(down, partial(reread, system, servers))
    try:
        yield last
    finally:
        if not last.ended:
            refresh(system, servers)


class LastHeld:
    """A Downstream that keeps back the line that tells success, and the end, until `ready` returns.

    Lines leave whole: some clients read a progress line from a single packet.
    """

    def __init__(self, down: Downstream, ready: Callable[[], Awaitable[None]]) -> None:
        self._down = down
        self._ready = ready
        self._kept = bytearray()
        self.status = 0
        self.ended = False

    @property
    def started(self) -> bool:
        return self._down.started

    async def start(self, status: int, headers: Headers) -> None:
        self.status = status
        await self._down.start(status, headers)

    async def write(self, data: bytes, raw: bytes = b"") -> None:
        looked = len(self._kept)
        self._kept += data
        # A line that comes in many pieces is looked at once: there is nothing to decide before its end.
        if len(self._kept) <= _LONGEST and self._kept.find(b"\n", looked) < 0:
            return
        free, kept = _split(bytes(self._kept))
        self._kept = bytearray(kept)
        if free:
            await self._down.write(free)

    async def finish(self, last: bytes = b"", raw: bytes = b"", patience: float = math.inf) -> None:
        await self._ready()
        self.ended = True
        kept, self._kept = bytes(self._kept) + last, bytearray()
        await self._down.finish(kept, patience=patience)

    def cut(self) -> None:
        self._down.cut()


def _split(data: bytes) -> tuple[bytes, bytes]:
    """What may go now, and what is kept: all from a line that tells success, else the line that has not ended yet."""
    if len(data) > _LONGEST:
        return data, b""
    success = data.find(_SUCCESS)
    end = data.rfind(b"\n", 0, success if success >= 0 else len(data)) + 1
    return data[:end], data[end:]
