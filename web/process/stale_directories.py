"""Private directories in a shared folder, and those that fleets which were killed have left there.

Each has a lock which its process holds for as long as it lives, whatever ends it. A lock that nobody holds marks a
dead one. Nothing is ever followed, and nothing is removed but what a fleet of this user has made.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import socket
import stat
import tempfile
from itertools import islice
from typing import Final

PREFIX: Final = "fleet-"
SOCKET: Final = "app.sock"
_LOCK: Final = "lock"
_FRESH: Final = "lock.new"
_NAME: Final = re.compile(rf"{PREFIX}[A-Za-z0-9_]{{8}}")
_CONTENTS: Final = frozenset((SOCKET, _LOCK, _FRESH))
_MOST: Final = 20_000
"""Entries of the folder that are looked at."""
_YOUNG: Final = 60.0
"""Seconds for which a directory without a lock may still be in the making; older ones are of releases without locks."""


class PrivateDirectory:
    """A fresh directory of mode 0700, held until it is removed. Raises OSError if it cannot be made."""

    def __init__(self, place: str | None) -> None:
        self.path = tempfile.mkdtemp(prefix=PREFIX, dir=place)  # 0700 by its own promise
        fresh = os.path.join(self.path, _FRESH)
        try:
            self._lock = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except BaseException:
            os.rmdir(self.path)
            raise
        with contextlib.suppress(OSError):  # where nothing can be locked, all of them are left alone
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(fresh, os.path.join(self.path, _LOCK))  # held before anybody can see it

    def remove(self) -> None:
        """Away with it and what is in it. Idempotent."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def sweep(place: str | None, now: float) -> int:
    """Remove what dead fleets of this user have left in a folder; how many that were. Raises nothing.

    `now` is the time of day, as files have it.
    """
    gone = 0
    with contextlib.suppress(OSError), os.scandir(place or tempfile.gettempdir()) as entries:
        for entry in islice(entries, _MOST):
            if _NAME.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    gone += _remove_dead(entry.path, now)
    return gone


def _remove_dead(path: str, now: float) -> bool:
    """By the directory's descriptor alone: whoever swaps the path for a link gains nothing."""
    where = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        seen = os.fstat(where)
        contents = set(os.listdir(where))
        mine = seen.st_uid == os.geteuid() and stat.S_IMODE(seen.st_mode) == 0o700
        if not (mine and contents <= _CONTENTS and _is_dead(where, path, contents, now - seen.st_mtime)):
            return False
        for name in contents:
            os.unlink(name, dir_fd=where)
        again = os.stat(path, follow_symlinks=False)
        if (again.st_dev, again.st_ino) == (seen.st_dev, seen.st_ino):
            os.rmdir(path)
        return True
    finally:
        os.close(where)


def _is_dead(where: int, path: str, contents: set[str], age: float) -> bool:
    if _LOCK not in contents:
        return age > _YOUNG and not (SOCKET in contents and _answers(path))
    lock = os.open(_LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=where)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _answers(path: str) -> bool:
    """Whether somebody listens in there; in doubt, yes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(os.path.join(path, SOCKET))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
    return True
