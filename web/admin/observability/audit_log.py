"""Who changed what, when, from where."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, UnsetType, field

from actors.storage.journal import RECENT, Document
from fleet.common.times import iso, milliseconds
from fleet.security.roles import Role
from web.admin.kit.answers import EPOCH_MS, ISO, Answer, JsonObject
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.kit.schemas import OneOf

topic = RouteGroup("audit", "Who changed what.")


class AuditLineJson(JsonObject, kw_only=True):
    """One change."""

    id: Annotated[int, "grows with every line"]
    at: ISO
    timestamp: EPOCH_MS
    who: Annotated[str, "name of a key, api_keys[n], or anonymous"]
    role: Annotated[str, OneOf(Role.words())]
    origin: Annotated[str, "address of the client"] = field(name="from")
    action: str
    targets: dict[str, str]
    outcome: Annotated[str, OneOf(("done", "failed", "cut", "cancelled"))]
    status: Annotated[int, "of the answer; 0 if the client left before it"]
    reason: Annotated[str, "the precise reason of a failure, else empty"]
    request_id: str
    before: object | UnsetType = UNSET
    after: object | UnsetType = UNSET


class AuditAnswer(Answer, kw_only=True):
    """A page of the audit log."""

    count: int
    entries: list[AuditLineJson]
    next: int | None


@topic.get(
    "/audit",
    "The audit log: every change, the newest first.",
    role=Role.ADMIN,
    query=(
        Param("limit", int, 100, "Most lines of the answer.", 1, RECENT),
        Param("before", int, None, "Only lines with an id below this: the next page.", 1, 2**53),
    ),
)
async def audit(asked: AdminRequest) -> AuditAnswer:
    limit = asked.query["limit"]
    lines = await asked.system.journal.history(limit, asked.query["before"])
    entries = [_shown(line) for line in lines]
    following = entries[-1].id if len(entries) == limit else None
    return AuditAnswer(count=len(entries), entries=entries, next=following)


def _shown(line: Document) -> AuditLineJson:
    """One line with its moment in both spellings. It may lack fields: one of another version, or of our own doing."""
    at = line.get("at", 0)
    return AuditLineJson(
        id=line.get("id", 0),
        at=iso(at),
        timestamp=milliseconds(at),
        who=line.get("who", ""),
        role=line.get("role", Role.ADMIN.word),
        origin=line.get("from", ""),
        action=line.get("action", ""),
        targets=line.get("targets", {}),
        outcome=line.get("outcome", "done"),
        status=line.get("status", 0),
        reason=line.get("reason", ""),
        request_id=line.get("requestId", ""),
        before=line.get("before", UNSET),
        after=line.get("after", UNSET),
    )
