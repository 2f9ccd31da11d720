"""The dashboard port: the status page, and its status in the shape of the monitoring stack's reference."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Struct
from quart import Response, request

from fleet.common.times import iso
from fleet.security.roles import Role
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.asgi.quart_request import scope
from web.http import responses
from web.http.version import own_version
from web.monitoring import wall_display
from web.monitoring.status_page import Doors, View, page
from web.monitoring.status_style import stylesheet
from web.security import api_key_auth

topic = RouteGroup("dashboard", "The dashboard port: the status page, and who watches.", root="")

_FRAMED: Final = Param("framed", bool, False, "For `/wall`: bare, and it may be framed by pages of ours.")
_REFRESH: Final = Param("refresh", int, 10, "Seconds until the page is loaded anew; 0 = never.", least=0, most=3600)


class DashboardStatusAnswer(Struct, kw_only=True, gc=False):
    """In the words of the monitoring stack's reference."""

    status: Literal["online"] = "online"
    version: str
    uptime_seconds: int
    connected_clients: int
    last_update: Annotated[str, "of what was last sent; while nobody watches, now"]
    ai_status_enabled: Annotated[bool, "whether a model writes the text on the fleet's state"]
    monitoring_active: Annotated[bool, "whether the fleet has been looked at"]


@topic.get(
    "/api/status",
    "Whether the dashboard's feed is there, and how many watch it.",
    role=Role.CLIENT,
)
async def status(asked: AdminRequest) -> DashboardStatusAnswer:
    system = asked.system
    clients, text = sum(system.feed.clients.values()), system.config.ai_status
    return DashboardStatusAnswer(
        version=own_version(),
        uptime_seconds=int(system.uptime),
        connected_clients=clients,
        last_update=iso((system.feed.updated if clients else None) or system.clock.wall()),
        ai_status_enabled=bool(text.enabled and text.model),
        monitoring_active=system.monitor.verdict.code != "starting",
    )


@topic.get(
    "/",
    "The status page for browsers; for everybody else, what Ollama says here.",
    role=Role.CLIENT,
    open=True,
    media="text/html",
    query=(_REFRESH,),
)
async def root(asked: AdminRequest) -> Response:
    answer = await _page(asked) if _wants_html() else responses.text("Ollama is running")
    answer.headers["Vary"] = "Accept"
    return answer


def _wants_html() -> bool:
    """Whether HTML is asked for by name (as browsers do, and hardly anything else), and not less than plain text."""
    asked = dict(reversed(list(request.accept_mimetypes)))
    return asked.get("text/html", 0) > 0 and asked["text/html"] >= asked.get("text/plain", 0)


@topic.get("/status", "The status page.", role=Role.CLIENT, open=True, media="text/html", query=(_REFRESH, _FRAMED))
async def status_page(asked: AdminRequest) -> Response:
    return await _page(asked)


@topic.get(
    "/wall", "The status page for a display that nobody looks after.", role=Role.CLIENT, open=True, media="text/html"
)
async def wall(asked: AdminRequest) -> Response:
    answer = responses.guarded(responses.raw(wall_display.page().encode(), "text/html; charset=utf-8"), "no-cache")
    answer.headers["Content-Security-Policy"] += "; frame-src 'self'"
    return answer


@topic.get("/status.css", "How the status page looks.", role=Role.CLIENT, open=True, media="text/css")
async def style(asked: AdminRequest) -> Response:
    return responses.guarded(responses.raw(stylesheet().encode(), "text/css; charset=utf-8"), "no-cache")


async def _page(asked: AdminRequest) -> Response:
    """Names only for those who may see them elsewhere too."""
    named = asked.by.role >= Role.OPERATOR
    by_pass = api_key_auth.pass_of(scope()) is not None
    doors = Doors(asked.system.config.security.has_keys and not named, asked.by if by_pass else None)
    html = page(await _view(asked, doors, named=named))
    answer = responses.guarded(responses.raw(html.encode(errors="replace"), "text/html; charset=utf-8"), "no-store")
    if asked.query.get("framed"):
        strict = answer.headers["Content-Security-Policy"]
        answer.headers["Content-Security-Policy"] = strict.replace("frame-ancestors 'none'", "frame-ancestors 'self'")
    return answer


async def _view(asked: AdminRequest, doors: Doors, *, named: bool) -> View:
    system = asked.system
    known: dict[str, Any] = {}
    if named:
        known = {
            "state": await system.feed.snapshot(),
            "alerts": system.monitor.alerts.firing,
            "text": system.status_writer.latest,
            "urls": system.membership.own_urls,
        }
    return View(
        verdict=system.monitor.verdict,
        now=system.clock.wall(),
        version=own_version(),
        refresh=0 if doors.form and "refresh" not in request.args else asked.query["refresh"],
        doors=doors,
        framed=bool(asked.query.get("framed")),
        draining=system.draining,
        **known,
    )
