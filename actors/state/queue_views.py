"""Snapshots for people: what the queue looks like. Never a prompt."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import trio

from actors.state.fleet_state import FleetCell
from actors.state.ticket import PendingTicket

MOST_ITEMS: Final = 200


@dataclass(frozen=True, slots=True)
class QueueItem:
    """One waiting request. Seconds; `position` counts those before it that want the same model (or pinned server).

    `estimate` is the probable further wait, from the model's observed pace; None while that is unknown. `enqueued` and
    `deadline` are seconds since 1970; the deadline of one that has been on a server before is later than this.
    """

    request_id: str
    model: str
    priority: int
    waited: float
    position: int
    estimate: float | None
    enqueued: float = 0.0
    deadline: float = 0.0
    endpoint: str = ""
    client: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class QueueView:
    """The queue at one moment. Seconds; `oldest` and `since` are seconds since 1970.

    `oldest` is None when nobody waits. `since` is when it was last paused or resumed, `by` whom; None and empty if it
    never was.
    """

    waiting: int
    max_size: int
    processing: int
    paused: bool
    avg_wait: float
    oldest: float | None
    total_queued: int
    total_dropped: int
    by_model: dict[str, int]
    by_priority: dict[int, int]
    items: tuple[QueueItem, ...]
    enabled: bool = True
    since: float | None = None
    by: str = ""


def queue_view(fleet: FleetCell, most: int = MOST_ITEMS) -> QueueView:
    """Who waits, in order of their rank; at most so many are listed, all are counted."""
    now = trio.current_time()
    waiting = [ticket for ticket in fleet.scheduler.tickets.values() if ticket.open]
    oldest = min((ticket.enqueued for ticket in waiting), default=None)
    memory, ageing = fleet.scheduler.memory, fleet.config.current.queue.ageing_seconds
    first = heapq.nsmallest(most, waiting, lambda ticket: (ticket.enqueued - ticket.priority * ageing, ticket.number))
    return QueueView(
        waiting=len(waiting),
        max_size=fleet.config.current.queue_size,
        processing=memory.total.in_use,
        paused=memory.paused,
        avg_wait=memory.waited.mean,
        oldest=None if oldest is None else fleet.clock.epoch(oldest),
        total_queued=memory.queued,
        total_dropped=memory.dropped,
        by_model=dict(Counter(str(ticket.model) for ticket in waiting)),
        by_priority=dict(Counter(ticket.priority for ticket in waiting)),
        items=tuple(_items(fleet, first, now)),
        enabled=fleet.config.current.enable_queue,
        since=None if memory.paused_since is None else fleet.clock.epoch(memory.paused_since),
        by=memory.paused_by,
    )


def _items(fleet: FleetCell, waiting: list[PendingTicket], now: float) -> Iterator[QueueItem]:
    """`waiting` in order of rank."""
    before: Counter[str] = Counter()
    for ticket in waiting:
        line = ticket.pinned or ticket.model
        yield _item(fleet, ticket, before[line], now)
        before[line] += 1


def _item(fleet: FleetCell, ticket: PendingTicket, position: int, now: float) -> QueueItem:
    rate = fleet.scheduler.memory.rates.get(ticket.model, fleet.scheduler.memory.rate)
    limit = min(fleet.config.current.timeouts.queue, fleet.config.current.total_timeout)
    return QueueItem(
        request_id=ticket.request_id,
        model=ticket.model,
        priority=ticket.priority,
        waited=now - ticket.enqueued,
        position=position,
        estimate=rate.wait_for(position + 1, now),
        enqueued=fleet.clock.epoch(ticket.enqueued),
        deadline=fleet.clock.epoch(ticket.enqueued + limit),
        endpoint=ticket.call.endpoint if ticket.call is not None else "",
        client=ticket.call.client if ticket.call is not None else "",
        by=ticket.call.by if ticket.call is not None else "",
    )
