"""The hot routes, all of them from one table: native, OpenAI's, Anthropic's, and `--server` for a single server.

A view reads and understands; the waiting, choosing and streaming is the exchange's, run by the connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from quart import Blueprint

from actors.system import System
from fleet.common.ids import RequestId, ServerId
from fleet.protocol.endpoints import ENDPOINTS, PINNABLE, Endpoint
from web.asgi.quart_connection import Relay
from web.asgi.quart_request import by, client, scope, whole_body
from web.http import errors
from web.monitoring.http_counts import EXCHANGED
from web.ollama_api.inference_call import hints_of, work_of
from web.security import api_key_auth


def blueprint(system: System) -> Blueprint:
    """Routes of every hot endpoint."""
    routes = Blueprint("inference", __name__)
    for path, endpoint in ENDPOINTS.items():
        routes.add_url_rule(path, path, _view(system, endpoint), methods=["POST"])
    for path in PINNABLE:
        routes.add_url_rule(f"{path}--<server>", f"{path}--", _view(system, ENDPOINTS[path]), methods=["POST"])
    return routes


def _view(system: System, endpoint: Endpoint) -> Callable[..., Awaitable[Relay]]:
    async def view(server: str | None = None) -> Relay:
        here = scope()
        pinned = None if server is None else ServerId(server)
        hints = hints_of(
            endpoint,
            here["query_string"],
            here["headers"],
            pinned,
            api_key_auth.is_secret(here["headers"], system),
        )
        request_id = RequestId(errors.asker_of(here).request_id)
        work = await work_of(system, hints, await whole_body(), request_id, client(), by())
        here[EXCHANGED] = True
        return Relay(work)

    return view
