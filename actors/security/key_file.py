"""The file of API keys: read when it has changed, and written so that no reader sees half of it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from fleet.security.api_keys import LONGEST_FILE, StoredKey, read_keys, written

log = logging.getLogger(__name__)

_OTHERS: Final = 0o077

Stamp = tuple[int, ...]
"""What tells one content of a file from another without reading it; empty: there is no file."""


class KeysUnusable(Exception):
    """The file cannot be read or means nothing. The message is for the operator and quotes nothing of the file."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look at the file found: its keys, or what is wrong with it."""

    stamp: Stamp
    keys: tuple[StoredKey, ...] = ()
    fault: str = ""
    passing: bool = False
    """Whether the fault is one of reading, not of what was read, and may be over without a change of the file."""


class KeyFile:
    """One file. `keys` are those of the last good reading: a file that is bad, or gone, changes nothing."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.keys: tuple[StoredKey, ...] = ()
        self._seen: Stamp | None = None
        self._told = ""

    def read(self) -> _Look | None:
        """See whether the file has changed, and read it if so. Blocks on the disk; changes nothing."""
        try:
            stamp = _stamp(os.stat(self.path))
        except FileNotFoundError:
            stamp = ()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "no possible path"
            return _Look((getattr(error, "errno", None) or 0,), fault=f"cannot be read: {why}")
        if stamp == self._seen:
            return None
        try:
            return _Look(stamp, read(self.path) if stamp else ())
        except KeysUnusable as error:
            return _Look(stamp, fault=str(error), passing=isinstance(error.__cause__, OSError))

    def take(self, found: _Look | None) -> bool:
        """Go by what a look has found; whether that changed the keys."""
        if found is None or found.stamp == self._seen:
            return False
        first = self._seen is None
        if not found.passing:
            self._seen = found.stamp
        told, self._told = self._told, found.fault
        if found.fault:
            if found.fault != told or not found.passing:
                log.error("security.keys_file %s %s; the keys stay as they were", self.path, found.fault)
            return False
        if not found.stamp:
            log.warning("security.keys_file %s does not exist%s", self.path, "" if first else "; its keys stay in use")
            return False
        _warn_of_readers(self.path, found.stamp)
        changed, self.keys = self.keys != found.keys, found.keys
        if changed:
            in_use = sum(key.revoked is None for key in found.keys)
            log.info("security.keys_file %s read: %d keys in use", self.path, in_use)
        return changed


def read(path: str) -> tuple[StoredKey, ...]:
    """The keys of a file. Raises KeysUnusable."""
    try:
        return read_keys(_content(path).decode("utf-8"))
    except OSError as error:
        raise KeysUnusable(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise KeysUnusable("is not in UTF-8") from None
    except ValueError as error:
        raise KeysUnusable(str(error)) from None


def _content(path: str) -> bytes:
    """A pipe would never end, or never begin."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise KeysUnusable("is no regular file")
        with open(handle, "rb", closefd=False) as file:
            return file.read(LONGEST_FILE + 1)
    finally:
        os.close(handle)


def change(path: str, how: Callable[[tuple[StoredKey, ...]], tuple[StoredKey, ...]]) -> tuple[StoredKey, ...]:
    """Replace the file by what `how` makes of its keys; one at a time, whole or not at all, mode 0600.

    Raises KeysUnusable, OSError, and what `how` raises; the file is as it was then.
    """
    path = os.path.realpath(path)  # a link stays one
    with _alone(os.path.dirname(path)):
        keys = how(read(path) if os.path.exists(path) else ())
        _replace(path, written(keys))
    return keys


@contextmanager
def _alone(directory: str) -> Iterator[None]:
    """No second `fleet keys` works in the directory meanwhile."""
    held = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _replace(path: str, text: str) -> None:
    handle, fresh = tempfile.mkstemp(dir=os.path.dirname(path), prefix=f".{os.path.basename(path)}.")  # 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        _keep_owner(path, fresh)
        os.replace(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise


def _keep_owner(old: str, fresh: str) -> None:
    """Who adds a key as root must not lock the fleet's own user out."""
    with contextlib.suppress(OSError):
        seen = os.stat(old)
        os.chown(fresh, seen.st_uid, seen.st_gid)


def _stamp(seen: os.stat_result) -> Stamp:
    return (seen.st_mtime_ns, seen.st_size, seen.st_ino, seen.st_mode, seen.st_uid)


def _warn_of_readers(path: str, stamp: Stamp) -> None:
    mode = stat.S_IMODE(stamp[3])
    if mode & _OTHERS:
        log.warning("security.keys_file %s has mode %04o: others can read or change it; chmod 600 it", path, mode)
