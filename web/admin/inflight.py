"""Requests that run right now. Never a prompt, never an answer."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from quart import Blueprint, Response

from web import replies
from web.admin.common import admin_blueprint, epoch_ms, is_healthy

if TYPE_CHECKING:
    from actors.cells import ServerCell
    from actors.lease import Lease
    from actors.system import System


def blueprint(system: System) -> Blueprint:
    """The one route."""
    routes = admin_blueprint("inflight")

    @routes.get("/in-flight")
    async def in_flight() -> Response:
        shown = [_server(cell) for cell in system.servers.values() if cell.leases]
        return replies.json({"success": True, "total": system.in_flight, "inFlight": shown})

    return routes


def by_model(cell: ServerCell) -> dict[str, dict[str, int]]:
    """Open requests per model; nothing bypasses the limits here, so `bypass` is always 0."""
    counts = Counter(str(lease.pair.model) for lease in cell.leases.values())
    return {model: {"regular": count, "bypass": 0} for model, count in counts.items()}


def _server(cell: ServerCell) -> dict[str, object]:
    leases = list(cell.leases.values())
    return {
        "serverId": cell.state.id,
        "serverUrl": cell.state.spec.url,
        "healthy": is_healthy(cell),
        "total": len(leases),
        "byModel": by_model(cell),
        "requests": [_request(lease) for lease in leases],
        "streamingRequests": [_request(lease) for lease in leases if lease.call.stream],
    }


def _request(lease: Lease) -> dict[str, object]:
    """Times in epoch milliseconds."""
    call = lease.call
    return {
        "id": call.request_id,
        "serverId": lease.pair.server,
        "model": call.asked_model or lease.pair.model,
        "startTime": epoch_ms(lease.started),
        "firstByteTime": epoch_ms(lease.first_byte),
        "lastChunkTime": epoch_ms(lease.beat) if lease.chunks else None,
        "chunkCount": lease.chunks,
        "hasReceivedFirstChunk": lease.first_byte is not None,
        "streaming": call.stream,
        "protocol": call.dialect.name,
        "endpoint": call.endpoint,
        "handoffCount": 0,
    }
