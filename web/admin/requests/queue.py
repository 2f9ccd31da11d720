"""The waiting lines."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

from actors.kit.reply import heard
from fleet.common.errors import NotFound
from fleet.common.ids import ServerId
from fleet.common.times import iso, milliseconds
from fleet.security.roles import ANONYMOUS
from web.admin.kit.answers import EPOCH_MS, ISO, MS, Answer, JsonObject
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.http.units import take_turns

if TYPE_CHECKING:
    from actors.state.queue_views import QueueItem, QueueView
    from actors.state.servers import ServerCell
    from actors.system import System

topic = RouteGroup("queue", "The waiting lines.")

BY = Annotated[str, "the name of the key that asked for it; `anonymous` without one"]


class WaitingJson(JsonObject, kw_only=True):
    """One request that waits."""

    id: str
    model: str
    priority: int
    position: Annotated[int, "how many wait before it for the same model"]
    enqueue_time: EPOCH_MS
    deadline: Annotated[int, "milliseconds since 1970; later if a server has tried it before"]
    wait_time: MS
    estimated_wait: MS | None
    endpoint: str
    client_id: Annotated[str, "the client's address"]
    by: BY


class QueueJson(JsonObject, kw_only=True):
    """The queue; `currentSize` counts what waits and what runs, as in the reference's example."""

    current_size: Annotated[int, "waiting and processing"]
    max_size: int
    processing: int
    waiting: int
    avg_wait_time: MS
    oldest_request: ISO | None
    total_queued: int
    total_dropped: Annotated[int, "refused because the queue was full"]
    enabled: bool
    paused: bool
    since: ISO
    why: str
    next: str
    by: str | None
    by_model: dict[str, int]
    by_priority: dict[str, int]
    items: list[WaitingJson]


class OfModelJson(JsonObject, kw_only=True):
    """Open requests for one model; nothing bypasses the limits here."""

    regular: int
    bypass: int = 0


class OfServerJson(JsonObject, kw_only=True):
    """Open requests on one server."""

    total: int
    by_model: dict[str, OfModelJson]


class QueueAnswer(Answer, kw_only=True):
    """Who waits, and what runs."""

    queue: QueueJson
    in_flight: dict[ServerId, OfServerJson]


class PauseAnswer(Answer, kw_only=True):
    """Whether everybody waits."""

    paused: bool
    since: ISO
    why: str
    next: str
    by: str | None


class CancelledAnswer(Answer, kw_only=True):
    """How many requests there were of an id."""

    id: str
    cancelled: int


@topic.get(
    "/queue",
    "Who waits, since when and for what; and what runs.",
    query=(Param("limit", int, 200, "waiting requests listed; all are counted", least=1, most=1000),),
    seed=True,
)
async def queue(asked: AdminRequest) -> QueueAnswer:
    system = asked.system
    flying = {
        server: OfServerJson(total=len(cell.leases), by_model=by_model(cell))
        for server, cell in system.servers.items()
        if cell.leases
    }
    view = system.queries.queue_view(asked.query["limit"])
    items = []
    for number, item in enumerate(view.items):
        items.append(_item(item))
        await take_turns(number)
    return QueueAnswer(queue=_shown(system, view, items), in_flight=flying)


@topic.post(
    "/queue/pause",
    "Let everybody wait; what runs goes on.",
    action="pause queue",
    fails=(503,),
    seed=True,
)
async def pause(asked: AdminRequest) -> PauseAnswer:
    await heard(asked.system.orders.pause(True, asked.by.name))
    return _state(asked.system, asked.system.queries.queue_view(0))


@topic.post(
    "/queue/resume",
    "Let them go on.",
    action="resume queue",
    fails=(503,),
    seed=True,
)
async def resume(asked: AdminRequest) -> PauseAnswer:
    await heard(asked.system.orders.pause(False, asked.by.name))
    return _state(asked.system, asked.system.queries.queue_view(0))


@topic.delete(
    "/queue/<request>",
    "Cancel a waiting request, or several if their clients chose the same id.",
    action="cancel waiting request",
)
async def cancel(asked: AdminRequest, request: str) -> CancelledAnswer:
    asked.note.about(cancelled=request)
    count = asked.system.orders.cancel_waiting(request)
    if not count:
        raise NotFound(f"request '{request}' does not wait", details="if it runs, DELETE /in-flight/:id cancels it")
    return CancelledAnswer(id=request, cancelled=count)


def by_model(cell: ServerCell) -> dict[str, OfModelJson]:
    """Open requests per model."""
    counts = Counter(str(lease.pair.model) for lease in cell.leases.values())
    return {model: OfModelJson(regular=count) for model, count in counts.items()}


def _shown(system: System, view: QueueView, items: list[WaitingJson]) -> QueueJson:
    state = _state(system, view)
    return QueueJson(
        current_size=view.waiting + view.processing,
        max_size=view.max_size,
        processing=view.processing,
        waiting=view.waiting,
        avg_wait_time=milliseconds(view.avg_wait),
        oldest_request=iso(view.oldest),
        total_queued=view.total_queued,
        total_dropped=view.total_dropped,
        enabled=view.enabled,
        paused=state.paused,
        since=state.since,
        why=state.why,
        next=state.next,
        by=state.by,
        by_model=view.by_model,
        by_priority={str(priority): count for priority, count in view.by_priority.items()},
        items=items,
    )


def _state(system: System, view: QueueView) -> PauseAnswer:
    word = "paused" if view.paused else "resumed"
    return PauseAnswer(
        paused=view.paused,
        since=iso(view.since or system.clock.epoch(system.started)),
        why=f"{word} by {view.by or 'the fleet'}" if view.since else "running since the start",
        next="nobody gets a server until it is resumed" if view.paused else "served as slots become free",
        by=view.by or None,
    )


def _item(item: QueueItem) -> WaitingJson:
    return WaitingJson(
        id=item.request_id,
        model=item.model,
        priority=item.priority,
        position=item.position,
        enqueue_time=milliseconds(item.enqueued),
        deadline=milliseconds(item.deadline),
        wait_time=milliseconds(item.waited),
        estimated_wait=milliseconds(item.estimate),
        endpoint=item.endpoint,
        client_id=item.client,
        by=item.by or ANONYMOUS,
    )
