"""A server's state in one word: what the operator says if it is out of service, else what the probes say.

One owner of all vocabularies. They differ by who reads them, and each is promised to its readers: the admin API speaks
like the reference does; metrics, alert rules and the summary are short and need no negation; the dashboard names how
bad it is, and adds breakers and alerts (`fleet.observability.dashboard.server_rows`). Planned states are the same in
all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fleet.scheduling.server_state import Admin, Health, ServerState

Words = Mapping[Health, str]

API: Final[Words] = {Health.HEALTHY: "healthy", Health.UNHEALTHY: "unhealthy", Health.UNKNOWN: "unknown"}
METRICS: Final[Words] = {Health.HEALTHY: "ok", Health.UNHEALTHY: "down", Health.UNKNOWN: "unknown"}
DASHBOARD: Final[Words] = {Health.HEALTHY: "ok", Health.UNHEALTHY: "crit", Health.UNKNOWN: "unknown"}

PLANNED: Final = tuple(each.value for each in (Admin.DRAINING, Admin.DRAINED, Admin.MAINTENANCE))
"""The states that an operator wanted."""


def word_of(state: ServerState, words: Words) -> str:
    """The one word."""
    return words[state.health] if state.admin is Admin.ACTIVE else state.admin.value


def all_of(words: Words) -> tuple[str, ...]:
    """Every word that `word_of` may give."""
    return (*words.values(), *PLANNED)
