"""Snapshots for people: what the queue looks like. Never a prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import trio

from actors.cells import FleetCell
from actors.ticket import PendingTicket


@dataclass(frozen=True, slots=True)
class QueueItem:
    """One waiting request. Seconds; `position` counts those before it that want the same model (or pinned server).

    `estimate` is the probable further wait, from the model's observed pace; None while that is unknown.
    """

    request_id: str
    model: str
    priority: int
    waited: float
    position: int
    estimate: float | None


@dataclass(frozen=True, slots=True)
class QueueView:
    """The queue at one moment. Seconds; `oldest` is epoch seconds, None when nobody waits."""

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


_MOST_ITEMS = 200


def queue_view(fleet: FleetCell) -> QueueView:
    """Who waits, in order of their rank; at most 200 are listed, all are counted."""
    now = trio.current_time()
    ageing = fleet.config.queue.ageing_seconds
    waiting = sorted(
        (ticket for ticket in fleet.tickets.values() if ticket.open),
        key=lambda ticket: (ticket.enqueued - ticket.priority * ageing, ticket.number),
    )
    oldest = min((ticket.enqueued for ticket in waiting), default=None)
    memory = fleet.memory
    return QueueView(
        waiting=len(waiting),
        max_size=fleet.config.queue_size,
        processing=memory.total.in_use,
        paused=memory.paused,
        avg_wait=memory.waited.mean,
        oldest=None if oldest is None else fleet.wall() - (now - oldest),
        total_queued=memory.queued,
        total_dropped=memory.dropped,
        by_model=dict(Counter(str(ticket.model) for ticket in waiting)),
        by_priority=dict(Counter(ticket.priority for ticket in waiting)),
        items=tuple(_items(fleet, waiting[:_MOST_ITEMS], now)),
    )


def _items(fleet: FleetCell, waiting: list[PendingTicket], now: float) -> Iterator[QueueItem]:
    """`waiting` in order of rank."""
    before: Counter[str] = Counter()
    for ticket in waiting:
        line = ticket.pinned or ticket.model
        position = before[line]
        before[line] += 1
        rate = fleet.memory.rates.get(ticket.model, fleet.memory.rate)
        estimate = rate.wait_for(position + 1, now)
        waited = now - ticket.enqueued
        yield QueueItem(ticket.request_id, ticket.model, ticket.priority, waited, position, estimate)
