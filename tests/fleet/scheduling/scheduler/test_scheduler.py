"""The dispatcher's mind, by tables. Everything at once: test_board_machine.py."""

from __future__ import annotations

import pytest

from fleet.breakers.gate import Gate, GateState
from fleet.common.errors import ModelNotFound, NoServer, QueueFull, ServerNotFound
from fleet.common.model_names import canonical
from fleet.scheduling.scheduler.decisions import SchedulerLimits
from fleet.scheduling.server_state import Health, Order
from tests.fleet.builders import make_board, make_server, make_ticket, release


def test_a_ready_server_is_granted_at_once() -> None:
    board = make_board(make_server("a", "m", slots=1))
    grant = board.submit(make_ticket("m"), 0.0)
    assert grant is not None
    assert grant.server.id == "a"
    assert grant.server.in_use == 1


def test_the_second_waits_and_is_granted_when_the_slot_is_freed() -> None:
    server = make_server("a", "m", slots=1)
    board = make_board(server)
    first = board.submit(make_ticket("m"), 0.0)
    second = make_ticket("m")
    assert first is not None
    assert board.submit(second, 0.0) is None
    assert not list(board.serve(server, 0.0))
    release(board, first)
    assert [ticket for ticket, _ in board.serve(server, 1.0)] == [second]


def test_the_least_busy_of_equal_servers_wins() -> None:
    a, b = make_server("a", "m", slots=4), make_server("b", "m", slots=4)
    board = make_board(a, b)
    for _ in range(8):
        assert board.submit(make_ticket("m"), 0.0) is not None
        assert abs(a.in_use - b.in_use) <= 1
    assert (a.in_use, b.in_use) == (4, 4)


def test_unknown_model_is_not_found_once_all_servers_were_probed() -> None:
    board = make_board(make_server("a", "m"))
    with pytest.raises(ModelNotFound):
        board.submit(make_ticket("nope"), 0.0)


def test_unknown_model_waits_while_a_server_is_still_unknown() -> None:
    board = make_board(make_server("a", health=Health.UNKNOWN))
    assert board.submit(make_ticket("m"), 0.0) is None


def test_a_model_on_a_dead_server_is_refused_after_the_grace_and_at_once_later() -> None:
    server = make_server("a", "m")
    board = make_board(server)
    server.health = Health.UNHEALTHY
    board.index.update(server, 10.0)
    ticket = make_ticket("m")
    assert board.submit(ticket, 10.0) is None
    assert board.sweep(11.0) == []
    refused = board.sweep(12.1)
    assert [t for t, _ in refused] == [ticket]
    assert isinstance(refused[0][1], NoServer)
    with pytest.raises(NoServer):
        board.submit(make_ticket("m"), 12.2)


def test_a_full_queue_refuses_with_a_wait_from_the_service_rate() -> None:
    server = make_server("a", "m", slots=1)
    board = make_board(server, rules=SchedulerLimits(max_size=4))
    running = board.submit(make_ticket("m"), 0.0)
    assert running is not None
    for now in range(1, 11):  # one completion a second
        release(board, running, float(now))
        assert not list(board.serve(running.server, float(now)))
        running = board.submit(make_ticket("m"), float(now))
        assert running is not None
    for _ in range(4):
        board.submit(make_ticket("m"), 10.0)
    with pytest.raises(QueueFull) as caught:
        board.submit(make_ticket("m"), 10.0)
    assert caught.value.retry_after == pytest.approx(3.0, rel=0.3)
    assert board.memory.dropped == 1


def test_switched_off_queue_refuses_instead_of_waiting() -> None:
    board = make_board(make_server("a", "m", slots=1), rules=SchedulerLimits(may_wait=False))
    assert board.submit(make_ticket("m"), 0.0) is not None
    with pytest.raises(NoServer):
        board.submit(make_ticket("m"), 0.0)


def test_excluded_servers_are_not_tried_again() -> None:
    board = make_board(make_server("a", "m"), make_server("b", "m"))
    for _ in range(3):
        grant = board.submit(make_ticket("m", excluded=("a",)), 0.0)
        assert grant is not None
        assert grant.server.id == "b"
    with pytest.raises(NoServer):
        board.submit(make_ticket("m", excluded=("a", "b")), 0.0)


@pytest.mark.parametrize(
    ("health", "order", "error"),
    [(Health.UNHEALTHY, None, NoServer), (Health.HEALTHY, Order.DRAIN, NoServer), (Health.HEALTHY, None, None)],
)
def test_pinned_requests_need_a_usable_server(
    health: Health, order: Order | None, error: type[Exception] | None
) -> None:
    server = make_server("a", health=health)
    if order:
        server.order(order, 0.0, "test")
    board = make_board(server)
    if error is None:
        assert board.submit(make_ticket("m", pinned="a"), 0.0) is not None
        return
    with pytest.raises(error):
        board.submit(make_ticket("m", pinned="a"), 0.0)


def test_pinned_to_an_unknown_server_is_not_found() -> None:
    with pytest.raises(ServerNotFound):
        make_board(make_server("a", "m")).submit(make_ticket("m", pinned="zzz"), 0.0)


def test_a_pause_holds_everybody_and_resuming_serves_in_order() -> None:
    board = make_board(make_server("a", "m", slots=2))
    board.memory.paused = True
    tickets = [make_ticket("m", at=float(n)) for n in range(3)]
    assert all(board.submit(ticket, 5.0) is None for ticket in tickets)
    board.memory.paused = False
    assert [ticket for ticket, _ in board.serve_anywhere(6.0)] == tickets[:2]


def test_the_fleet_wide_cap_counts_over_all_servers() -> None:
    board = make_board(make_server("a", "m"), make_server("b", "m"), rules=SchedulerLimits(max_in_flight=1))
    grant = board.submit(make_ticket("m"), 0.0)
    assert grant is not None
    waiting = make_ticket("m")
    assert board.submit(waiting, 0.0) is None
    release(board, grant)
    board.index.update_slots(grant.server)
    assert [ticket for ticket, _ in board.serve_anywhere(1.0)] == [waiting]


def test_every_decision_is_explained_by_its_parts() -> None:
    board = make_board(make_server("a", "m"), make_server("b", "m"))
    board.submit(make_ticket("m"), 3.0)
    decision = board.memory.decisions[-1]
    assert {server for server, _ in decision.candidates} == {"a", "b"}
    assert decision.chosen == decision.candidates[0][0]
    assert all(len(parts) == len(board.policy.parts) for _, parts in decision.candidates)


def test_a_server_that_is_the_only_one_ready_is_compared_with_nobody() -> None:
    board = make_board(make_server("a", "m"))
    grant = board.submit(make_ticket("m", at=1.0), 3.0)
    assert grant is not None
    assert grant.decision is board.memory.decisions[-1]
    assert (grant.decision.candidates, grant.decision.waited) == ((("a", ()),), 2.0)


def test_a_gate_that_moves_before_the_freed_slot_is_announced_leaves_the_index_right() -> None:
    server = make_server("a", "m", "n", slots=1)
    board = make_board(server)
    first = board.submit(make_ticket("m"), 0.0)
    assert first is not None
    server.ledger.close(first.number)  # SlotFreed is still on its way ...
    board.memory.total.close(first.number)
    board.index.update(server, 0.0)  # ... when the server's news come
    second = board.submit(make_ticket("m"), 0.0)
    assert second is not None
    assert second.server is server
    assert board.submit(make_ticket("m"), 0.0) is None


def test_a_pinned_newcomer_does_not_overtake_those_who_wait() -> None:
    """It goes by the ledger, they by what the dispatcher has heard: the slot is free, the news still on its way."""
    server = make_server("a", "m", slots=1)
    board = make_board(server)
    running = board.submit(make_ticket("m"), 0.0)
    assert running is not None
    old, new = make_ticket("m"), make_ticket("m", pinned="a", at=1.0)
    assert board.submit(old, 0.0) is None
    server.ledger.close(running.number)
    board.memory.total.close(running.number)
    assert board.submit(new, 1.0) is None
    board.freed(server, running.model, 1.0)
    assert [ticket for ticket, _ in board.serve(server, 1.0)] == [old]


def test_show_needs_no_slot_and_no_open_gate() -> None:
    server = make_server("a", "m", slots=1)
    server.gates[canonical("m")] = Gate(GateState.SHUT)
    board = make_board(server)
    for _ in range(3):
        ticket = make_ticket("m")
        ticket.runs = False
        grant = board.submit(ticket, 0.0)
        assert grant is not None
    assert server.in_use == 0


def test_a_pause_does_not_hold_back_show() -> None:
    board = make_board(make_server("a", "m", slots=1))
    board.memory.paused = True
    ticket = make_ticket("m")
    ticket.runs = False
    assert board.submit(ticket, 0.0) is not None
