"""What the front end consists of besides its routes: the running fleet, its settings, its latest log records."""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.config.settings import Settings
from actors.system import System
from web.admin.kit.routes import RouteGroup
from web.monitoring.exposition import Exposition
from web.ollama_api import merged_lists
from web.ollama_api.merged_lists import Listing
from web.process.log_buffer import LogRing
from web.security.request_gate import RequestGate
from web.security.session_cookies import SessionCookies


@dataclass(frozen=True, slots=True, eq=False)
class AppContext:
    """Handed to every route of the admin API."""

    system: System
    settings: Settings
    logs: LogRing
    topics: tuple[RouteGroup, ...]
    """All routes of the admin API, which describe themselves to whoever asks. Handed in: the routes know this class."""
    exposition: Exposition = field(default_factory=Exposition)
    """What `/metrics` answers, shared by all ports."""
    tags: Listing = field(init=False)
    """What `/api/tags` answers under the orchestrator's prefix."""

    gate: RequestGate = field(init=False)
    """Who may come in, by any port."""
    passes: SessionCookies = field(init=False)
    """Who has logged in on the dashboard port."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", merged_lists.tags(self.system))
        object.__setattr__(self, "gate", RequestGate(self.system))
        object.__setattr__(self, "passes", SessionCookies(self.system.journal, self.system.clock.wall))

    @classmethod
    def of(cls, system: System, topics: tuple[RouteGroup, ...]) -> AppContext:
        """Around a system alone: settings without a file, the ring of this process."""
        return cls(system, Settings(system), LogRing.installed(), topics)
