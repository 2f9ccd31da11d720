"""`fleet keys`: make, list and revoke API keys, in the file that a running fleet follows."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fleet.keys import MOST_KEYS, NAME_SAYS, RANDOM_BYTES, StoredKey, digest_of, is_name, new_key
from fleet.roles import Role
from web import keyfile
from web.keyfile import KeysUnusable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fleet.config import SecuritySection

Keys = tuple[StoredKey, ...]

_EPILOG: Final = """\b
Examples:
  fleet keys add ci --role client       prints the new key, once
  fleet keys list                       names, roles, moments; never a key
  fleet keys revoke ci                  within a second nobody gets in with it

\b
Exit codes:
  0   done
  1   failed (no such key; the file cannot be written)
  2   wrong usage, configuration, or a file of keys that cannot be used
"""

keys = typer.Typer(help="API keys, in security.keys_file.", epilog=_EPILOG, no_args_is_help=True, rich_markup_mode=None)

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file; default config.yml if there is one.", dir_okay=False)
]
File = Annotated[
    Path | None, typer.Option("--file", "-f", help="The file of keys; default security.keys_file.", dir_okay=False)
]
Name = Annotated[str, typer.Argument(help="What the audit log calls whoever uses the key.")]


@keys.command(epilog="Example: fleet keys add ci --role client")
def add(
    name: Name,
    role: Annotated[
        str, typer.Option(help="client: use models; operator: run the fleet; admin: change it.")
    ] = "client",
    config: Config = None,
    file: File = None,
) -> None:
    """Make a key and print it, this once: only its digest is kept."""
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


@keys.command("list", epilog="Example: fleet keys list")
def show(config: Config = None, file: File = None) -> None:
    """List the keys of the file: names, roles, when they were made and revoked."""
    path, _ = _place(config, file)
    with _failing(path):
        known = keyfile.read(str(path)) if path.exists() else ()
    typer.echo(f"{'NAME':<24} {'ROLE':<9} {'CREATED':<21} REVOKED")
    for key in known:
        typer.echo(f"{key.name:<24} {key.role.word:<9} {key.created or '-':<21} {key.revoked or '-'}")


@keys.command(epilog="Example: fleet keys revoke ci")
def revoke(name: Name, config: Config = None, file: File = None) -> None:
    """Revoke a key. A running fleet refuses it within a second; requests that run already go on."""
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
    from web.cli import load_or_exit

    section = load_or_exit(config).config.security
    if not section.keys_file:
        raise _wrong("security.keys_file is not set: set it, or say --file")
    return Path(section.keys_file), section


def _change(path: Path, how: Callable[[Keys], Keys]) -> None:
    with _failing(path):
        keyfile.change(str(path), how)


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
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _wrong(message: str) -> typer.Exit:
    return _exit(message, 2)


def _failed(message: str) -> typer.Exit:
    return _exit(message, 1)


def _exit(message: str, code: int) -> typer.Exit:
    typer.echo(f"fleet: {message}", err=True)
    return typer.Exit(code)
