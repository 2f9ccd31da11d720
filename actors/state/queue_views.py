"""Snapshots for people: what the queue looks like. Never a prompt."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import trio

from actors.kit.clock import Clock
from actors.state.scheduler_state import SchedulerState
from actors.state.ticket import PendingTicket
from fleet.config import Config
from fleet.scheduling.scheduler.decisions import SchedulerMemory

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


def queue_view(config: Config, clock: Clock, scheduler: SchedulerState, most: int = MOST_ITEMS) -> QueueView:
    """Who waits, in order of their rank; at most so many are listed, all are counted."""
    now = trio.current_time()
    waiting = [ticket for ticket in scheduler.tickets.values() if ticket.open]
    oldest = min((ticket.enqueued for ticket in waiting), default=None)
    memory, ageing = scheduler.memory, config.queue.ageing_seconds
    first = heapq.nsmallest(most, waiting, lambda ticket: (ticket.enqueued - ticket.priority * ageing, ticket.number))
    return QueueView(
        waiting=len(waiting),
        max_size=config.queue_size,
        processing=memory.total.in_use,
        paused=memory.paused,
        avg_wait=memory.waited.mean,
        oldest=None if oldest is None else clock.epoch(oldest),
        total_queued=memory.queued,
        total_dropped=memory.dropped,
        by_model=dict(Counter(str(ticket.model) for ticket in waiting)),
        by_priority=dict(Counter(ticket.priority for ticket in waiting)),
        items=tuple(_items(config, clock, memory, first, now)),
        enabled=config.enable_queue,
        since=None if memory.paused_since is None else clock.epoch(memory.paused_since),
        by=memory.paused_by,
    )


def _items(
    config: Config, clock: Clock, memory: SchedulerMemory, waiting: list[PendingTicket], now: float
) -> Iterator[QueueItem]:
    """`waiting` in order of rank."""
    before: Counter[str] = Counter()
    for ticket in waiting:
        line = ticket.pinned or ticket.model
        yield _item(config, clock, memory, ticket, before[line], now)
        before[line] += 1


def _item(
    config: Config, clock: Clock, memory: SchedulerMemory, ticket: PendingTicket, position: int, now: float
) -> QueueItem:
    rate = memory.rates.get(ticket.model, memory.rate)
    limit = min(config.timeouts.queue, config.total_timeout)
    return QueueItem(
        request_id=ticket.request_id,
        model=ticket.model,
        priority=ticket.priority,
        waited=now - ticket.enqueued,
        position=position,
        estimate=rate.wait_for(position + 1, now),
        enqueued=clock.epoch(ticket.enqueued),
        deadline=clock.epoch(ticket.enqueued + limit),
        endpoint=ticket.call.endpoint if ticket.call is not None else "",
        client=ticket.call.client if ticket.call is not None else "",
        by=ticket.call.by if ticket.call is not None else "",
    )
