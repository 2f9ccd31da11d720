"""The configuration: one model, read from YAML, environment and flags, with every problem and every source named."""

from __future__ import annotations

from fleet.config.live.effective import report
from fleet.config.live.reference import reference, refreshed
from fleet.config.loading.layers import Loaded, amend, load, parse_server
from fleet.config.schema.balancing import (
    CircuitBreakerSection,
    HealthSection,
    LoadBalancerSection,
    PlacementSection,
    QueueSection,
    RetrySection,
    Weights,
)
from fleet.config.schema.listeners import (
    CompatSection,
    CorsSection,
    LimitsSection,
    LoggingSection,
    MonitoringSection,
    RateLimitingSection,
    ServerSection,
    TimeoutsSection,
    TlsSection,
)
from fleet.config.schema.model import Config, checks_hosts, listening, schema, unsafe_listener
from fleet.config.schema.persistence import HistorySection, JobsSection, ReloadSection, StoreSection
from fleet.config.schema.problems import ConfigError, Problem
from fleet.config.schema.security import BackendsSection, KeySpec, SecuritySection
from fleet.config.schema.servers import ServerSpec
from fleet.config.schema.urls import is_loopback, normalise_url

__all__ = [
    "BackendsSection",
    "CircuitBreakerSection",
    "CompatSection",
    "Config",
    "ConfigError",
    "CorsSection",
    "HealthSection",
    "HistorySection",
    "JobsSection",
    "KeySpec",
    "LimitsSection",
    "LoadBalancerSection",
    "Loaded",
    "LoggingSection",
    "MonitoringSection",
    "PlacementSection",
    "Problem",
    "QueueSection",
    "RateLimitingSection",
    "ReloadSection",
    "RetrySection",
    "SecuritySection",
    "ServerSection",
    "ServerSpec",
    "StoreSection",
    "TimeoutsSection",
    "TlsSection",
    "Weights",
    "amend",
    "checks_hosts",
    "is_loopback",
    "listening",
    "load",
    "normalise_url",
    "parse_server",
    "reference",
    "refreshed",
    "report",
    "schema",
    "unsafe_listener",
]
