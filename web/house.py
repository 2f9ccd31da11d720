"""What the front end consists of besides its routes: the running fleet, its settings, its latest log records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from web import listing
from web.admin.table import TOPICS
from web.exposition import Exposition
from web.listing import Listing
from web.logring import LogRing
from web.passes import Passes
from web.settings import Settings

if TYPE_CHECKING:
    from actors.system import System
    from web.admin.topic import Topic


@dataclass(frozen=True, slots=True, eq=False)
class House:
    """Handed to every route of the admin API."""

    system: System
    settings: Settings
    logs: LogRing
    exposition: Exposition = field(default_factory=Exposition)
    """What `/metrics` answers, shared by all ports."""
    tags: Listing = field(init=False)
    """What `/api/tags` answers under the orchestrator's prefix."""

    passes: Passes = field(init=False)
    """Who has logged in on the dashboard port."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", listing.tags(self.system))
        object.__setattr__(self, "passes", Passes(self.system.fleet.journal))

    @property
    def topics(self) -> tuple[Topic, ...]:
        """All routes of the admin API."""
        return TOPICS

    @classmethod
    def of(cls, system: System) -> House:
        """A house around a system alone: settings without a file, the ring of this process."""
        return cls(system, Settings(system), LogRing.installed())
