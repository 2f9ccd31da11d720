"""The configuration as the running process has it: its layers, its file, and how it is changed, reloaded, saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.system import System


class Settings:
    """What `/config` talks to."""

    def __init__(self, system: System) -> None:
        self._system = system
