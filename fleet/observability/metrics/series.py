"""The series of a meter: of a route, a model, a server, a pair. Plain numbers; who exposes them knows the names."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from fleet.observability.metrics.definitions import (
    DURATION_BUCKETS,
    FIRST_TOKEN_BUCKETS,
    INTER_TOKEN_BUCKETS,
    LOAD_BUCKETS,
    SERVER_FIRST_TOKEN_BUCKETS,
    WAIT_BUCKETS,
)
from fleet.observability.metrics.instruments import Histogram, MinuteRate


def _words() -> defaultdict[str, int]:
    return defaultdict(int)


@dataclass(slots=True, eq=False)
class RouteSeries:
    """One method, endpoint and model: how often by status, and how long it took."""

    statuses: defaultdict[str, int] = field(default_factory=_words)
    duration: Histogram = field(default_factory=lambda: Histogram(DURATION_BUCKETS))


@dataclass(slots=True, eq=False)
class OfModel:
    """One model, on all servers."""

    pace: MinuteRate
    wasted: int = 0
    unserved: defaultdict[str, int] = field(default_factory=_words)
    first_token: Histogram = field(default_factory=lambda: Histogram(FIRST_TOKEN_BUCKETS))
    inter_token: Histogram = field(default_factory=lambda: Histogram(INTER_TOKEN_BUCKETS))
    wait: Histogram = field(default_factory=lambda: Histogram(WAIT_BUCKETS))
    load: Histogram = field(default_factory=lambda: Histogram(LOAD_BUCKETS))


@dataclass(slots=True, eq=False)
class OfServer:
    """One server, all models."""

    attempts: defaultdict[str, int] = field(default_factory=_words)
    streams: int = 0
    stalls: int = 0
    first_token: Histogram = field(default_factory=lambda: Histogram(SERVER_FIRST_TOKEN_BUCKETS))


@dataclass(slots=True, eq=False)
class OfPair:
    """One model on one server. `loads` and its like matter only once something of the kind has happened."""

    outcomes: defaultdict[str, int] = field(default_factory=_words)
    prompt: int = 0
    output: int = 0
    loads: int = 0
    reloads: int = 0
    evictions: int = 0
    moves: defaultdict[str, int] = field(default_factory=_words)
