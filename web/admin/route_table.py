"""Every topic of the admin API; with them, every route."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from web.admin import aliases, docs_page, login
from web.admin.breakers import breakers, orders, recovery_log
from web.admin.config import config
from web.admin.history import analytics, capacity, decisions, request_stats, trends, usage
from web.admin.history import requests as past_requests
from web.admin.kit.routes import Route, RouteGroup
from web.admin.models import advice, jobs, models, status, unload, warm_up
from web.admin.observability import (
    alerts,
    audit_log,
    health,
    logs,
    metrics,
    metrics_port_routes,
    pair_metrics,
    prometheus,
    stats,
)
from web.admin.requests import in_flight, queue, routing
from web.admin.servers import bans, drain_and_maintenance, manual_probe, servers
from web.admin.servers import models as server_models
from web.http.ports import Face

TOPICS: Final[tuple[RouteGroup, ...]] = (
    servers.topic,
    drain_and_maintenance.topic,
    server_models.topic,
    models.topic,
    status.topic,
    warm_up.topic,
    unload.topic,
    advice.topic,
    jobs.topic,
    breakers.topic,
    orders.topic,
    recovery_log.topic,
    bans.topic,
    queue.topic,
    in_flight.topic,
    routing.topic,
    config.topic,
    health.topic,
    health.probes,
    manual_probe.topic,
    metrics.topic,
    pair_metrics.topic,
    stats.topic,
    past_requests.topic,
    request_stats.topic,
    analytics.topic,
    trends.topic,
    capacity.topic,
    usage.topic,
    decisions.topic,
    prometheus.topic,
    aliases.topic,
    alerts.topic,
    logs.topic,
    audit_log.topic,
    docs_page.topic,
)
"""On every port but the one for metrics."""

FACES: Final[Mapping[Face, tuple[RouteGroup, ...]]] = MappingProxyType(
    {
        Face.PROXY: TOPICS,
        Face.ORCHESTRATOR: TOPICS,
        Face.DASHBOARD: (*TOPICS, login.topic),
        Face.METRICS: (metrics_port_routes.topic, prometheus.topic),
    }
)
"""What each port serves of this table."""


def entries() -> list[Route]:
    """All routes of the admin API, topic by topic."""
    return [entry for topic in TOPICS for entry in topic.entries]


def entries_of(face: Face) -> list[Route]:
    """All routes of the table on one port."""
    return [entry for topic in FACES[face] for entry in topic.entries]
