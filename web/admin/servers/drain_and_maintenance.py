"""What the operator says of a server: drain it, use it again, keep it for maintenance."""

from __future__ import annotations

import math
from typing import Annotated, Final

from pydantic import Field

from fleet.common.errors import BadRequest, Conflict
from fleet.common.ids import ServerId
from fleet.config.schema.types import Section, Whole
from fleet.scheduling.server_state import Admin, Order
from web.admin.kit.answers import ISO, MessageAnswer
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.servers.views import AdminJson, admin_of

topic = RouteGroup("standing", "What the operator says of a server.")

_LONGEST: Final = 366 * 86_400_000
Moment = Annotated[Whole, Field(ge=0, le=10**14)]


class Reason(Section):
    """Why."""

    reason: str = Field("", max_length=500, description="Free text, shown wherever the state is.")


class Maintenance(Section):
    """Whether, why and for how long."""

    enabled: bool = Field(True, description="False ends the maintenance.")
    reason: str = Field("", max_length=500, description="Free text, shown wherever the state is.")
    until: Moment | None = Field(None, description="When it ends by itself, in milliseconds since 1970.")
    duration_ms: Annotated[Whole, Field(ge=1, le=_LONGEST)] | None = Field(
        None, description="How long it lasts, in milliseconds; instead of `until`."
    )


class _Order(MessageAnswer, kw_only=True):
    """How an order went."""

    server_id: str


class DrainAnswer(_Order, kw_only=True):
    """What there is still to wait for."""

    in_flight_requests: int
    estimated_completion: ISO | None
    state: AdminJson


class UndrainAnswer(_Order, kw_only=True):
    """How things stand afterwards."""

    state: AdminJson


class MaintenanceAnswer(_Order, kw_only=True):
    """How things stand afterwards."""

    maintenance: bool
    state: AdminJson


@topic.post(
    "/servers/<server>/drain",
    "Let a server take no new requests, and its open ones end.",
    action="drain server",
    body=Reason,
    fails=(409, 503),
    seed=True,
)
async def drain(asked: AdminRequest, server: str) -> DrainAnswer:
    state = await _ordered(asked, server, Order.DRAIN, asked.body.reason or "drained by the operator")
    cell = asked.system.cell(ServerId(server))
    by = cell.state.admin_since + asked.system.config.drain_timeout
    return DrainAnswer(
        message=f"server '{server}' is {cell.state.admin.value}",
        server_id=server,
        in_flight_requests=len(cell.leases),
        estimated_completion=asked.reading().iso(by) if cell.state.admin is Admin.DRAINING else None,
        state=state,
    )


@topic.post(
    "/servers/<server>/undrain",
    "Let a drained server take requests again.",
    action="undrain server",
    fails=(409, 503),
    seed=True,
)
async def undrain(asked: AdminRequest, server: str) -> UndrainAnswer:
    if asked.system.cell(ServerId(server)).state.admin is Admin.MAINTENANCE:
        raise Conflict(f"server '{server}' is in maintenance", details='end that with {"enabled": false}')
    state = await _ordered(asked, server, Order.ACTIVATE, "undrained by the operator")
    return UndrainAnswer(message=f"server '{server}' takes requests again", server_id=server, state=state)


@topic.post(
    "/servers/<server>/maintenance",
    "Begin or end the maintenance of a server; begun with an end, it ends by itself.",
    action="maintain server",
    body=Maintenance,
    fails=(409, 503),
    seed=True,
)
async def maintenance(asked: AdminRequest, server: str) -> MaintenanceAnswer:
    given: Maintenance = asked.body
    if given.enabled:
        why = given.reason or "maintenance by the operator"
        state = await _ordered(asked, server, Order.MAINTAIN, why, _until(asked, given))
    elif asked.system.cell(ServerId(server)).state.admin is Admin.MAINTENANCE:
        state = await _ordered(asked, server, Order.ACTIVATE, given.reason or "maintenance ended by the operator")
    else:
        state = admin_of(asked.system.config, asked.system.cell(ServerId(server)), asked.reading())
    word = "is in maintenance" if given.enabled else "is not in maintenance"
    return MaintenanceAnswer(
        message=f"server '{server}' {word}",
        server_id=server,
        maintenance=state.state is Admin.MAINTENANCE,
        state=state,
    )


def _until(asked: AdminRequest, given: Maintenance) -> float:
    """On the fleet's clock; infinite without an end. Raises BadRequest for two ends, or one that has passed."""
    if given.until is not None and given.duration_ms is not None:
        raise BadRequest("give either until or durationMs, not both")
    if given.duration_ms is not None:
        return asked.system.clock.now() + given.duration_ms / 1000
    if given.until is None:
        return math.inf
    if given.until / 1000 <= asked.system.clock.wall():
        raise BadRequest("until: has passed already", details="give milliseconds since 1970, in the future")
    return asked.system.clock.moment(given.until / 1000)


async def _ordered(asked: AdminRequest, server: str, order: Order, why: str, until: float = math.inf) -> AdminJson:
    asked.note.about(server=server)
    before = asked.system.cell(ServerId(server)).state.admin.value
    await asked.system.ordered(ServerId(server), order, why, asked.by.name, until)
    state = admin_of(asked.system.config, asked.system.cell(ServerId(server)), asked.reading())
    asked.note.change(before={"state": before}, after={"state": state.state.value, "why": state.why})
    return state
