"""The place of a SQLite store on disk: its directory, its modes, its lock, and what is done with a corrupt file."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fleet.common.times import compact

_MAGIC: Final = b"SQLite format 3\0"
_COMPANIONS: Final = ("-wal", "-shm")


class StoreUnusable(Exception):
    """There can be no store here now; the message says why."""


class StoreLost(Exception):
    """The file that was open is not there any more, or another one has taken its place."""


class StoreFile:
    """One file and the lock beside it. Every method blocks: call them from a worker thread, one at a time.

    `wall`: seconds since 1970.
    The lock is advisory, on a file of its own, and the system lets go of it when the process ends, however it ends.
    """

    def __init__(self, path: Path, wall: Callable[[], float]) -> None:
        self._wall = wall
        self.path = Path(os.path.abspath(path))
        self._lock: int | None = None
        self._identity: tuple[int, int] | None = None

    @property
    def lock_path(self) -> Path:
        return self.path.with_name(self.path.name + ".lock")

    def claim(self) -> None:
        """Make the directory (0700), take the lock, make the file (0600). Raises StoreUnusable.

        What exists already keeps its mode.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_lock()
            self.begin()
        except OSError as error:
            self.release()
            raise StoreUnusable(f"{self.path} cannot be used: {_words(error)}") from error
        except StoreUnusable:
            self.release()
            raise

    def begin(self) -> None:
        """Make the file if there is none, and remember which it is. Raises OSError, StoreUnusable."""
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            found = os.fstat(handle)
        finally:
            os.close(handle)
        if not stat.S_ISREG(found.st_mode):
            raise StoreUnusable(f"{self.path} is not a file")
        self._identity = found.st_dev, found.st_ino

    @property
    def foreign(self) -> bool:
        """Whether there is something in the file, but no database: SQLite would overwrite it if it is short."""
        with self.path.open("rb") as file:
            return file.read(len(_MAGIC)) not in (b"", _MAGIC)

    def check(self) -> None:
        """Raises StoreLost if the file was removed or replaced: SQLite would go on writing into the void."""
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise StoreLost(f"{self.path} is gone: {error.strerror}") from error
        if (found.st_dev, found.st_ino) != self._identity:
            raise StoreLost(f"{self.path} was replaced by another file")

    def move_aside(self) -> Path:
        """Rename the file, and what SQLite keeps beside it, so that nothing of it is lost. Raises OSError."""
        stamp = compact(self._wall())
        name = f"{self.path.name}.corrupt-{stamp}"
        number = 1
        while (target := self.path.with_name(name)).exists():
            number += 1
            name = f"{self.path.name}.corrupt-{stamp}-{number}"
        for companion in _COMPANIONS:
            beside = self.path.with_name(self.path.name + companion)
            if beside.exists():
                beside.rename(target.with_name(target.name + companion))
        self.path.rename(target)
        return target

    def release(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        self.release()
        handle = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise StoreUnusable(f"{self.path} is in use by another process") from None
        except OSError:
            os.close(handle)
            raise
        self._lock = handle


def _words(error: OSError) -> str:
    about = f" ({error.filename})" if error.filename else ""
    return (error.strerror or str(error)) + about
