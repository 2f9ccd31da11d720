"""Logging in on the dashboard port: a key for a pass, which the browser keeps as a cookie.

Its routes are more of that port's topic.
"""

from __future__ import annotations

import logging
from typing import Final
from urllib.parse import parse_qs

from quart import Response, request

from fleet.common.errors import BadRequest, TooLarge
from fleet.protocol.headers import field
from fleet.security.api_keys import LONGEST_KEY
from fleet.security.rate_limit import per_minute
from fleet.security.roles import Role
from web.admin.kit.routes import AdminRequest
from web.admin.observability.dashboard_routes import topic as topic
from web.asgi.quart_request import client, scope, whole_body
from web.http import responses
from web.monitoring import login_page
from web.security import api_key_auth
from web.security.cross_origin import OWN_KEY
from web.security.rate_limits import address_of
from web.security.session_cookies import LOGINS_PER_MINUTE, cookie

log = logging.getLogger("fleet.login")

_LONGEST_BODY: Final = 4 * LONGEST_KEY
"""Bytes of a form: every byte of a key may be written as three."""
_FOREIGN: Final = (
    "Only the fleet's own page may ask for this. Behind a reverse proxy: it has to pass the Host field on."
)
_NOBODY: Final = "This key opens nothing. It may be revoked, or mistyped."
_TOO_OFTEN: Final = "Too many attempts from your address. Wait a minute."


@topic.get("/login", "The form in which a browser shows its key.", role=Role.CLIENT, open=True, media="text/html")
async def ask(asked: AdminRequest) -> Response:
    return _page()


@topic.post(
    "/login",
    "Exchange a key (`key`, as HTML forms send it) for a cookie that admits a browser on this port.",
    role=Role.CLIENT,
    open=True,
    media="text/html",
    fails=(303, 403, 413, 429),
)
async def log_in(asked: AdminRequest) -> Response:
    if not scope().get(OWN_KEY):
        return _page(_FOREIGN, 403)
    passes, who = asked.context.passes, client()
    now, wall = asked.system.clock.nanoseconds()
    verdict = passes.attempts.ask(address_of(who), per_minute(LOGINS_PER_MINUTE), now, wall)
    if not verdict.allowed:
        answer = _page(_TOO_OFTEN, 429)
        answer.headers["Retry-After"] = str(int(verdict.retry_after) + 1)
        return answer
    issued = passes.issue(await _key(), api_key_auth.ring_of(asked.system))
    if issued is None:
        log.info("login refused", extra={"client": who})
        return _page(_NOBODY, 403)
    token, by = issued
    log.info("logged in", extra={"client": who, "by": by.name, "role": by.role.word})
    return _back(cookie(token, secure=_secure(asked)))


@topic.post(
    "/logout", "Let the cookie be good no more.", role=Role.CLIENT, open=True, media="text/html", fails=(303, 403)
)
async def log_out(asked: AdminRequest) -> Response:
    if not scope().get(OWN_KEY):
        return _page(_FOREIGN, 403)
    if (held := api_key_auth.pass_of(scope())) is not None:
        asked.context.passes.end(held.token)
        log.info("logged out", extra={"client": client(), "by": asked.by.name})
    return _back(cookie("", secure=_secure(asked)))


async def _key() -> str:
    """What stands in the form's field. Raises BadRequest, TooLarge: strangers send this, so its length comes first."""
    if request.content_length is None or request.content_length > _LONGEST_BODY:
        raise TooLarge(f"a form with a key has a Content-Length of at most {_LONGEST_BODY}")
    try:
        fields = parse_qs((await whole_body()).decode("ascii"), max_num_fields=8, keep_blank_values=True)
    except ValueError:
        raise BadRequest("the body must be a form with the field `key`") from None
    return fields.get("key", [""])[0].strip()


def _secure(asked: AdminRequest) -> bool:
    """Whether the browser speaks TLS, with us or with a reverse proxy: it says so in Origin."""
    return asked.system.config.server.tls.enabled or (field(scope()["headers"], b"origin") or b"").startswith(b"https:")


def _back(field_value: str) -> Response:
    """To the status page, wherever a reverse proxy has put it, and nowhere else."""
    answer = responses.guarded(responses.raw(b"", "text/html; charset=utf-8", 303), "no-store")
    answer.headers["Location"] = "./"
    answer.headers["Set-Cookie"] = field_value
    return answer


def _page(fault: str = "", status: int = 200) -> Response:
    return responses.guarded(
        responses.raw(login_page.page(fault).encode(), "text/html; charset=utf-8", status), "no-store"
    )
