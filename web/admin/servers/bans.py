"""Who is kept away from traffic: bans by somebody, cooldowns by the fleet itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field

from actors.kit.reply import heard
from fleet.common.errors import BadRequest, ServerNotFound
from fleet.common.ids import ANY_MODEL, ModelName, Pair, ServerId
from fleet.common.model_names import canonical
from fleet.common.times import ClockReading
from fleet.config.schema.types import Section, Unit, Whole
from fleet.scheduling.bans import BanKind
from web.admin.kit.answers import EPOCH_MS, ISO, Answer, JsonObject
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.http.units import take_turns

if TYPE_CHECKING:
    from fleet.scheduling.bans import Ban

topic = RouteGroup("bans", "Bans (by somebody, until lifted or for a time) and cooldowns (by the fleet, for a while).")

YEAR_MS: Final = 366 * 24 * 3600 * 1000
_TYPES: Final = (*(kind.value for kind in BanKind), "all")
_WHICH: Final = Param("type", str, "all", "bans, cooldowns or both", words=_TYPES)


class BanJson(JsonObject, kw_only=True):
    """What keeps one server away from one model."""

    server_id: str
    model: str
    key: str
    type: BanKind
    reason: str
    banned_at: EPOCH_MS
    expires_at: Annotated[int, "milliseconds since 1970; null: until it is lifted"] | None
    since: ISO
    why: str
    next: str
    by: Annotated[str, "who asked for it; null: the fleet itself"] | None


class BansAnswer(Answer, kw_only=True):
    """Some of those that hold, and how many there are."""

    count: Annotated[int, "all there are"]
    bans: list[BanJson]


class BanAnswer(Answer, kw_only=True):
    """One that holds now."""

    ban: BanJson


class LiftedAnswer(Answer, kw_only=True):
    """How many hold no more."""

    removed: int
    message: str


class NewBan(Section):
    """A pair to keep away from new requests; those that run go on."""

    server_id: Annotated[str, Field(min_length=1, max_length=64, description="Whom to keep away.")]
    model: Annotated[str, Field(min_length=1, max_length=1024, description="From which model; any valid name.")]
    reason: Annotated[str, Field(max_length=256, description="Shown in lists, and to those who are turned away.")] = ""
    duration_ms: Annotated[Whole, Field(ge=1, le=YEAR_MS), Unit("milliseconds")] | None = Field(
        None, description="Milliseconds until it ends by itself; absent: it holds until it is lifted."
    )


@topic.get(
    "/bans",
    "All that hold now, oldest first.",
    query=(_WHICH, Param("limit", int, 1000, "how many are listed, the oldest", least=1, most=10_000)),
    seed=True,
)
async def bans(asked: AdminRequest) -> BansAnswer:
    system, kind, at = asked.system, _kind(asked), asked.reading()
    found = [ban for ban in system.scheduler.bans.list(at.now) if kind in (None, ban.kind)]
    shown = []
    for number, ban in enumerate(found[: asked.query["limit"]]):
        shown.append(describe(ban, at))
        await take_turns(number)
    return BansAnswer(count=len(found), bans=shown)


@topic.post(
    "/bans",
    "Keep a server away from a model; in place of an older ban of the same two.",
    action="ban",
    body=NewBan,
    fails=(404, 409, 503),
)
async def add(asked: AdminRequest) -> BanAnswer:
    body: NewBan = asked.body
    model = canonical(body.model)
    if model == ANY_MODEL:
        raise BadRequest("model: not a valid model name")
    pair = Pair(asked.system.cell(ServerId(body.server_id)).state.id, model)
    asked.note.about(server=pair.server, model=model)
    until = math.inf if body.duration_ms is None else asked.system.clock.now() + body.duration_ms / 1000
    reason = body.reason or "banned by an operator"
    ban = await heard(asked.system.orders.ban(pair, reason, until, asked.by.name))
    return BanAnswer(ban=describe(ban, asked.reading()))


@topic.delete("/bans", "Lift everything.", action="lift all bans", query=(_WHICH,), fails=(503,), seed=True)
async def clear(asked: AdminRequest) -> LiftedAnswer:
    gone = await _lift(asked)
    return LiftedAnswer(removed=gone, message=f"Removed {gone} bans" if gone else "No bans to clear")


@topic.delete(
    "/bans/server/<server>",
    "Lift everything of one server.",
    action="lift bans",
    query=(_WHICH,),
    fails=(503,),
    seed=True,
)
async def clear_server(asked: AdminRequest, server: str) -> LiftedAnswer:
    asked.note.about(server=server)
    gone = await _lift(asked, ServerId(server))
    if not gone and ServerId(server) not in asked.system.servers:
        raise ServerNotFound(f"server '{server}' not found")
    return LiftedAnswer(
        removed=gone, message=f"Removed {gone} bans for server {server}" if gone else "No bans found for server"
    )


@topic.delete(
    "/bans/model/<path:model>",
    "Lift everything of one model, on all servers.",
    action="lift bans",
    query=(_WHICH,),
    fails=(503,),
    seed=True,
)
async def clear_model(asked: AdminRequest, model: str) -> LiftedAnswer:
    asked.note.about(model=model)
    gone = await _lift(asked, model=canonical(model))
    return LiftedAnswer(
        removed=gone, message=f"Removed {gone} bans for model {model}" if gone else "No bans found for model"
    )


@topic.delete(
    "/bans/<server>/<path:model>",
    "Lift the ban, the cooldown or both of one pair; it is no error if there is none.",
    action="lift bans",
    query=(_WHICH,),
    fails=(503,),
    seed=True,
)
async def remove(asked: AdminRequest, server: str, model: str) -> LiftedAnswer:
    asked.note.about(server=server, model=model)
    gone = await _lift(asked, ServerId(server), canonical(model))
    return LiftedAnswer(
        removed=gone,
        message=f"Removed {gone} bans for {server}:{model}" if gone else f"No ban found for {server}:{model}",
    )


def describe(ban: Ban, at: ClockReading) -> BanJson:
    """One of them, as the API shows it."""
    for_good = ban.expires_at == math.inf
    return BanJson(
        server_id=ban.pair.server,
        model=ban.pair.model,
        key=f"{ban.pair.server}:{ban.pair.model}",
        type=ban.kind,
        reason=ban.reason,
        banned_at=at.epoch_ms(ban.banned_at),
        expires_at=None if for_good else at.epoch_ms(ban.expires_at),
        since=at.iso(ban.banned_at),
        why=ban.reason,
        next="holds until it is lifted" if for_good else f"ends by itself at {at.iso(ban.expires_at)}",
        by=ban.by or None,
    )


async def _lift(asked: AdminRequest, server: ServerId | None = None, model: ModelName | None = None) -> int:
    if model == ANY_MODEL:  # not the name of a model; what is kept away from requests without one stays
        return 0
    gone = await heard(asked.system.orders.lift(server, model, _kind(asked)))
    return len(gone)


def _kind(asked: AdminRequest) -> BanKind | None:
    word = asked.query["type"]
    return None if word == "all" else BanKind(word)
