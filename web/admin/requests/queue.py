"""The waiting lines."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from actors.kit.reply import heard
from fleet.common.errors import NotFound
from fleet.common.times import iso, milliseconds
from fleet.security.roles import ANONYMOUS
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.kit.schemas import EPOCH_MS, ISO, MS, Each, Maybe, Said
from web.http.units import epoch, take_turns

if TYPE_CHECKING:
    from actors.state.queue_views import QueueItem, QueueView
    from actors.state.servers import ServerCell
    from actors.system import System

topic = RouteGroup("queue", "The waiting lines.")

BY: Final = Said(str, "the name of the key that asked for it; `anonymous` without one")
STATE: Final = {"paused": bool, "since": ISO, "why": str, "next": str, "by": Maybe(str)}
ITEM: Final = {
    "id": str,
    "model": str,
    "priority": int,
    "position": Said(int, "how many wait before it for the same model"),
    "enqueueTime": EPOCH_MS,
    "deadline": Said(int, "milliseconds since 1970; later if a server has tried it before"),
    "waitTime": MS,
    "estimatedWait": Maybe(MS),
    "endpoint": str,
    "clientId": Said(str, "the client's address"),
    "by": BY,
}
QUEUE: Final = {
    "currentSize": Said(int, "waiting and processing"),
    "maxSize": int,
    "processing": int,
    "waiting": int,
    "avgWaitTime": MS,
    "oldestRequest": Maybe(ISO),
    "totalQueued": int,
    "totalDropped": Said(int, "refused because the queue was full"),
    "enabled": bool,
    **STATE,
    "byModel": Each(int),
    "byPriority": Each(int),
    "items": [ITEM],
}
BY_MODEL: Final = Each({"regular": int, "bypass": int})
FLYING: Final = Each({"total": int, "byModel": BY_MODEL})


@topic.get(
    "/queue",
    "Who waits, since when and for what; and what runs.",
    query=(Param("limit", int, 200, "waiting requests listed; all are counted", least=1, most=1000),),
    returns={"success": bool, "queue": QUEUE, "inFlight": FLYING},
    seed=True,
)
async def queue(asked: AdminRequest) -> dict[str, Any]:
    system = asked.system
    flying = {
        server: {"total": len(cell.leases), "byModel": by_model(cell)}
        for server, cell in system.servers.items()
        if cell.leases
    }
    view = system.queries.queue_view(asked.query["limit"])
    items = []
    for number, item in enumerate(view.items):
        items.append(_item(item))
        await take_turns(number)
    return {"success": True, "queue": _shown(system, view, items), "inFlight": flying}


@topic.post(
    "/queue/pause",
    "Let everybody wait; what runs goes on.",
    action="pause queue",
    returns={"success": bool, **STATE},
    fails=(503,),
    seed=True,
)
async def pause(asked: AdminRequest) -> dict[str, Any]:
    await heard(asked.system.orders.pause(True, asked.by.name))
    return {"success": True, **_state(asked.system, asked.system.queries.queue_view(0))}


@topic.post(
    "/queue/resume",
    "Let them go on.",
    action="resume queue",
    returns={"success": bool, **STATE},
    fails=(503,),
    seed=True,
)
async def resume(asked: AdminRequest) -> dict[str, Any]:
    await heard(asked.system.orders.pause(False, asked.by.name))
    return {"success": True, **_state(asked.system, asked.system.queries.queue_view(0))}


@topic.delete(
    "/queue/<request>",
    "Cancel a waiting request, or several if their clients chose the same id.",
    action="cancel waiting request",
    returns={"success": bool, "id": str, "cancelled": int},
)
async def cancel(asked: AdminRequest, request: str) -> dict[str, Any]:
    asked.note.about(cancelled=request)
    count = asked.system.orders.cancel_waiting(request)
    if not count:
        raise NotFound(f"request '{request}' does not wait", details="if it runs, DELETE /in-flight/:id cancels it")
    return {"success": True, "id": request, "cancelled": count}


def by_model(cell: ServerCell) -> dict[str, dict[str, int]]:
    """Open requests per model; nothing bypasses the limits here, so `bypass` is always 0."""
    counts = Counter(str(lease.pair.model) for lease in cell.leases.values())
    return {model: {"regular": count, "bypass": 0} for model, count in counts.items()}


def _shown(system: System, view: QueueView, items: list[dict[str, Any]]) -> dict[str, Any]:
    """In `QUEUE`'s shape; `currentSize` counts what waits and what runs, as in the reference's example."""
    return {
        "currentSize": view.waiting + view.processing,
        "maxSize": view.max_size,
        "processing": view.processing,
        "waiting": view.waiting,
        "avgWaitTime": milliseconds(view.avg_wait),
        "oldestRequest": iso(view.oldest),
        "totalQueued": view.total_queued,
        "totalDropped": view.total_dropped,
        "enabled": view.enabled,
        **_state(system, view),
        "byModel": view.by_model,
        "byPriority": {str(priority): count for priority, count in view.by_priority.items()},
        "items": items,
    }


def _state(system: System, view: QueueView) -> dict[str, Any]:
    """In `STATE`'s shape."""
    word = "paused" if view.paused else "resumed"
    return {
        "paused": view.paused,
        "since": iso(view.since or epoch(system.started)),
        "why": f"{word} by {view.by or 'the fleet'}" if view.since else "running since the start",
        "next": "nobody gets a server until it is resumed" if view.paused else "served as slots become free",
        "by": view.by or None,
    }


def _item(item: QueueItem) -> dict[str, Any]:
    return {
        "id": item.request_id,
        "model": item.model,
        "priority": item.priority,
        "position": item.position,
        "enqueueTime": milliseconds(item.enqueued),
        "deadline": milliseconds(item.deadline),
        "waitTime": milliseconds(item.waited),
        "estimatedWait": milliseconds(item.estimate),
        "endpoint": item.endpoint,
        "clientId": item.client,
        "by": item.by or ANONYMOUS,
    }
