"""Where the configuration stands: what is wanted, what is in effect, what is written down, and where it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from actors.config import config_file
from actors.config.sources import Origin, Reading, whole
from actors.kit.clock import Clock
from actors.security.api_keys import ApiKeys
from actors.servers.membership import Membership
from actors.state.config_ref import ConfigRef
from fleet.common.errors import BadRequest
from fleet.config import Config
from fleet.config.live.diff import SOURCE, diff
from fleet.config.live.restart_keys import awaiting_restart
from fleet.config.loading.sourced_value import SourcedValue


class Reconfigurable(Protocol):
    """What the settings use of a fleet. Its members are made once, but for the configuration in effect."""

    @property
    def config(self) -> Config: ...

    @property
    def config_ref(self) -> ConfigRef: ...

    @property
    def membership(self) -> Membership: ...

    @property
    def keys(self) -> ApiKeys: ...

    @property
    def clock(self) -> Clock: ...


class SettingsView:
    """The layers, and what can be asked about them. Without an `origin` there is no file, and never will be."""

    def __init__(self, fleet: Reconfigurable, origin: Origin | None = None) -> None:
        self._fleet = fleet
        self.config_ref = fleet.config_ref
        self._origin = origin
        self._layer = SourcedValue({}, SOURCE)
        """What the admin API has changed, servers apart."""
        self._base = self._at_rest = None if origin is None else origin.reading
        """What lies below that; what a restart would read."""
        self._wanted: Config | None = None if origin is None else origin.reading.loaded.config

    @property
    def config(self) -> Config:
        """What is wanted: in effect, apart from the keys that wait for a restart."""
        running = self._fleet.config
        return running if self._wanted is None else self._wanted.model_copy(update={"servers": running.servers})

    @property
    def file(self) -> Path | None:
        """The file that a reload reads and a save writes; None: the process was started without any."""
        return None if self._origin is None else self._origin.path

    @property
    def watchable(self) -> bool:
        """Whether there was a file at the start: only that one is followed."""
        return self._origin is not None and self._origin.reading.text is not None

    @property
    def source(self) -> str:
        """The file that is in effect, as it was named, or `defaults`."""
        return self._below.source

    @property
    def late(self) -> list[str]:
        """The keys that wait for a restart."""
        return awaiting_restart(self.config, self._fleet.config)

    @property
    def unsaved(self) -> list[str]:
        """The keys in which we differ from the file, the environment and the flags."""
        rest = self._at_rest or self._below
        return [change.path for change in diff(rest.loaded.config, self.config)]

    def sources(self) -> dict[str, str]:
        """Where each value comes from, by dotted path; a server by its id, as a whole."""
        below, config = self._below.loaded, self.config
        found = {path: where for path, where in below.origins.items() if not path.startswith("servers.")}
        found |= {path: SOURCE for path in found if self._layer.source_of(path.split("."))}
        if self._layer.source_of(["port"]) or self._layer.source_of(["server", "orchestrator_port"]):
            found["port"] = found["server.orchestrator_port"] = SOURCE
        known = {spec.id: (spec, index) for index, spec in enumerate(below.config.servers)}
        for spec in config.servers:
            base, index = known.get(spec.id, (None, -1))
            written = below.given.source_of(["servers", str(index)]) if base == spec else SOURCE
            found[f"servers.{spec.id}"] = written or "default"
        return found

    @property
    def _below(self) -> Reading:
        """The layers below ours; without a file those are what the system was opened with."""
        if self._base is None:
            self._base = whole(self._fleet.config)
            self._wanted = self._fleet.config
        return self._base

    def _place(self, asked: str | None) -> tuple[Origin, Path]:
        origin = self._origin
        if origin is None:
            raise BadRequest("No configuration file specified", details="the fleet was started without a file")
        if asked is None:
            return origin, origin.path.resolve()
        directory = self._fleet.config.reload.directory
        return origin, config_file.allowed(asked, Path(directory) if directory else origin.path.parent)
