"""Servers: list, add, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from quart import Blueprint, Response

from fleet.config import ConfigError, ServerSpec, normalise_url, parse_server
from fleet.errors import BadRequest, Conflict, ServerNotFound
from fleet.ids import ServerId
from fleet.server import Admin
from web import replies
from web.admin.common import admin_blueprint, flag, is_healthy, json_object, milliseconds, status_of
from web.audit import ADMIN, Note, audited

if TYPE_CHECKING:
    from actors.cells import ServerCell
    from actors.system import System

FIRST_PROBE: Final = 3.0
"""Seconds an `add` waits for the first verdict on the new server, so that its answer can tell."""
_REDACTED: Final = "***REDACTED***"


class Taken(Conflict):
    """The id or the URL belongs to another server; `fields` are added to the error body."""

    def __init__(self, message: str, fields: dict[str, str]) -> None:
        super().__init__(message)
        self.fields = fields


def blueprint(system: System) -> Blueprint:
    """Routes under `servers`."""
    routes = admin_blueprint("servers")

    @routes.get("/servers")
    async def all_servers() -> Response:
        shown = [describe(cell) for cell in system.servers.values()]
        return replies.json({"success": True, "count": len(shown), "servers": shown})

    @routes.post("/servers/add")
    @audited(ADMIN, "add server")
    async def add(note: Note) -> Response:
        given = await json_object()
        spec = _spec(given)
        note.about(server=spec.id)
        _check_free(system, spec, str(given["url"]))
        cell = system.add_server(spec)
        await system.probe(spec.id, FIRST_PROBE)
        shown = describe(cell)
        flat = {"id": spec.id, "url": spec.url, "maxConcurrency": spec.max_concurrency}
        return replies.json({"success": True, "server": shown, **flat})

    @routes.delete("/servers/<path:server>")
    @audited(ADMIN, "remove server")
    async def remove(note: Note, server: str) -> Response:
        note.about(server=server)
        if ServerId(server) not in system.servers:
            raise ServerNotFound(f"server '{server[:100]}' not found")
        drain = flag("drain", True) and not flag("force", False)
        await system.remove_server(ServerId(server), drain=drain)  # goes on if the client leaves
        return replies.json({"success": True, "id": server})

    return routes


def describe(cell: ServerCell) -> dict[str, object]:
    """One server as the API shows it. Times in milliseconds; never the key."""
    state, spec = cell.state, cell.state.spec
    names = [str(row.get("name") or name) for name, row in state.models.items()]
    shown: dict[str, object] = {
        "id": spec.id,
        "url": spec.url,
        "type": "ollama",
        "maxConcurrency": spec.max_concurrency,
        "priority": spec.priority,
        "tags": list(spec.tags),
        "status": status_of(state),
        "healthy": is_healthy(cell),
        "reason": state.why,
        "draining": state.admin in (Admin.DRAINING, Admin.DRAINED),
        "maintenance": state.admin is Admin.MAINTENANCE,
        "inFlight": state.in_use,
        "models": names,
        "loadedModels": [str(row.get("name") or name) for name, row in state.resident.items()],
        "version": state.version,
        "lastResponseTime": milliseconds(state.last_response),
        "supportsOllama": is_healthy(cell),
        "supportsV1": is_healthy(cell),
        "v1Models": names,
        "hardware": None,
    }
    if spec.api_key is not None:
        shown["apiKey"] = _REDACTED
    return shown


def _spec(given: dict[str, object]) -> ServerSpec:
    """A server from the body of `add`. Raises BadRequest with every problem, unknown keys included."""
    try:
        return parse_server(given)
    except ConfigError as error:
        problems = [str(problem) for problem in error.problems]
    if given.get("id") and given.get("url"):
        raise BadRequest("; ".join(problems), details="\n".join(problems))
    raise BadRequest("id and url are required", details="\n".join(problems))


def _check_free(system: System, spec: ServerSpec, requested: str) -> None:
    if spec.id in system.servers:
        raise Taken(f"server '{spec.id}' already exists", {})
    url = normalise_url(spec.url)
    for cell in system.servers.values():
        if normalise_url(cell.state.spec.url) == url:
            where = {"existingServerId": cell.state.id, "existingUrl": cell.state.spec.url}
            asked = {"requestedUrl": requested, "normalizedUrl": url}
            raise Taken("a server with an equivalent URL already exists", where | asked)
