"""Work on files that may lie on a disk that hangs, and turns that nobody waits for without end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, TypeVar, TypeVarTuple

import trio

from fleet.common.errors import DiskTimeout

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PATIENCE: Final = 10.0
"""Seconds for one piece of work, and for a turn."""
_WHY: Final = "does the disk (or the network mount) answer on which that lies?"
_THREADS: Final = 4
"""Work that hangs keeps its thread until the disk comes back; more of it than this waits, and is given up."""


class Permit:
    """Whether work that is under way in a thread may still take effect: settled once, by who comes first.

    The thread asks at its last step; whoever gives the work up withdraws. Neither ever waits for the other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = True

    def use(self) -> bool:
        """Go on, and take effect; False: nobody wants that any more."""
        return self._settle()

    def withdraw(self) -> bool:
        """Nothing shall come of it; False: it has taken effect already, or does at this moment."""
        return self._settle()

    def _settle(self) -> bool:
        with self._lock:
            was, self._open = self._open, False
        return was


class FileThreads:
    """One kind of work of one actor, in worker threads. Those of others stay free, however many of ours hang.

    `what` names the work, for who hears that it hangs: "reading the configuration file".
    """

    def __init__(self, what: str, threads: int = _THREADS, *, hint: str = _WHY) -> None:
        self._what = what
        self._hint = hint
        self._threads = trio.CapacityLimiter(threads)

    async def do(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        """What the work returns or raises. Raises DiskTimeout after `PATIENCE` seconds.

        Cancelled or too late: the work goes on without us. What must not take effect then asks a `Permit`.
        """
        with trio.move_on_after(PATIENCE):
            return await trio.to_thread.run_sync(work, *args, abandon_on_cancel=True, limiter=self._threads)
        raise DiskTimeout(f"{self._what} did not end within {PATIENCE:g} s", details=self._hint)


class Turns:
    """A lock for those who cannot wait for ever: `async with` raises DiskTimeout after `PATIENCE` seconds."""

    def __init__(self, lock: trio.Lock) -> None:
        self._lock = lock

    async def __aenter__(self) -> None:
        with trio.move_on_after(PATIENCE):
            await self._lock.acquire()
            return
        raise DiskTimeout(f"others have kept the configuration busy for {PATIENCE:g} s", details="try again")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
