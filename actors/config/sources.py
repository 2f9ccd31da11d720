"""What the settings are made of: readings of a file, what went wrong with one, what came of a change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from fleet.config import Config, ConfigError, Loaded, Problem, unsafe_listener
from fleet.config.live.diff import Change
from fleet.config.loading.layers import overlaid
from fleet.config.loading.sourced_value import SourcedValue, from_python
from fleet.config.schema.model import conflicts
from fleet.config.schema.urls import normalise_url

LONGEST_LINE: Final = 4000
"""Characters of one log line about a configuration."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of a file (None: there is none) together with environment and flags. `source` names the file."""

    source: str
    text: str | None
    loaded: Loaded


@dataclass(frozen=True, slots=True)
class Origin:
    """What the process was started with: its file (which need not exist), environment, flags, and what they gave."""

    path: Path
    name: str
    """The file as the operator named it."""
    env: Mapping[str, str]
    flags: Mapping[str, object]
    reading: Reading


@dataclass(frozen=True, slots=True)
class ConfigTrouble:
    """The file cannot be used, since when (seconds since 1970), and why; the configuration before it is in effect."""

    since: float
    problems: tuple[Problem, ...]

    @property
    def text(self) -> str:
        """All of it in one line."""
        return "; ".join(str(problem) for problem in self.problems)[:LONGEST_LINE]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a change made, or would have made (`dry`), of the configuration."""

    config: Config
    changes: list[Change]
    late: list[str]
    dry: bool


@dataclass(frozen=True, slots=True)
class SavedConfig:
    """Where the configuration was written; what a restart would make different; secrets that had to stay out."""

    path: Path
    overridden: list[str]
    left_out: list[str]


def check(new: Loaded, after: Config, own_urls: Iterable[str]) -> None:
    """What no single section can know. `after` is what would run: some of its keys stay as they are.

    Raises `ConfigError`.
    """
    found = dict(conflicts(after))
    for config in (new.config, after):
        if unsafe := unsafe_listener(config):
            found.setdefault("server.host", unsafe)
    own = {normalise_url(url) for url in own_urls}
    for index, spec in enumerate(after.servers):
        if normalise_url(spec.url) in own:
            found.setdefault(f"servers.{index}.url", "is an address the fleet itself listens on")
    if found:
        raise ConfigError([Problem(path, what, new.origins.get(path, "")) for path, what in found.items()])


def whole(config: Config) -> Reading:
    """A configuration that came from nowhere, as if it had been read."""
    given = from_python(config.model_dump(exclude_unset=True), "start")
    loaded = overlaid(Loaded(config, {}, given), SourcedValue({}, "start"), [], source="start")
    return Reading("defaults", None, replace(loaded, config=config))
