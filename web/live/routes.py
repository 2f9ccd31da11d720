"""Where live clients come in: /socket.io/ and /ws, on the dashboard port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import trio
from quart import Quart
from quart_trio import QuartTrio

from fleet.security.roles import Role
from web.admin.kit.context import AppContext
from web.admin.role_enforcement import WEBSOCKET, grant
from web.live import plain_websocket, sessions
from web.live.engine_http import serve_request
from web.live.engine_websocket import serve_websocket
from web.live.plain_websocket import add_plain
from web.live.sessions import Sessions
from web.security.api_key_auth import SOCKET_IO

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
"""All that the protocol has an answer to; to most, that it is wrong."""


def open_doors(app: QuartTrio, context: AppContext) -> None:
    """Add the routes of the live clients to an application, with the roles that they need."""
    _socketio(app, context)
    add_plain(app, context)


def keepers(app: Quart) -> list[Callable[[trio.Event], Awaitable[None]]]:
    """What has to run beside an application with such routes, until the event that ends it: all clients are let go."""
    return [app.config[key].run for key in (sessions.KEY, plain_websocket.KEY) if key in app.config]


def _socketio(app: QuartTrio, context: AppContext) -> None:
    """Socket.IO, with and without the slash at the end. A client may connect before it says who it is."""
    live = app.config[sessions.KEY] = Sessions(context.system)
    for path in SOCKET_IO:
        app.add_url_rule(path, f"live {path}", partial(serve_request, live), methods=list(_METHODS))
        app.add_websocket(path, f"live websocket {path}", partial(serve_websocket, live))
        for method in (*_METHODS, WEBSOCKET):
            grant(app, method, path, Role.CLIENT)
