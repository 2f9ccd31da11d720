"""The dashboard port: the status page, and its status in the shape of the monitoring stack's reference."""

from __future__ import annotations

from typing import Any, Final

from quart import Response, request

from fleet.roles import Role
from web import replies
from web.admin.common import iso, now_iso
from web.admin.reading import Param
from web.admin.shapes import ISO, OneOf, Said
from web.admin.topic import Asked, Topic
from web.statuspage import View, page
from web.statusstyle import stylesheet
from web.version import own_version

topic = Topic("dashboard", "The dashboard port: the status page, and who watches.", root="")

_POLICY: Final = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_FIELDS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_REFRESH: Final = Param("refresh", int, 10, "Seconds until the page is loaded anew; 0 = never.", least=0, most=3600)


@topic.get(
    "/api/status",
    "Whether the dashboard's feed is there, and how many watch it.",
    role=Role.CLIENT,
    returns={
        "status": OneOf(("online",)),
        "version": str,
        "uptime_seconds": int,
        "connected_clients": int,
        "last_update": Said(ISO, "of what was last sent; while nobody watches, now"),
        "ai_status_enabled": Said(bool, "whether a model writes the text on the fleet's state"),
        "monitoring_active": Said(bool, "whether the fleet has been looked at"),
    },
)
async def status(asked: Asked) -> dict[str, Any]:
    system = asked.system
    clients, text = sum(system.feed.clients.values()), system.config.ai_status
    return {
        "status": "online",
        "version": own_version(),
        "uptime_seconds": int(system.uptime),
        "connected_clients": clients,
        "last_update": (iso(system.feed.updated) if clients else None) or now_iso(),
        "ai_status_enabled": bool(text.enabled and text.model),
        "monitoring_active": system.monitor.verdict.code != "starting",
    }


@topic.get(
    "/",
    "The status page for browsers; for everybody else, what Ollama says here.",
    role=Role.CLIENT,
    open=True,
    media="text/html",
    query=(_REFRESH,),
)
async def root(asked: Asked) -> Response:
    answer = await _page(asked) if _wants_html() else replies.text("Ollama is running")
    answer.headers["Vary"] = "Accept"
    return answer


def _wants_html() -> bool:
    """Whether HTML is asked for by name (as browsers do, and hardly anything else), and not less than plain text."""
    asked = dict(reversed(list(request.accept_mimetypes)))
    return asked.get("text/html", 0) > 0 and asked["text/html"] >= asked.get("text/plain", 0)


@topic.get("/status", "The status page.", role=Role.CLIENT, open=True, media="text/html", query=(_REFRESH,))
async def status_page(asked: Asked) -> Response:
    return await _page(asked)


@topic.get("/status.css", "How the status page looks.", role=Role.CLIENT, open=True, media="text/css")
async def style(asked: Asked) -> Response:
    return _guarded(replies.raw(stylesheet().encode(), "text/css; charset=utf-8"), "no-cache")


async def _page(asked: Asked) -> Response:
    """Names only for those who may see them elsewhere too."""
    html = page(await _view(asked, named=asked.by.role >= Role.OPERATOR))
    return _guarded(replies.raw(html.encode(errors="replace"), "text/html; charset=utf-8"), "no-store")


async def _view(asked: Asked, *, named: bool) -> View:
    system = asked.system
    known: dict[str, Any] = {}
    if named:
        known = {
            "state": await system.feed.look(),
            "alerts": system.monitor.alerts.firing,
            "text": system.scribe.latest,
            "urls": system.roster.own_urls,
        }
    return View(
        verdict=system.monitor.verdict,
        now=system.fleet.wall(),
        version=own_version(),
        refresh=asked.query["refresh"],
        draining=system.draining,
        **known,
    )


def _guarded(answer: Response, kept: str) -> Response:
    answer.headers.update(_FIELDS)
    answer.headers["Cache-Control"] = kept
    return answer
