"""The waiting lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quart import Blueprint, Response

from web import replies
from web.admin.common import admin_blueprint, iso, milliseconds
from web.admin.inflight import by_model
from web.audit import ADMIN, Note, audited

if TYPE_CHECKING:
    from actors.system import System
    from actors.views import QueueView


def blueprint(system: System) -> Blueprint:
    """Routes under `queue`."""
    routes = admin_blueprint("queue")

    @routes.get("/queue")
    async def queue() -> Response:
        flying = {
            server: {"total": len(cell.leases), "byModel": by_model(cell)}
            for server, cell in system.servers.items()
            if cell.leases
        }
        return replies.json({"success": True, "queue": _shown(system.queue_view()), "inFlight": flying})

    @routes.post("/queue/pause")
    @audited(ADMIN, "pause queue")
    async def pause(_: Note) -> Response:
        system.pause(True)
        return replies.json({"success": True, "paused": True})

    @routes.post("/queue/resume")
    @audited(ADMIN, "resume queue")
    async def resume(_: Note) -> Response:
        system.pause(False)
        return replies.json({"success": True, "paused": False})

    return routes


def _shown(view: QueueView) -> dict[str, object]:
    """`currentSize` counts what waits and what runs, as in the reference's example; waiting times in ms."""
    return {
        "currentSize": view.waiting + view.processing,
        "maxSize": view.max_size,
        "processing": view.processing,
        "waiting": view.waiting,
        "avgWaitTime": milliseconds(view.avg_wait),
        "oldestRequest": iso(view.oldest),
        "totalQueued": view.total_queued,
        "totalDropped": view.total_dropped,
        "paused": view.paused,
        "byModel": view.by_model,
        "byPriority": {str(priority): count for priority, count in view.by_priority.items()},
        "items": [
            {
                "id": item.request_id,
                "model": item.model,
                "priority": item.priority,
                "waitTime": milliseconds(item.waited),
                "position": item.position,
                "estimatedWait": None if item.estimate is None else milliseconds(item.estimate),
            }
            for item in view.items
        ],
    }
