"""Finished requests for a meter, and its figures as a plain dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fleet.observability.metrics.registry import MetricsRegistry
from fleet.observability.metrics.snapshot import Exposed, count
from fleet.observability.statistics.request_batch import RequestBatch


class Tried(NamedTuple):
    """An attempt."""

    server: str = "a"
    outcome: str = "completed"
    started: float = 10.0
    first_byte: float | None = 10.2
    ended: float = 12.0


@dataclass
class Done:
    """A finished request."""

    request_id: str = "r1"
    endpoint: str = "/api/chat"
    model: str = "m:latest"
    server: str = "a"
    outcome: str = "completed"
    status: int = 200
    queue_seconds: float = 0.0
    first_byte_seconds: float | None = 0.2
    total_seconds: float = 2.0
    chunks: int = 11
    prompt_tokens: int | None = 5
    output_tokens: int | None = 10
    stream: bool = True
    load_seconds: float | None = None
    runner: Mapping[str, object] | None = None
    tries: tuple[Tried, ...] = field(default_factory=lambda: (Tried(),))


@dataclass
class Inventory:
    """Which servers list which models."""

    servers: dict[str, set[str]]

    def server(self, server: str) -> bool:
        return server in self.servers

    def model(self, model: str) -> bool:
        return any(model in models for models in self.servers.values())

    def pair(self, server: str, model: str) -> bool:
        return model in self.servers.get(server, ())


def refused(outcome: str, status: int, **more: object) -> Done:
    """A request that no server was found for."""
    nothing = Done(
        server="", outcome=outcome, status=status, chunks=0, prompt_tokens=None, output_tokens=None, tries=()
    )
    nothing.first_byte_seconds = None
    for name, value in more.items():
        setattr(nothing, name, value)
    return nothing


def metered(*done: Done, now: float = 100.0, meter: MetricsRegistry | None = None) -> MetricsRegistry:
    """A meter that was told of these, together."""
    meter = meter or MetricsRegistry()
    meter.note(RequestBatch(done), now, 1e9)
    return meter


def shown(meter: MetricsRegistry) -> dict[tuple[str, ...], float]:
    """Every counter by name and labels; of histograms the number and the sum."""
    exposed = Exposed()
    count(exposed, meter)
    found: dict[tuple[str, ...], float] = {}
    for family in exposed.in_order():
        name = family.metric.name
        found |= {(name, *labels): value for labels, value in family.points}
        for labels, (counts, total, _) in family.spreads:
            found[f"{name}_count", *labels] = counts[-1]
            found[f"{name}_sum", *labels] = total
    return found
