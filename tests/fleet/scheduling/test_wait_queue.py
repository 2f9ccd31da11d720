"""Waiting lines: order, ageing, who leaves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.common.ids import ServerId
from fleet.common.model_names import canonical
from fleet.scheduling.wait_queue import Queue
from tests.fleet.builders import make_ticket

A = ServerId("a")
M = canonical("m")


def drain(queue: Queue) -> list[int]:
    order = []
    while head := queue.best(M, A):
        queue.remove(head[2])
        order.append(head[2].number)
    return order


def test_first_come_first_served_within_a_class() -> None:
    queue = Queue(30.0)
    tickets = [make_ticket(at=float(n)) for n in range(20)]
    for ticket in tickets:
        queue.push(ticket)
    assert drain(queue) == [ticket.number for ticket in tickets]


def test_higher_priority_first() -> None:
    queue = Queue(30.0)
    low, high = make_ticket(priority=0, at=0.0), make_ticket(priority=1, at=5.0)
    queue.push(low)
    queue.push(high)
    assert drain(queue) == [high.number, low.number]


def test_waiting_is_worth_priority() -> None:
    queue = Queue(30.0)
    old, high = make_ticket(priority=0, at=0.0), make_ticket(priority=1, at=31.0)
    queue.push(high)
    queue.push(old)
    assert drain(queue) == [old.number, high.number]


def test_a_pinned_ticket_stands_in_its_servers_line_only() -> None:
    queue = Queue(30.0)
    pinned = make_ticket(pinned="b")
    queue.push(pinned)
    assert queue.best(M, ServerId("b")) is None
    assert queue.best_pinned(A) is None
    head = queue.best_pinned(ServerId("b"))
    assert head is not None
    assert head[2] is pinned


def test_the_best_of_several_lines_is_asked_for_with_the_best_so_far() -> None:
    queue = Queue(30.0)
    tried, fresh = make_ticket(at=1.0, excluded=("a",)), make_ticket(at=2.0)
    for ticket in (tried, fresh):
        queue.push(ticket)
    head = queue.best(M, A)
    assert head is not None
    assert head[2] is fresh
    ahead = (1.5, 0, make_ticket())
    assert queue.best(M, A, ahead) is ahead
    assert queue.best(M, ServerId("b"), ahead) == (1.0, tried.number, tried)


def test_withdrawing_twice_is_harmless() -> None:
    queue = Queue(30.0)
    ticket = make_ticket()
    queue.push(ticket)
    assert queue.remove(ticket)
    assert not queue.remove(ticket)
    assert len(queue) == 0
    assert M not in queue.models()


def test_who_leaves_leaves_nothing_behind() -> None:
    queue = Queue(30.0)
    keeper = make_ticket(at=0.0, priority=-100)
    queue.push(keeper)
    for n in range(1000):
        ticket = make_ticket(at=float(n))
        queue.push(ticket)
        queue.remove(ticket)
    (line,) = queue.lines()
    assert len(line.entries) == 1
    assert queue.tickets() == [keeper]


@given(st.lists(st.tuples(st.integers(-3, 3), st.floats(0, 1000)), max_size=60), st.data())
def test_order_is_by_rank_whoever_leaves(entries: list[tuple[int, float]], data: st.DataObject) -> None:
    queue = Queue(30.0)
    tickets = [make_ticket(priority=priority, at=at) for priority, at in entries]
    for ticket in tickets:
        queue.push(ticket)
    leaving = data.draw(st.sets(st.sampled_from(range(len(tickets)))) if tickets else st.just(set()))
    for index in leaving:
        queue.remove(tickets[index])
    stay = [ticket for index, ticket in enumerate(tickets) if index not in leaving]
    expected = sorted(stay, key=lambda ticket: (queue.rank(ticket), ticket.number))
    assert queue.tickets() == expected
    assert drain(queue) == [ticket.number for ticket in expected]


def test_a_ticket_that_waited_in_an_earlier_queue_means_nothing_here() -> None:
    """After a restart of the dispatcher, a late withdrawal must not touch the new lines."""
    ghost, waiter = make_ticket(), make_ticket()
    Queue(30.0).push(ghost)
    queue = Queue(30.0)
    queue.push(waiter)
    assert not queue.remove(ghost)
    assert len(queue) == 1
    assert queue.tickets() == [waiter]
