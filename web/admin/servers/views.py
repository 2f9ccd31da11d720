"""One server as the admin API shows it: what it is, how it is, since when, why, and what comes next."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import trio

from fleet.protocol.typed_fields import name_of
from fleet.scheduling.server_state import Admin, Health
from web.admin.kit.schemas import EPOCH_MS, ISO, MS, Maybe, OneOf, Optional
from web.http.units import epoch, is_healthy, iso, milliseconds, status_of

if TYPE_CHECKING:
    from actors.state.servers import ServerCell
    from fleet.config import Config
    from fleet.scheduling.server_state import ServerState

REDACTED: Final = "***REDACTED***"

STATE: Final = {"state": str, "since": ISO, "why": str, "next": str}
ADMIN: Final = {
    "state": OneOf(tuple(each.value for each in Admin)),
    "since": ISO,
    "why": str,
    "next": str,
    "by": Maybe(str),
    "until": Maybe(EPOCH_MS),
}
SERVER: Final = {
    "id": str,
    "url": str,
    "type": str,
    "maxConcurrency": int,
    "priority": int,
    "tags": [str],
    "status": OneOf(("healthy", "unhealthy", "unknown", "draining", "drained", "maintenance")),
    "since": ISO,
    "why": str,
    "next": str,
    "healthy": bool,
    "reason": str,
    "draining": bool,
    "maintenance": bool,
    "health": STATE,
    "admin": ADMIN,
    "inFlight": int,
    "models": [str],
    "loadedModels": [str],
    "version": Maybe(str),
    "lastResponseTime": Maybe(MS),
    "supportsOllama": bool,
    "supportsV1": bool,
    "v1Models": [str],
    "hardware": Maybe(dict),
    "apiKey": Optional(str),
}


def describe(config: Config, cell: ServerCell) -> dict[str, Any]:
    """The server, in `SERVER`'s shape; never its key."""
    state, spec = cell.state, cell.state.spec
    names = [name_of(row) or name for name, row in state.models.items()]
    health, admin = health_of(config, state), admin_of(config, cell)
    decisive = health if state.admin is Admin.ACTIVE else admin
    shown = {
        "id": spec.id,
        "url": spec.url,
        "type": "ollama",
        "maxConcurrency": spec.max_concurrency,
        "priority": spec.priority,
        "tags": list(spec.tags),
        "status": status_of(state),
        **{name: decisive[name] for name in ("since", "why", "next")},
        "healthy": is_healthy(cell),
        "reason": decisive["why"],
        "draining": state.admin in (Admin.DRAINING, Admin.DRAINED),
        "maintenance": state.admin is Admin.MAINTENANCE,
        "health": health,
        "admin": admin,
        "inFlight": state.in_use,
        "models": names,
        "loadedModels": [name_of(row) or name for name, row in state.resident.items()],
        "version": state.version,
        "lastResponseTime": milliseconds(state.last_response),
        "supportsOllama": is_healthy(cell),
        "supportsV1": is_healthy(cell),
        "v1Models": names,
        "hardware": None,
    }
    return shown if spec.api_key is None else {**shown, "apiKey": REDACTED}


def health_of(config: Config, state: ServerState) -> dict[str, Any]:
    """What the probes say."""
    health = config.health
    step = {
        Health.UNKNOWN: "the first probe is under way",
        Health.HEALTHY: f"probed every {health.interval:g} s",
        Health.UNHEALTHY: f"probed again within {max(health.max_backoff, health.interval):g} s",
    }[state.health]
    if state.health is Health.HEALTHY and state.failed_rounds:
        step = f"unhealthy after {health.failures - state.failed_rounds} more failed probes"
    return {"state": state.health.value, "since": iso(epoch(state.since)), "why": state.why, "next": step}


def admin_of(config: Config, cell: ServerCell) -> dict[str, Any]:
    """What the operator says."""
    state = cell.state
    until = None if state.until == math.inf else milliseconds(epoch(state.until))
    return {
        "state": state.admin.value,
        "since": iso(epoch(state.admin_since or state.added)),
        "why": state.admin_why,
        "next": _next(config, cell),
        "by": state.by or None,
        "until": until,
    }


def _next(config: Config, cell: ServerCell) -> str:
    state = cell.state
    match state.admin:
        case Admin.ACTIVE:
            return "takes requests whenever it is healthy"
        case Admin.DRAINING:
            left = max(0.0, state.admin_since + config.drain_timeout - trio.current_time())
            return f"drained when {len(cell.leases)} open requests have ended, at the latest in {left:.0f} s"
        case Admin.DRAINED:
            return "takes no requests until it is undrained"
        case Admin.MAINTENANCE if state.until < math.inf:
            return f"active again at {iso(epoch(state.until))}"
        case _:
            return "takes no requests until the maintenance is ended"
