"""Small builders for pure tests."""

from __future__ import annotations

import random

from fleet.common.ids import ModelName, RequestId, ServerId
from fleet.common.model_names import canonical
from fleet.config import Config, ServerSpec
from fleet.scheduling.choice.balancing import BalancingPolicy, LeastConnections
from fleet.scheduling.scheduler.decisions import Grant, SchedulerLimits, SchedulerMemory
from fleet.scheduling.scheduler.scheduler import Scheduler
from fleet.scheduling.server_state import Health, ServerState
from fleet.scheduling.wait_queue import Ticket


def make_spec(name: str, *, slots: int = 4, priority: int = 1) -> ServerSpec:
    url = f"http://10.0.0.{abs(hash(name)) % 250}:11434"
    return ServerSpec(id=ServerId(name), url=url, max_concurrency=slots, priority=priority)


def make_server(
    name: str, *models: str, slots: int = 4, priority: int = 1, health: Health = Health.HEALTHY
) -> ServerState:
    state = ServerState(make_spec(name, slots=slots, priority=priority))
    state.health = health
    state.seen = health is not Health.UNKNOWN
    state.models = {canonical(model): {"name": model} for model in models}
    return state


_numbers = iter(range(1, 1_000_000))


def make_ticket(
    model: str = "m", *, priority: int = 0, at: float = 0.0, pinned: str | None = None, excluded: tuple[str, ...] = ()
) -> Ticket:
    number = next(_numbers)
    return Ticket(
        number=number,
        request_id=RequestId(f"r{number}"),
        model=canonical(model) if model else ModelName(""),
        priority=priority,
        enqueued=at,
        pinned=ServerId(pinned) if pinned else None,
        excluded=frozenset(ServerId(server) for server in excluded),
    )


def make_board(
    *servers: ServerState, rules: SchedulerLimits | None = None, policy: BalancingPolicy | None = None, seed: int = 1
) -> Scheduler:
    rules = rules or SchedulerLimits()
    board = Scheduler(rules, policy or LeastConnections(), random.Random(seed), SchedulerMemory.fresh(rules), 0.0)
    for server in servers:
        board.index.update(server, 0.0)
    return board


def release(board: Scheduler, grant: Grant, now: float = 0.0) -> None:
    """End a grant, as its lease would: ledgers, gate, news."""
    grant.server.ledger.close(grant.number)
    board.memory.total.close(grant.number)
    if grant.gate is not None:
        grant.gate.give_back()
    board.freed(grant.server, grant.model, now)


__all__ = ["Config", "make_board", "make_server", "make_spec", "make_ticket", "release"]
