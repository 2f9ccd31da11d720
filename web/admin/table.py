"""Every topic of the admin API; with them, every route."""

from __future__ import annotations

from typing import Final

from web.admin import (
    auditlog,
    bans,
    config,
    docs,
    jobs,
    logs,
    metrics,
    models,
    recoveries,
    server_models,
)
from web.admin.topic import Entry, Topic

TOPICS: Final[tuple[Topic, ...]] = (
    server_models.topic,
    models.topic,
    jobs.topic,
    recoveries.topic,
    bans.topic,
    config.topic,
    metrics.topic,
    logs.topic,
    auditlog.topic,
    docs.topic,
)


def entries() -> list[Entry]:
    """All routes of the admin API, topic by topic."""
    return [entry for topic in TOPICS for entry in topic.entries]
