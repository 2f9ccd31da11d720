"""Configuration files on disk: which ones the admin API may touch, read within bounds, written whole or not at all.

Everything here blocks and belongs in a worker thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from actors.config.tls import CERTIFICATE, KEY, TlsUnusable, server_context
from fleet.common.errors import BadRequest, FleetError, NotFound
from fleet.config import ConfigError, Problem, TlsSection

LARGEST: Final = 2**20
"""Bytes of a configuration file."""
LONGEST_PATH: Final = 1024
SUFFIXES: Final = (".yml", ".yaml", ".json")
_PRIVATE: Final = 0o600
_GONE: Final = (errno.ENOENT, errno.ENOTDIR)


class NotSaved(FleetError):
    """The file could not be written; what it said before, it says still."""

    reason = "NOT_SAVED"


def allowed(asked: str, directory: Path) -> Path:
    """The file that a request means: inside `directory`, wherever links lead. Relative paths start there.

    Raises BadRequest. The file need not exist.
    """
    if len(asked) > LONGEST_PATH or not asked.isprintable():
        raise BadRequest(f"configPath must be at most {LONGEST_PATH} printable characters")
    if not asked.endswith(SUFFIXES):
        raise BadRequest("configPath must end in .yml, .yaml or .json")
    try:
        home = directory.resolve()
        path = (home / asked).resolve()
    except (OSError, RuntimeError, ValueError):
        raise BadRequest("configPath is no possible path") from None
    if not path.is_relative_to(home) or not path.name.endswith(SUFFIXES):
        raise BadRequest("configPath must lie in the directory of the configuration", details="see reload.directory")
    return path


def read(path: Path) -> str:
    """The text of a file; `path` is resolved.

    Raises NotFound, and BadRequest for what is no regular file, too large, or not UTF-8.
    """
    try:
        # NONBLOCK: opening a pipe would wait for somebody to write into it
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadRequest(f"{path.name} is no regular file")
    with open(descriptor, "rb") as file:
        try:
            data = file.read(LARGEST + 1)
        except OSError as error:
            raise _unreadable(path, error) from None
    if len(data) > LARGEST:
        raise BadRequest(f"{path.name} is larger than {LARGEST} bytes: surely not a configuration")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise BadRequest(f"{path.name} is not UTF-8 text") from None


def write(path: Path, text: str, wanted: Callable[[], bool] = lambda: True) -> None:
    """Put a text in the place of a file in one step, so that nobody ever sees half of it, and make it durable.

    An existing file keeps its mode, a new one is the owner's only. `wanted` is asked when all is ready but the last
    step: a disk may have hung for hours meanwhile. Raises BadRequest (no such directory), NotSaved.
    """
    data = text.encode()
    if len(data) > LARGEST:
        raise BadRequest(f"the configuration is larger than {LARGEST} bytes")
    beside = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.tmp")
    try:
        mode = _mode_of(path)
        with contextlib.ExitStack() as undo:
            undo.callback(_gone, beside)
            _put(beside, data, mode)
            if not wanted():
                raise NotSaved(f"{path.name} was not written: nobody waits for that any more")
            os.replace(beside, path)
            undo.pop_all()
        _settle(path.parent)
    except OSError as error:
        if error.errno in (*_GONE, errno.ENAMETOOLONG):
            raise BadRequest(f"{path.name} cannot be written there: {error.strerror}") from None
        raise NotSaved(f"{path.name} cannot be written: {error.strerror}") from None


def check_tls(tls: TlsSection) -> None:
    """Raises `ConfigError` if listeners could not be opened with these files: said now, not at the next start."""
    if not tls.enabled:
        return
    for setting, name in ((CERTIFICATE, tls.certificate), (KEY, tls.key)):
        try:
            found = os.stat(name)
        except (OSError, ValueError):
            continue  # which file cannot be read is said below
        if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
            raise ConfigError([Problem(setting, "is no regular file of a sensible size")])
    try:
        server_context(tls.certificate, tls.key)
    except TlsUnusable as error:
        path, _, what = str(error).partition(": ")
        raise ConfigError([Problem(path, what)]) from None


def _unreadable(path: Path, error: OSError) -> FleetError:
    if error.errno in _GONE:
        return NotFound(f"there is no file {path.name} there")
    return BadRequest(f"{path.name} cannot be read: {error.strerror}")


def _mode_of(path: Path) -> int:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return _PRIVATE
    if not stat.S_ISREG(found.st_mode):
        raise BadRequest(f"{path.name} is no regular file")
    return stat.S_IMODE(found.st_mode)


def _put(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _PRIVATE)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)


def _gone(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _settle(directory: Path) -> None:
    """Make the new name durable; where a directory cannot be synchronised, the system does so in its own time."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
