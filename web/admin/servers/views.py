"""One server as the admin API shows it: what it is, how it is, since when, why, and what comes next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from msgspec import UNSET, UnsetType

from fleet.common.times import ClockReading, milliseconds
from fleet.protocol.typed_fields import name_of
from fleet.scheduling import server_words
from fleet.scheduling.server_state import Admin, Health
from web.admin.kit.answers import EPOCH_MS, ISO, MS, JsonObject
from web.admin.kit.schemas import OneOf
from web.http.units import is_healthy

if TYPE_CHECKING:
    from actors.state.servers import ServerCell
    from fleet.config import Config
    from fleet.scheduling.choice.expected_completion import ExpectedCompletion
    from fleet.scheduling.server_state import ServerState

REDACTED: Final = "***REDACTED***"

STATUSES: Final = (Health.HEALTHY, Health.UNHEALTHY, Health.UNKNOWN, Admin.DRAINING, Admin.DRAINED, Admin.MAINTENANCE)


class HealthJson(JsonObject, kw_only=True):
    """What the probes say."""

    state: Health
    since: ISO
    why: str
    next: str


class AdminJson(JsonObject, kw_only=True):
    """What the operator says."""

    state: Admin
    since: ISO
    why: str
    next: str
    by: str | None
    until: EPOCH_MS | None


class ServerJson(JsonObject, kw_only=True):
    """One server; never its key.

    `slots`: requests at one time that it is held to serve now; `learned_slots`: how many the runner of each model was
    seen to serve at once, as far as it was seen.
    """

    id: str
    url: str
    type: str = "ollama"
    max_concurrency: int | Literal["auto"]
    slots: int
    learned_slots: dict[str, int]
    priority: int
    tags: Sequence[str]
    status: Annotated[str, OneOf(tuple(each.value for each in STATUSES))]
    since: ISO
    why: str
    next: str
    healthy: bool
    reason: str
    draining: bool
    maintenance: bool
    health: HealthJson
    admin: AdminJson
    in_flight: int
    models: list[str]
    loaded_models: list[str]
    version: str | None
    last_response_time: MS | None
    supports_ollama: bool
    supports_v1: bool
    v1_models: list[str]
    hardware: dict[str, Any] | None = None
    api_key: str | UnsetType = UNSET


def describe(config: Config, expectations: ExpectedCompletion, cell: ServerCell, at: ClockReading) -> ServerJson:
    """The server, as the API shows it."""
    state, spec = cell.state, cell.state.spec
    names = [name_of(row) or name for name, row in state.models.items()]
    health, admin = health_of(config, state, at), admin_of(config, cell, at)
    decisive = health if state.admin is Admin.ACTIVE else admin
    reached = is_healthy(cell)
    return ServerJson(
        id=spec.id,
        url=spec.url,
        max_concurrency=spec.max_concurrency,
        slots=int(state.capacity),
        learned_slots={str(model): slots for model, slots in expectations.learned_slots(state).items()},
        priority=spec.priority,
        tags=spec.tags,
        status=server_words.word_of(state, server_words.API),
        since=decisive.since,
        why=decisive.why,
        next=decisive.next,
        healthy=reached,
        reason=decisive.why,
        draining=state.admin in (Admin.DRAINING, Admin.DRAINED),
        maintenance=state.admin is Admin.MAINTENANCE,
        health=health,
        admin=admin,
        in_flight=state.in_use,
        models=names,
        loaded_models=[name_of(row) or name for name, row in state.resident.items()],
        version=state.version,
        last_response_time=milliseconds(state.last_response),
        supports_ollama=reached,
        supports_v1=reached,
        v1_models=names,
        api_key=UNSET if spec.api_key is None else REDACTED,
    )


def health_of(config: Config, state: ServerState, at: ClockReading) -> HealthJson:
    """What the probes say."""
    health = config.health
    step = {
        Health.UNKNOWN: "the first probe is under way",
        Health.HEALTHY: f"probed every {health.interval:g} s",
        Health.UNHEALTHY: f"probed again within {max(health.max_backoff, health.interval):g} s",
    }[state.health]
    if state.health is Health.HEALTHY and state.failed_rounds:
        step = f"unhealthy after {health.failures - state.failed_rounds} more failed probes"
    return HealthJson(state=state.health, since=at.iso(state.since), why=state.why, next=step)


def admin_of(config: Config, cell: ServerCell, at: ClockReading) -> AdminJson:
    """What the operator says."""
    state = cell.state
    return AdminJson(
        state=state.admin,
        since=at.iso(state.admin_since or state.added),
        why=state.admin_why,
        next=_next(config, cell, at),
        by=state.by or None,
        until=None if state.until == math.inf else at.epoch_ms(state.until),
    )


def _next(config: Config, cell: ServerCell, at: ClockReading) -> str:
    state = cell.state
    match state.admin:
        case Admin.ACTIVE:
            return "takes requests whenever it is healthy"
        case Admin.DRAINING:
            left = max(0.0, state.admin_since + config.drain_timeout - at.now)
            return f"drained when {len(cell.leases)} open requests have ended, at the latest in {left:.0f} s"
        case Admin.DRAINED:
            return "takes no requests until it is undrained"
        case Admin.MAINTENANCE if state.until < math.inf:
            return f"active again at {at.iso(state.until)}"
        case _:
            return "takes no requests until the maintenance is ended"
