"""The application: every route of the fleet, complete by itself, on whatever listens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import quart.wrappers.base
from quart import Response, has_request_context, request, websocket
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from actors.system import System
from fleet.common.errors import FleetError
from fleet.protocol.clean_path import moved
from fleet.protocol.endpoints import known_methods, redirect
from web.admin import role_enforcement
from web.admin.kit.context import AppContext
from web.admin.route_table import FACES, TOPICS
from web.asgi import quart_request
from web.asgi.middleware import Guard
from web.asgi.quart_connection import TERMS_KEY, FleetConnection
from web.asgi.request_body import FleetRequest
from web.http import errors, responses
from web.http.body_limits import BodyTerms, Budget
from web.http.ports import Face
from web.live.routes import open_doors
from web.monitoring.http_counts import Counting
from web.ollama_api import inference_routes, management_routes, version_and_list_routes

_ADMIN: Final = "/api/orchestrator"
# What Quart 0.23 raises in a websocket's view when the client has gone; before, it cancelled the view.
_LEFT: Final = getattr(quart.wrappers.base, "ClientDisconnectedError", None)


class FleetApp(QuartTrio):
    """Quart-Trio with our connection and our request body."""

    asgi_http_class = FleetConnection
    request_class = FleetRequest


def create_apps(system: System, context: AppContext | None = None) -> Mapping[Face, QuartTrio]:
    """The application of every face; the proxy's, which the orchestrator's port serves too, comes first."""
    home = context or AppContext.of(system, TOPICS)
    whole = create_app(system, home)
    made = {face: create_app(system, home, face) for face in (Face.DASHBOARD, Face.METRICS)}
    return {Face.PROXY: whole, Face.ORCHESTRATOR: whole, **made}


def create_app(system: System, context: AppContext | None = None, face: Face = Face.PROXY) -> QuartTrio:
    """The application of one face of one system, guard included: an ASGI callable for `web.asgi.hypercorn_server`."""
    home = context or AppContext.of(system, TOPICS)
    app = FleetApp("fleet", static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = system.config.limits.body_bytes
    app.config["BODY_TIMEOUT"] = None  # the body has terms of its own
    budget = Budget(system.config.limits.buffered_bytes)
    app.config[TERMS_KEY] = BodyTerms(system.config.timeouts.body_idle, system.config.total_timeout, budget)
    app.config[quart_request.SYSTEM_KEY] = system
    app.config["RESPONSE_TIMEOUT"] = None  # Quart's own would silently cut a stream after a minute
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False  # preflights are the guard's
    app.url_map.merge_slashes = False
    if face.infers:
        app.register_blueprint(inference_routes.blueprint(system))
        app.register_blueprint(version_and_list_routes.blueprint(system, face))
        app.register_blueprint(management_routes.blueprint(system))
    for topic in FACES[face]:
        app.register_blueprint(topic.blueprint(home))
    if face.infers:
        app.before_request(_to_the_tidy_path)
    app.before_request(_as_strict_as_ollama)
    role_enforcement.enforce(app, system, face)
    if face is Face.DASHBOARD:
        open_doors(app, home)
    app.register_error_handler(FleetError, _on_fleet_error)
    app.register_error_handler(HTTPException, _on_http)
    app.register_error_handler(Exception, _on_crash)
    if _LEFT is not None:
        app.register_error_handler(_LEFT, _on_left)
    app.asgi_app = Guard(  # type: ignore[method-assign]
        app.asgi_app, system, home.gate, home.passes if face is Face.DASHBOARD else None
    )
    if face.infers:
        app.asgi_app = Counting(app.asgi_app, system.statistics.metrics, system.clock.now)  # type: ignore[method-assign]
    return app


async def _to_the_tidy_path() -> Response | None:
    """Go's multiplexer, which stands before Ollama's router, sends who asks for `//api/tags` to `/api/tags`.

    Not within the admin API, whose models may be called almost anything.
    """
    path = _scope()["raw_path"].partition(b"?")[0].decode("ascii")
    found = moved(request.method, path)
    if found is None or (path.startswith(_ADMIN) and found[1].startswith(_ADMIN)):
        return None
    return _redirected(*found)


async def _as_strict_as_ollama() -> None:
    """Quart adds HEAD to every GET route and drops doubled slashes in front; Ollama does neither."""
    methods = known_methods(_path())
    if _path().startswith("//"):
        raise NotFound
    if request.method == "HEAD" and methods is not None and "HEAD" not in methods:
        raise MethodNotAllowed(methods)


async def _on_fleet_error(error: Exception) -> Response:
    assert isinstance(error, FleetError)
    return _rendered(error)


async def _on_crash(error: Exception) -> Response:
    return _rendered(errors.unexpected(error, errors.asker_of(_scope())))


async def _on_left(error: Exception) -> Response:
    """A websocket's client has gone while a view read from it: nobody is to blame, and nobody will see this."""
    return responses.nothing(499)


async def _on_http(error: Exception) -> Response:
    """Quart's own errors: pages in Ollama's words for its paths, JSON on the admin side."""
    assert isinstance(error, HTTPException)
    known = errors.expected(error)
    if known is None:
        return _rendered(errors.unexpected(error, errors.asker_of(_scope())))
    if error.code not in (404, 405):
        return _rendered(known)
    response = _rendered(known) if errors.asker_of(_scope()).ours else _page(error.code)
    if isinstance(error, MethodNotAllowed):
        response.headers["Allow"] = ", ".join(known_methods(_path()) or sorted(error.valid_methods or ()))
    return response


def _page(code: int) -> Response:
    if code == 405:
        return responses.page("405 method not allowed", 405)
    found = redirect(_scope().get("method", "GET"), _path())
    return responses.page("404 page not found", 404) if found is None else _redirected(*found)


def _redirected(status: int, where: str) -> Response:
    query = _scope()["query_string"].decode("ascii")
    response = responses.page("", status, "text/html; charset=utf-8")
    response.headers["Location"] = f"{where}?{query}" if query else where
    return response


def _rendered(error: FleetError) -> Response:
    status, headers, body = errors.render(error, errors.asker_of(_scope()))
    response = Response(body, status)
    for name, value in headers:
        response.headers[name.decode().title()] = value.decode("latin-1")
    return response


def _path() -> str:
    return str(_scope()["path"])


def _scope() -> Any:
    """The ASGI scope of the request, or of the websocket that asked for a page there is not."""
    return (request if has_request_context() else websocket).scope
