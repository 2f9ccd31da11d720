"""Every topic of the admin API; with them, every route."""

from __future__ import annotations

from typing import Final

from web.admin import (
    auditlog,
    bans,
    breaker_orders,
    breakers,
    checkup,
    config,
    docs,
    health,
    inflight,
    jobs,
    logs,
    metrics,
    model_advice,
    model_loading,
    model_status,
    model_unloading,
    models,
    pair_metrics,
    queue,
    recoveries,
    server_models,
    servers,
    standing,
    stats,
)
from web.admin.topic import Entry, Topic

TOPICS: Final[tuple[Topic, ...]] = (
    servers.topic,
    standing.topic,
    server_models.topic,
    models.topic,
    model_status.topic,
    model_loading.topic,
    model_unloading.topic,
    model_advice.topic,
    jobs.topic,
    breakers.topic,
    breaker_orders.topic,
    recoveries.topic,
    bans.topic,
    queue.topic,
    inflight.topic,
    config.topic,
    health.topic,
    health.probes,
    checkup.topic,
    metrics.topic,
    pair_metrics.topic,
    stats.topic,
    logs.topic,
    auditlog.topic,
    docs.topic,
)


def entries() -> list[Entry]:
    """All routes of the admin API, topic by topic."""
    return [entry for topic in TOPICS for entry in topic.entries]
