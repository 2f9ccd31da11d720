"""What the front end consists of besides its routes: the running fleet, its settings, its latest log records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from web.logring import LogRing
from web.settings import Settings

if TYPE_CHECKING:
    from actors.system import System


@dataclass(frozen=True, slots=True, eq=False)
class House:
    """Handed to every route of the admin API."""

    system: System
    settings: Settings
    logs: LogRing

    @classmethod
    def of(cls, system: System) -> House:
        """A house around a system alone: settings without a file, an empty ring."""
        return cls(system, Settings(system), LogRing())
