"""Who changed what, when, from where."""

from __future__ import annotations

from typing import Any, Final

from actors.storage.journal import RECENT, Document
from fleet.common.times import iso, milliseconds
from fleet.security.roles import Role
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.kit.schemas import EPOCH_MS, ISO, Each, Maybe, OneOf, Optional, Said

LINE: Final = {
    "id": Said(int, "grows with every line"),
    "at": ISO,
    "timestamp": EPOCH_MS,
    "who": Said(str, "name of a key, api_keys[n], or anonymous"),
    "role": OneOf(Role.words()),
    "from": Said(str, "address of the client"),
    "action": str,
    "targets": Each(str),
    "outcome": OneOf(("done", "failed", "cut", "cancelled")),
    "status": Said(int, "of the answer; 0 if the client left before it"),
    "reason": Said(str, "the precise reason of a failure, else empty"),
    "requestId": str,
    "before": Optional(object),
    "after": Optional(object),
}
_MISSING: Final[Document] = {
    "who": "",
    "role": Role.ADMIN.word,
    "from": "",
    "action": "",
    "targets": {},
    "outcome": "done",
    "status": 0,
    "reason": "",
    "requestId": "",
}
"""What stands for a field that a line does not have: one of another version, or of the fleet's own doing."""
_CHANGE: Final = ("before", "after")

topic = RouteGroup("audit", "Who changed what.")


@topic.get(
    "/audit",
    "The audit log: every change, the newest first.",
    role=Role.ADMIN,
    query=(
        Param("limit", int, 100, "Most lines of the answer.", 1, RECENT),
        Param("before", int, None, "Only lines with an id below this: the next page.", 1, 2**53),
    ),
    returns={"success": bool, "count": int, "entries": [LINE], "next": Maybe(int)},
)
async def audit(asked: AdminRequest) -> dict[str, Any]:
    limit = asked.query["limit"]
    lines = await asked.system.journal.history(limit, asked.query["before"])
    entries = [_shown(line) for line in lines]
    following = entries[-1]["id"] if len(entries) == limit else None
    return {"success": True, "count": len(entries), "entries": entries, "next": following}


def _shown(line: Document) -> dict[str, Any]:
    """One line with its moment in both spellings."""
    at = line.get("at", 0)
    shown = {"id": line.get("id", 0), "at": iso(at), "timestamp": milliseconds(at)}
    shown |= {name: line.get(name, instead) for name, instead in _MISSING.items()}
    return shown | {name: line[name] for name in _CHANGE if name in line}
