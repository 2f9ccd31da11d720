"""The state of the fleet as those who watch it live are shown it: plain values, and how they are spelled on the wire.

Units: seconds, bytes, shares from 0 to 1, times in epoch seconds; but `metrics` has the units of the monitoring stack's
reference (percent, watts). What is not known is None, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Fields = Mapping[str, Any]
"""Names and plain values."""


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """One moment. `servers` and `matrix` are keyed by server; each line of the matrix has one letter per model."""

    timestamp: str
    metrics: Fields
    ollama_status: str
    fleet: Fields
    servers: Mapping[str, Fields]
    models: tuple[str, ...]
    matrix: Mapping[str, str]


def snapshot(state: FleetSnapshot) -> dict[str, Any]:
    """The whole of it, as a message says it (without kind, epoch and number)."""
    return {
        "timestamp": state.timestamp,
        "metrics": state.metrics,
        "ollama_status": state.ollama_status,
        "fleet": state.fleet,
        "servers": [{"id": server, **fields} for server, fields in state.servers.items()],
        "matrix": {"models": state.models, "rows": state.matrix},
    }


def read(message: Mapping[str, Any]) -> FleetSnapshot:
    """A snapshot as a client reads it. Raises KeyError for what is none."""
    servers = {server["id"]: {k: v for k, v in server.items() if k != "id"} for server in message["servers"]}
    return FleetSnapshot(
        timestamp=message["timestamp"],
        metrics=message["metrics"],
        ollama_status=message["ollama_status"],
        fleet=message["fleet"],
        servers=servers,
        models=tuple(message["matrix"]["models"]),
        matrix=message["matrix"]["rows"],
    )
