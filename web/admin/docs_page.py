"""The API described: OpenAPI, and a page for people."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from html import escape
from typing import Any, Final

from msgspec import Struct
from quart import Response

from fleet.security.roles import Role
from web.admin import openapi
from web.admin.kit.routes import AdminRequest, Route, RouteGroup
from web.http import responses
from web.http.version import own_version

topic = RouteGroup("docs", "The API described.", root="")

_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}"
    "code{font-family:ui-monospace,monospace}table{border-collapse:collapse;width:100%}"
    "td,th{border-bottom:1px solid #ccc;padding:.3rem .6rem;text-align:left;vertical-align:top}"
)
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


class OpenApiAnswer(Struct):
    """An OpenAPI document; the rest is what OpenAPI says."""

    openapi: str


@topic.get("/openapi.json", "This API as an OpenAPI 3.1 document.", role=Role.CLIENT, returns=OpenApiAnswer)
async def as_openapi(asked: AdminRequest) -> dict[str, Any]:
    return _document(asked.context.topics)


@topic.get("/docs", "This API as a page.", role=Role.CLIENT, media="text/html")
async def as_page(asked: AdminRequest) -> Response:
    response = responses.page(_page(asked.context.topics), 200, "text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = _POLICY
    return response


@cache
def _document(topics: tuple[RouteGroup, ...]) -> dict[str, Any]:
    """Made once in a process: it takes longer than an event loop may be held up again and again."""
    return openapi.document(topics, own_version())


def _page(topics: Sequence[RouteGroup]) -> str:
    title = "Fleet for Ollama: admin API"
    body = "".join(_section(each) for each in topics if each.entries)
    note = "Machine-readable: <a href='openapi.json'>openapi.json</a>."
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
        f"<h1>{title}</h1><p>{note}</p>{body}</html>"
    )


def _section(each: RouteGroup) -> str:
    head = "<tr><th>Method and path<th>Role<th>What it does"
    return f"<h2>{escape(each.about)}</h2><table>{head}{''.join(map(_row, each.entries))}</table>"


def _row(entry: Route) -> str:
    where = f"{entry.method} {openapi.readable(entry.path)}"
    role = "open" if entry.open else entry.role.word
    return f"<tr><td><code>{escape(where)}</code><td>{role}<td>{escape(entry.does)}"
