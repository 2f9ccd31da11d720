"""A board whose rules change while requests wait and run."""

from __future__ import annotations

import random

from fleet.config import Weights
from fleet.scheduling.choice.balancing import LeastConnections, Random, Weighted
from fleet.scheduling.scheduler.decisions import SchedulerLimits
from tests.fleet.builders import make_board, make_server, make_ticket, release


def test_another_ageing_reorders_who_waits_and_loses_nobody() -> None:
    board = make_board(make_server("a", "m", slots=1), rules=SchedulerLimits(ageing=1000.0))
    running = board.submit(make_ticket(), 0.0)
    old, urgent = make_ticket(at=0.0), make_ticket(priority=1, at=10.0)
    for ticket in (old, urgent):
        assert board.submit(ticket, ticket.enqueued) is None
    assert board.queue.tickets() == [urgent, old]
    board.reconfigure(SchedulerLimits(ageing=1.0), LeastConnections(), 0.0)
    assert board.queue.tickets() == [old, urgent]
    assert running is not None
    release(board, running, 11.0)
    assert [ticket for ticket, _ in board.serve(board.index.servers[running.server.id], 11.0)] == [old]


def test_the_fleet_wide_cap_follows_and_what_runs_beyond_it_goes_on() -> None:
    board = make_board(make_server("a", "m", slots=4))
    grants = [board.submit(make_ticket(), 0.0) for _ in range(3)]
    board.reconfigure(SchedulerLimits(max_in_flight=2), LeastConnections(), 0.0)
    assert board.submit(make_ticket(), 0.0) is None
    assert board.memory.total.in_use == 3
    for grant in grants[:2]:
        assert grant is not None
        release(board, grant)
    assert len(list(board.serve_anywhere(0.0))) == 1
    board.reconfigure(SchedulerLimits(), LeastConnections(), 0.0)
    assert board.memory.total.free == float("inf")


def test_policy_decisions_and_queue_size_follow() -> None:
    board = make_board(make_server("a", "m", slots=1), rules=SchedulerLimits(decisions=8))
    grants = [board.submit(make_ticket(), 0.0)]
    board.memory.decisions.extend([grants[0].decision] * 5)  # type: ignore[union-attr]
    board.reconfigure(SchedulerLimits(decisions=2, max_size=0), Random(random.Random(1)), 0.0)
    assert (len(board.memory.decisions), board.memory.decisions.maxlen) == (2, 2)
    assert board.policy.name == "random"
    assert board.rules.max_size == 0
    board.reconfigure(SchedulerLimits(decisions=2), Weighted(Weights(latency=1)), 0.0)
    assert board.policy.name == "weighted"
