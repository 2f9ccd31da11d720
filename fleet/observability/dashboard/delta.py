"""What has changed between two states of the fleet, and how a client puts that together again.

In a delta `timestamp`, `metrics` and `ollama_status` are always there and whole. `fleet`, `servers` and `matrix` hold
what has changed only. A server that is gone is null at its key, in `servers` and in `matrix`; null in a field of a
server, or of `fleet`, is that field's value: it is not known (any more). A new server has all its fields. When the
list of models is another, `models` is there with the whole list, and every line of the matrix with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet.observability.dashboard.snapshot import Fields, FleetSnapshot


def delta(old: FleetSnapshot, new: FleetSnapshot) -> dict[str, Any]:
    """How to get from one state to the other, as a message says it (without kind, epoch and number)."""
    renamed = old.models != new.models
    message = {
        "timestamp": new.timestamp,
        "metrics": new.metrics,
        "ollama_status": new.ollama_status,
        "fleet": _fields(old.fleet, new.fleet),
        "servers": _servers(old.servers, new.servers),
        "matrix": _lines({} if renamed else old.matrix, new.matrix),
    }
    return {**message, "models": new.models} if renamed else message


def apply(state: FleetSnapshot, message: Mapping[str, Any]) -> FleetSnapshot:
    """The state after a delta: what a client does, in so many words."""
    renamed = "models" in message
    return FleetSnapshot(
        timestamp=message["timestamp"],
        metrics=message["metrics"],
        ollama_status=message["ollama_status"],
        fleet={**state.fleet, **message["fleet"]},
        servers=_merged(state.servers, message["servers"]),
        models=tuple(message["models"]) if renamed else state.models,
        matrix=_present({**({} if renamed else state.matrix), **message["matrix"]}),
    )


def _fields(old: Fields, new: Fields) -> dict[str, Any]:
    return {name: value for name, value in new.items() if name not in old or old[name] != value}


def _servers(old: Mapping[str, Fields], new: Mapping[str, Fields]) -> dict[str, Any]:
    changed: dict[str, Any] = {server: None for server in old if server not in new}
    for server, fields in new.items():
        before = old.get(server)
        if before is None:
            changed[server] = fields
        elif before is not fields and (moved := _fields(before, fields)):
            changed[server] = moved
    return changed


def _lines(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str | None]:
    changed: dict[str, str | None] = {server: None for server in old if server not in new}
    changed |= {server: line for server, line in new.items() if old.get(server) != line}
    return changed


def _merged(old: Mapping[str, Fields], changes: Mapping[str, Fields | None]) -> dict[str, Fields]:
    merged = dict(old)
    for server, fields in changes.items():
        if fields is None:
            merged.pop(server, None)
        else:
            merged[server] = {**merged.get(server, {}), **fields}
    return merged


def _present(lines: Mapping[str, str | None]) -> dict[str, str]:
    return {server: line for server, line in lines.items() if line is not None}
