"""Every topic of the admin API; with them, every route."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from web.admin import (
    alerts,
    aliases,
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
    login,
    logs,
    metrics,
    model_advice,
    model_loading,
    model_status,
    model_unloading,
    models,
    monitoring,
    pair_metrics,
    prometheus,
    queue,
    recoveries,
    server_models,
    servers,
    standing,
    stats,
)
from web.admin.topic import Entry, Topic
from web.faces import Face

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
    prometheus.topic,
    aliases.topic,
    alerts.topic,
    logs.topic,
    auditlog.topic,
    docs.topic,
)
"""On every port but the one for metrics."""

FACES: Final[Mapping[Face, tuple[Topic, ...]]] = MappingProxyType(
    {
        Face.PROXY: TOPICS,
        Face.ORCHESTRATOR: TOPICS,
        Face.DASHBOARD: (*TOPICS, login.topic),
        Face.METRICS: (monitoring.topic, prometheus.topic),
    }
)
"""What each port serves of this table."""


def entries() -> list[Entry]:
    """All routes of the admin API, topic by topic."""
    return [entry for topic in TOPICS for entry in topic.entries]


def entries_of(face: Face) -> list[Entry]:
    """All routes of the table on one port."""
    return [entry for topic in FACES[face] for entry in topic.entries]
