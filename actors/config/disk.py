"""Work on files that may lie on a disk that hangs, and turns that nobody waits for without end."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Final, TypeVar, TypeVarTuple

import trio

from fleet.common.errors import DiskTimeout

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PATIENCE: Final = 10.0
"""Seconds for one piece of work, and for a turn."""
_THREADS: Final = 4
"""Work that hangs keeps its thread until the disk comes back; more of it than this waits, and is given up."""


class FileThreads:
    """One actor's work on files, in worker threads. Those of others stay free, however many of ours hang."""

    def __init__(self, threads: int = _THREADS) -> None:
        self._threads = trio.CapacityLimiter(threads)

    async def do(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        """What the work returns or raises. Raises DiskTimeout after `PATIENCE` seconds.

        Cancelled or too late: the work goes on without us, and what it was to write may be written yet.
        """
        with trio.move_on_after(PATIENCE):
            return await trio.to_thread.run_sync(work, *args, abandon_on_cancel=True, limiter=self._threads)
        raise DiskTimeout(f"a file could not be read or written within {PATIENCE:g} s", details=_WHY)


class Turns:
    """A lock for those who cannot wait for ever: `async with` raises DiskTimeout after `PATIENCE` seconds."""

    def __init__(self, lock: trio.Lock) -> None:
        self._lock = lock

    async def __aenter__(self) -> None:
        with trio.move_on_after(PATIENCE):
            await self._lock.acquire()
            return
        raise DiskTimeout(f"others have kept the configuration busy for {PATIENCE:g} s", details=_WHY)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()


_WHY: Final = "does the disk (or the network mount) answer that the configuration lies on?"
