"""Back-pressure of one pair: how many it takes, when one more is tried, and what ends it."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from fleet.breakers.holds import FIRST, FORGOTTEN, LONGEST, LONGEST_ASKED, Hold
from fleet.common.ids import ModelName
from fleet.scheduling.choice.expected_completion import ExpectedCompletion
from fleet.scheduling.choice.intents import NOBODY
from fleet.scheduling.scheduler.decisions import Grant, SchedulerLimits
from fleet.scheduling.scheduler.scheduler import Scheduler
from fleet.scheduling.wait_queue import Ticket
from tests.fleet.builders import make_board, make_server, make_ticket, release

M = ModelName("m:latest")


def test_no_more_than_were_open_beside_the_refused_one_until_one_ends() -> None:
    hold = Hold()
    hold.refused(2, 0.0, 10.0)
    assert not hold.admits(2)
    assert hold.admits(1)


def test_after_the_back_off_one_more_is_tried_and_then_twice_as_many() -> None:
    hold, limits = Hold(), []
    hold.refused(2, 0.0, 10.0)
    assert not hold.relaxed(10.0 + FIRST / 2)
    for _ in range(3):
        assert hold.relaxed(hold.until)
        limits.append(hold.limit)
    assert limits == [3, 5, 9]


def test_each_trial_that_is_refused_doubles_the_back_off_up_to_a_bound() -> None:
    hold, now, waits = Hold(), 0.0, []
    for _ in range(8):
        hold.refused(0, 0.0, now)
        waits.append(hold.until - now)
        now = hold.until
        assert hold.relaxed(now)
    assert waits[:5] == [FIRST * 2**n for n in range(5)]
    assert waits[5:] == [LONGEST] * 3


def test_those_that_were_sent_together_count_once() -> None:
    hold = Hold()
    for opened in (3, 2, 1):
        hold.refused(opened, 0.0, 10.0)
    assert (hold.limit, hold.until) == (1, 10.0 + FIRST)


@pytest.mark.parametrize(("asked", "waits"), [(0.0, FIRST), (5.0, 5.0), (86_400.0, LONGEST_ASKED)])
def test_a_servers_own_word_on_when_to_come_back_holds_within_reason(asked: float, waits: float) -> None:
    hold = Hold()
    hold.refused(0, asked, 0.0)
    assert hold.until == waits


def test_who_has_refused_for_long_is_expected_to_go_on_for_as_long() -> None:
    hold, now = Hold(), 0.0
    while now < 20.0:
        hold.refused(0, 0.0, now)
        now = hold.until
        hold.relaxed(now)
    hold.refused(0, 0.0, now)
    assert hold.wait(0, now) >= 20.0
    hold.relaxed(hold.until)
    assert hold.wait(0, now) == 0.0


def test_a_server_without_a_refusal_for_a_while_holds_nothing_back() -> None:
    server = make_server("a", "m")
    server.hold_back(M, 0.0, 0.0)
    assert not server.ready(M)
    assert server.relax(FORGOTTEN)
    assert server.ready(M)
    assert not server.holds


def test_names_that_clients_invent_fill_no_memory() -> None:
    server = make_server("a")
    for number in range(1000):
        server.hold_back(ModelName(f"m{number}"), 0.0, float(number))
    assert len(server.holds) <= 64
    assert ModelName("m999") in server.holds


# ---- on the board


def refuse(board: Scheduler, grant: Grant, now: float) -> None:
    """The server of this grant has enough to do: what a lease does then, in that order."""
    grant.server.ledger.close(grant.number)
    board.memory.total.close(grant.number)
    grant.server.hold_back(grant.model, 0.0, now)
    board.freed(grant.server, grant.model, now)


def granted(board: Scheduler, ticket: Ticket, now: float) -> Grant:
    grant = board.submit(ticket, now)
    assert grant is not None
    return grant


@pytest.mark.parametrize("pinned", [None, "a"])
@pytest.mark.parametrize("capped", [None, 3])
def test_a_request_that_comes_back_is_not_sent_to_the_same_server_before_its_time_and_keeps_its_place(
    pinned: str | None, capped: int | None
) -> None:
    board = make_board(server := make_server("a", "m"), rules=SchedulerLimits(max_in_flight=capped))
    running, refused = granted(board, make_ticket(at=0.0), 0.0), granted(board, first := make_ticket(at=0.5), 0.5)
    refuse(board, refused, 1.0)
    assert board.submit(make_ticket(at=1.0, pinned=pinned), 1.0) is None
    first.back = True
    assert board.submit(first, 1.0) is None
    assert not list(board.serve(server, 1.0))
    assert board.next_due == 1.0 + FIRST
    assert not list(board.serve_due(1.1))
    given = list(board.serve_due(1.0 + FIRST))
    assert [ticket.number for ticket, _ in given] == [first.number], "one more, and the one that came first"
    refuse(board, running, 2.0)
    assert board.next_due > 2.0


def test_a_place_that_becomes_free_on_a_server_with_enough_to_do_is_handed_on_at_once() -> None:
    board = make_board(server := make_server("a", "m"))
    running, refused = granted(board, make_ticket(), 0.0), granted(board, make_ticket(), 0.0)
    refuse(board, refused, 1.0)
    assert board.submit(waiting := make_ticket(at=1.0), 1.0) is None
    server.ledger.close(running.number)
    board.memory.total.close(running.number)
    board.freed(server, running.model, 1.1)
    assert [ticket for ticket, _ in board.serve(server, 1.1)] == [waiting]


def test_other_models_and_other_servers_are_not_held_back() -> None:
    board = make_board(make_server("a", "m", "n"), make_server("b", "m"))
    first = granted(board, make_ticket(excluded=("b",)), 0.0)
    refuse(board, first, 0.0)
    assert granted(board, make_ticket(), 0.0).server.id == "b"
    assert granted(board, make_ticket("n"), 0.0).server.id == "a"


def test_a_quiet_fleet_remembers_no_back_pressure_that_is_over() -> None:
    board = make_board(server := make_server("a", "m"))
    refuse(board, granted(board, make_ticket(), 0.0), 0.0)
    assert granted(board, make_ticket(at=5.0), 5.0).server is server


def test_who_comes_back_finds_room_in_a_full_line() -> None:
    board = make_board(make_server("a", "m"), rules=SchedulerLimits(max_size=1))
    refuse(board, granted(board, back := make_ticket(), 0.0), 0.0)
    assert board.submit(make_ticket(), 0.0) is None
    back.back = True
    assert board.submit(back, 0.0) is None
    assert len(board.queue) == 2


def test_a_dispatcher_that_begins_anew_goes_on_with_what_is_held_back() -> None:
    server = make_server("a", "m")
    server.hold_back(M, 0.0, 0.0)
    board = make_board(server)
    assert board.submit(ticket := make_ticket(), 0.1) is None
    assert board.next_due == FIRST
    assert [each for each, _ in board.serve_due(FIRST)] == [ticket]


@pytest.mark.parametrize("seed", range(5))
def test_a_server_that_refuses_all_is_asked_ever_more_rarely_however_many_wait(seed: int) -> None:
    board = make_board(server := make_server("a", "m", slots=8))
    dice, asked, now = random.Random(seed), [], 0.0
    for number in range(50):
        grant = board.submit(ticket := make_ticket(at=now), now)
        if grant is not None:
            asked.append(now)
            refuse(board, grant, now)
            ticket.back = True
            assert board.submit(ticket, now) is None
        now += dice.random() * 0.001 * number
    while now < 60.0:
        now = board.next_due
        for ticket, grant in board.serve_due(now):
            asked.append(now)
            refuse(board, grant, now)
            assert board.submit(ticket, now) is None
    assert len(asked) <= 5 + 60.0 / LONGEST
    assert all(later - earlier >= FIRST for earlier, later in pairwise(asked))
    assert server.in_use == 0


def test_a_server_with_enough_to_do_is_priced_by_how_long_it_has_refused() -> None:
    policy = ExpectedCompletion()
    server = make_server("a", "m")
    ticket = make_ticket()
    policy.arrived(ticket, policy.estimates.profile(("c", M, "/api/chat"), 100, 0.0), 0.0)
    free = policy.price(ticket, server, NOBODY, 0.0)[policy.wait]
    server.hold_back(M, 0.0, 0.0)
    assert policy.price(ticket, server, NOBODY, 0.0)[policy.wait] <= free - FIRST


def test_a_server_remembers_the_deaths_of_so_many_models_at_the_most() -> None:
    server = make_server("a")
    for number in range(500):
        assert server.counts_death(ModelName(f"invented-{number}:latest"), float(number * 10))
    assert len(server.died) == 64
    assert not server.counts_death(ModelName("invented-499:latest"), 4990.5)


@pytest.mark.parametrize("policy", [None, ExpectedCompletion()], ids=["at once", "planned"])
def test_one_who_has_to_be_alone_does_not_go_to_a_server_that_is_passed_over_while_another_can_serve(
    policy: ExpectedCompletion | None,
) -> None:
    good, cool = make_server("good", "m", slots=2), make_server("cool", "m", slots=2)
    cool.barred, cool.cooling = {M}, {M}
    board = make_board(good, cool, policy=policy)
    running = board.submit(make_ticket(), 0.0)
    assert running is not None
    lonely = make_ticket()
    lonely.alone = True
    assert board.submit(lonely, 0.0) is None
    assert list(board.serve(cool, 0.0)) == []
    release(board, running, 1.0)
    assert [(who, grant.server) for who, grant in board.serve(good, 1.0)] == [(lonely, good)]
