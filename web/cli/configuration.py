"""The configuration as a command reads it: file, environment, flags; and how a command ends that cannot use it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

import typer

from actors.config.sources import Origin, Reading
from fleet.config import Config, ConfigError, Loaded, load, unsafe_listener

BAD_CONFIG: Final = 2
_DEFAULT: Final = "config.yml"
_UNKNOWN: Final = "unknown environment variable"
_PORTS: Final = re.compile(
    r"\b(proxy_port|orchestrator_port|dashboard_port|metrics_port)[\"']?[ \t]*:[ \t]*[\"']?(\d{1,5})\b"
)
_HOST: Final = re.compile(r"\bhost[\"']?[ \t]*:[ \t]*[\"']?([0-9A-Za-z.:\[\]-]+)")


@dataclass(frozen=True, slots=True)
class Configured:
    """What a command has read. `env` is the environment without what looks like a setting of ours and is none;
    `warnings` has a sentence on each of those.
    """

    reading: Reading
    env: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    @property
    def config(self) -> Config:
        """The configuration itself."""
        return self.reading.loaded.config

    def origin(self, path: Path | None) -> Origin:
        """What the running fleet needs to read its configuration again, and to save it."""
        file = path or Path(_DEFAULT)
        return Origin(file.absolute(), str(file), self.env, {}, self.reading)

    def warn(self) -> None:
        """Tell the warnings."""
        for warning in self.warnings:
            typer.echo(f"fleet: warning: {warning}", err=True)


def load_or_exit(path: Path | None) -> Loaded:
    """The configuration in the file, or the default one; exit code 2 with every problem on a line of its own."""
    found = configured(path)
    found.warn()
    return found.reading.loaded


def configured(path: Path | None, flags: Mapping[str, object] | None = None) -> Configured:
    """The same, with all that belongs to it; warnings are not told yet."""
    text, source = read(path)
    try:
        return tolerant(text, flags or {}, source)
    except ConfigError as error:
        tell(error)
        raise typer.Exit(BAD_CONFIG) from None


def tell(error: ConfigError) -> None:
    """Every problem on a line of its own."""
    for problem in error.problems:
        typer.echo(f"fleet: {problem}", err=True)


def tolerant(text: str | None, flags: Mapping[str, object], source: str) -> Configured:
    """The configuration, whatever variables there are that mean nothing. Raises `ConfigError`."""
    env: Mapping[str, str] = os.environ
    try:
        return Configured(Reading(source, text, load(text, env, flags, source=source)), env)
    except ConfigError as error:
        strange = {each.path: each.message for each in error.problems if each.message.startswith(_UNKNOWN)}
        if not strange:
            raise
    env = {name: value for name, value in env.items() if name not in strange}
    warnings = tuple(f"{name} is ignored: {message}" for name, message in strange.items())
    return Configured(Reading(source, text, load(text, env, flags, source=source)), env, warnings)


def file_of(path: Path | None) -> Path | None:
    """The file to read: the one asked for, else config.yml if there is one."""
    return path or (Path(_DEFAULT) if Path(_DEFAULT).is_file() else None)


def source_of(path: Path | None) -> str:
    """The file, or that there is none."""
    return str(file_of(path) or f"defaults (there is no {_DEFAULT} here)")


def read(path: Path | None) -> tuple[str | None, str]:
    """The text of the file and its name; exit code 2 if it cannot be read."""
    path = file_of(path)
    if path is None:
        return None, "defaults"
    try:
        return path.read_text(encoding="utf-8-sig"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        typer.echo(f"fleet: cannot read the configuration file {path}: {error}", err=True)
        raise typer.Exit(BAD_CONFIG) from None


def likely(text: str | None) -> Config:
    """Where a fleet most likely listens whose file is broken by now: what looks like a port in it counts."""
    flags: dict[str, object] = {f"server.{name}": port for name, port in _PORTS.findall(text or "")}
    if host := _HOST.search(text or ""):
        flags["server.host"] = host[1]
    nothing: Mapping[str, str] = {}
    for given, env in product((flags, {}), (os.environ, nothing)):
        with suppress(ConfigError):
            return load(None, env, given, source="defaults").config
    return Config()


def refuse_unsafe(config: Config) -> None:
    """Exit code 2 for a listener that is open to everybody by mistake."""
    if problem := unsafe_listener(config):
        typer.echo(f"fleet: {problem}", err=True)
        raise typer.Exit(BAD_CONFIG)
