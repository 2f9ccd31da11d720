"""The hot routes, all of them from one table: native, OpenAI's, Anthropic's, and `--server` for a single server.

A view reads and understands; the waiting, choosing and streaming is the exchange's, run by the connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from quart import Blueprint

from fleet.endpoints import ENDPOINTS, PINNABLE, Endpoint
from fleet.errors import ServerNotFound
from fleet.ids import ServerId
from web.connection import Relay
from web.errors import CloudDisabled
from web.fanout import unload
from web.reading import hot_call

if TYPE_CHECKING:
    from actors.system import System


def blueprint(system: System) -> Blueprint:
    """Routes of every hot endpoint."""
    routes = Blueprint("inference", __name__)
    for path, endpoint in ENDPOINTS.items():
        routes.add_url_rule(path, path, _balanced(system, endpoint), methods=["POST"])
    for path in PINNABLE:
        routes.add_url_rule(f"{path}--<server>", f"{path}--", _direct(system, ENDPOINTS[path]), methods=["POST"])
    return routes


def _balanced(system: System, endpoint: Endpoint) -> Callable[[], Awaitable[Relay]]:
    async def view() -> Relay:
        seen, call = await hot_call(endpoint, system.config.limits.decoded_bytes)
        if seen.cloud and not system.known(seen.model):
            raise CloudDisabled
        if seen.is_unload and (holders := system.reachable_holders(seen.model)):
            return Relay(partial(unload, system, holders, call))
        return Relay(partial(system.exchange, call))

    return view


def _direct(system: System, endpoint: Endpoint) -> Callable[[str], Awaitable[Relay]]:
    async def view(server: str) -> Relay:
        if ServerId(server) not in system.servers:
            raise ServerNotFound(f"no server is called {server[:100]}")
        _, call = await hot_call(endpoint, system.config.limits.decoded_bytes, ServerId(server))
        return Relay(partial(system.exchange, call))

    return view
