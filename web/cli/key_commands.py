"""What `fleet keys` does: keys are made, listed and revoked in the file that a running fleet follows."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from actors.kit.clock import process_clock
from actors.security import key_file
from actors.security.key_file import KeysUnusable
from fleet.common.times import iso_seconds
from fleet.security.api_keys import MOST_KEYS, NAME_SAYS, RANDOM_BYTES, StoredKey, digest_of, is_name, new_key
from fleet.security.roles import Role
from web.cli.configuration import load_or_exit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fleet.config import SecuritySection

Keys = tuple[StoredKey, ...]


def add(name: str, role: str, config: Path | None, file: Path | None) -> None:
    """Make a key and print it; exit codes as `fleet keys` says."""
    if not is_name(name):
        raise _wrong(f"the name must be {NAME_SAYS}")
    if role not in Role.words():
        raise _wrong(f"--role must be one of {', '.join(Role.words())}")
    path, section = _place(config, file)
    if section is not None and name in {key.name for key in section.keys}:
        raise _wrong(f"there is a key called {name} in security.keys already")
    key = new_key(secrets.token_bytes(RANDOM_BYTES))
    _change(path, lambda known: _with(known, StoredKey(name, Role.of(role), digest_of(key), _now())))
    typer.echo(key)
    typer.echo(f"fleet: {name} ({role}) added to {path}; the key is not shown again", err=True)


def show(config: Path | None, file: Path | None) -> None:
    """Print a table of the keys."""
    path, _ = _place(config, file)
    with _failing(path):
        known = key_file.read(str(path)) if path.exists() else ()
    typer.echo(f"{'NAME':<24} {'ROLE':<9} {'CREATED':<21} REVOKED")
    for key in known:
        typer.echo(f"{key.name:<24} {key.role.word:<9} {key.created or '-':<21} {key.revoked or '-'}")


def revoke(name: str, config: Path | None, file: Path | None) -> None:
    """Let a key be good no more."""
    path, _ = _place(config, file)
    _change(path, lambda known: _without(known, name))
    typer.echo(f"fleet: {name} revoked in {path}", err=True)


def _with(known: Keys, key: StoredKey) -> Keys:
    if any(each.name == key.name and each.revoked is None for each in known):
        raise _wrong(f"there is a key called {key.name} already: revoke it first, or choose another name")
    if len(known) >= MOST_KEYS:
        raise _wrong(f"the file holds {MOST_KEYS} keys, revoked ones included: remove old lines from it")
    return (*known, key)


def _without(known: Keys, name: str) -> Keys:
    if not any(each.name == name and each.revoked is None for each in known):
        raise _failed("no key in use has this name")
    now = _now()
    return tuple(replace(each, revoked=now) if each.name == name and each.revoked is None else each for each in known)


def _place(config: Path | None, file: Path | None) -> tuple[Path, SecuritySection | None]:
    """The file of keys, and what the configuration says about security if it was read."""
    if file is not None:
        return file, None
    section = load_or_exit(config).config.security
    if not section.keys_file:
        raise _wrong("security.keys_file is not set: set it, or say --file")
    return Path(section.keys_file), section


def _change(path: Path, how: Callable[[Keys], Keys]) -> None:
    with _failing(path):
        key_file.change(str(path), how)


@contextmanager
def _failing(path: Path) -> Iterator[None]:
    """What can be wrong with the file, as a sentence and an exit code."""
    try:
        yield
    except KeysUnusable as error:
        raise _wrong(f"{path} {error}") from None
    except OSError as error:
        raise _failed(f"{path} cannot be written: {error.strerror}") from None


def _now() -> str:
    return iso_seconds(process_clock().wall())


def _wrong(message: str) -> typer.Exit:
    return _exit(message, 2)


def _failed(message: str) -> typer.Exit:
    return _exit(message, 1)


def _exit(message: str, code: int) -> typer.Exit:
    typer.echo(f"fleet: {message}", err=True)
    return typer.Exit(code)
