"""Which role each route needs: one table, made from the routes of the admin API and from Ollama's, and its one guard.

What is in no table is refused: whoever adds a route says who may use it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from quart import Quart, request, websocket

from fleet.common.errors import Forbidden
from fleet.protocol.endpoints import ENDPOINTS, PINNABLE
from fleet.security.roles import Identity, Role
from web.admin.route_table import entries_of
from web.asgi import quart_request
from web.http.ports import Face
from web.security import api_key_auth
from web.security.request_gate import Guarded

log = logging.getLogger(__name__)

WEBSOCKET: Final = "WEBSOCKET"
"""Stands for the method of a websocket's rule."""
_KEY: Final = "fleet.roles"

_READS: Final = (
    "/",
    "/api/version",
    "/api/status",
    "/api/tags",
    "/api/ps",
    "/v1/models",
    "/v1/models/<model>",
    "/api/experimental/model-recommendations",
)
_REFUSED: Final = (
    ("POST", "/api/me"),
    ("POST", "/api/signout"),
    ("DELETE", "/api/user/keys/<key>"),
    ("POST", "/api/experimental/web_search"),
    ("POST", "/api/experimental/web_fetch"),
)
"""Not offered to anybody, and everybody is told so."""
_CHANGES: Final = (
    ("POST", "/api/pull"),
    ("POST", "/api/push"),
    ("POST", "/api/create"),
    ("POST", "/api/copy"),
    ("DELETE", "/api/delete"),
    ("HEAD", "/api/blobs/<digest>"),
    ("POST", "/api/blobs/<digest>"),
)


class RoleTooLow(Forbidden):
    """The caller is known, and may not do this."""

    reason = "ROLE_TOO_LOW"

    def __init__(self, needed: Role, by: Identity) -> None:
        super().__init__(
            f"this needs the role {needed.word}, and yours is {by.role.word}",
            details="security.keys and security.anonymous_role say who has which role",
        )


class Unlisted(Forbidden):
    """A route that is in no table."""

    reason = "ROUTE_NOT_LISTED"


@cache
def table(face: Face = Face.PROXY) -> Mapping[tuple[str, str], Role]:
    """The role that each route of a face needs, by method and rule."""
    found = {("POST", path): Role.CLIENT for path in ENDPOINTS}
    found |= {("POST", f"{path}--<server>"): Role.CLIENT for path in PINNABLE}
    found |= {("GET", path): Role.CLIENT for path in _READS}
    found |= dict.fromkeys(_REFUSED, Role.CLIENT)
    found |= dict.fromkeys(_CHANGES, Role.OPERATOR)
    found |= {(entry.method, entry.path): entry.role for entry in entries_of(face)}
    return MappingProxyType(found)


def needed(method: str, rule: str, known: Mapping[tuple[str, str], Role] | None = None) -> Role | None:
    """The role for a rule of the app's; None: it is in no table. HEAD is a GET without its body."""
    known = table() if known is None else known
    role = known.get((method, rule))
    return known.get(("GET", rule)) if role is None and method == "HEAD" else role


def grant(app: Quart, method: str, rule: str, role: Role) -> None:
    """Say what role a route of this app needs that belongs to no topic, such as a websocket."""
    app.config[_KEY][method, rule] = role


def enforce(app: Quart, system: Guarded, face: Face = Face.PROXY) -> None:
    """Check the role of every request to the app, before any view sees it."""
    known = app.config[_KEY] = dict(table(face))

    async def http() -> None:
        if request.url_rule is not None:  # else it will be a 404 or a 405
            _check(known, request.method, request.url_rule.rule, quart_request.scope(), system)

    async def socket() -> None:
        if websocket.url_rule is not None:
            _check(known, WEBSOCKET, websocket.url_rule.rule, websocket.scope, system)

    app.before_request(http)
    app.before_websocket(socket)


def _check(known: Mapping[tuple[str, str], Role], method: str, rule: str, scope: Any, system: Guarded) -> None:
    role = needed(method, rule, known)
    if role is None:
        log.error("%s %s has no role, so nobody may use it: see web/admin/role_enforcement.py", method, rule)
        raise Unlisted("nobody may use this route")
    by = api_key_auth.visitor(scope, system)
    if by.role < role:
        about = {"reason": RoleTooLow.reason, "status": 403, "by": by.name, "role": by.role.word, "rule": rule}
        log.info("request refused", extra=about)
        raise RoleTooLow(role, by)
