"""The fleet's scheduler in the referee's hands does what it does in the dispatcher's."""

from __future__ import annotations

import pytest

from bench.regret.demand import VisibleRequest
from bench.regret.router import Ending, KnownServer, Order, Refuse, Send, Sighting
from bench.regret.routers.ours import OURS, Ours
from fleet.breakers.outcomes import ClientLeft, Completed, End, Refused
from fleet.common.ids import ServerId
from fleet.simulator import Stats

SERVERS = (KnownServer("s0", ("chat:8b",), 1), KnownServer("s1", ("chat:8b",), 1))
STATS = Stats(10**9, 0, 0, 10**8, 10**9, 10, 50)
CRASH = Refused(500, "model runner has unexpectedly stopped, this may be due to resource limitations")


def request(number: int, *, model: str = "chat:8b", excluded: tuple[str, ...] = ()) -> VisibleRequest:
    return VisibleRequest(number, model, "anybody", 100, (), None, 0.0, frozenset(excluded))


def ending(order: Send, end: End, *, started: float = 0.0, final: bool = True) -> Ending:
    stats = STATS if isinstance(end, Completed) else None
    return Ending(order.number, order.server, end, started, started + 0.1, stats, final)


def sent(ours: Ours, number: int, now: float = 0.0, *, excluded: tuple[str, ...] = ()) -> Send:
    (order,) = ours.arrived(request(number, excluded=excluded), now)
    assert isinstance(order, Send)
    return order


@pytest.mark.parametrize("policy", OURS)
def test_who_finds_no_slot_waits_and_gets_the_next_one(policy: str) -> None:
    ours = Ours(policy, SERVERS, 1)
    first, second = sent(ours, 1), sent(ours, 2)
    assert {first.server, second.server} == {"s0", "s1"}
    assert ours.arrived(request(3), 0.0) == ()
    assert ours.ended(ending(first, Completed(200)), 1.0) == [Send(3, first.server)]


def test_what_a_request_teaches_is_in_the_pairs_statistics() -> None:
    ours = Ours("weighted", SERVERS, 1)
    order = sent(ours, 1, 5.0)
    ours.ended(ending(order, Completed(200), started=5.0), 6.0)
    (stats,) = ours.board.index.servers[ServerId(order.server)].stats.values()
    assert stats.first_byte.value == pytest.approx(0.1)
    assert (stats.speed.value, stats.success.value) == (50.0, 1.0)


def test_a_client_who_leaves_the_line_is_never_sent() -> None:
    ours = Ours("weighted", SERVERS, 1)
    first, second = sent(ours, 1), sent(ours, 2)
    ours.arrived(request(3), 0.0)
    ours.left(3, 0.5)
    assert ours.ended(ending(first, Completed(200)), 1.0) == []
    assert ours.ended(ending(second, ClientLeft()), 1.0) == []


def test_a_model_that_nobody_has_is_refused_at_once() -> None:
    assert Ours("weighted", SERVERS, 1).arrived(request(1, model="none:latest"), 0.0) == [Refuse(1, "ModelNotFound")]


def test_what_a_probe_shows_is_what_the_scheduler_goes_by() -> None:
    ours = Ours("weighted", SERVERS, 1)
    ours.probed(Sighting("s0", False, {}), 1.0)
    ours.probed(Sighting("s1", True, {"chat:8b": 4096}), 1.0)
    assert list(ours.board.index.servers[ServerId("s1")].resident) == ["chat:8b"]
    assert sent(ours, 1, 2.0).server == "s1"
    assert ours.arrived(request(2), 2.0) == ()


def test_who_waits_longer_than_the_queue_allows_is_refused() -> None:
    ours = Ours("weighted", SERVERS, 1)
    sent(ours, 1), sent(ours, 2)
    ours.arrived(request(3), 0.0)
    refused: list[Order] = []
    now = 0.0
    while not refused:
        now = ours.wake_at
        assert now <= 300.0
        refused = list(ours.woken(now))
    assert (refused, now) == ([Refuse(3, "QueueTimeout")], 300.0)


def test_two_servers_that_say_the_same_blame_the_request_and_open_no_breaker() -> None:
    ours = Ours("weighted", SERVERS, 1)
    for number in range(5):
        order = sent(ours, number, number)
        ours.ended(ending(order, CRASH, started=number, final=False), number + 0.1)
        again = sent(ours, number, number + 0.1, excluded=(order.server,))
        assert again.server != order.server
        ours.ended(ending(again, CRASH, started=number + 0.1), number + 0.2)
    assert {sent(ours, 10, 9.0).server, sent(ours, 11, 9.0).server} == {"s0", "s1"}


def test_a_server_that_keeps_crashing_where_another_answers_is_shut_out() -> None:
    ours = Ours("weighted", SERVERS, 1)
    failures = 0
    for number in range(40):
        now = number * 2.0
        order = sent(ours, number, now)
        if order.server == "s1":
            ours.ended(ending(order, Completed(200), started=now), now + 1.5)
            continue
        failures += 1
        ours.ended(ending(order, CRASH, started=now, final=False), now + 0.1)
        again = sent(ours, number, now + 0.1, excluded=("s0",))
        ours.began(number, now + 0.2)
        ours.ended(ending(again, Completed(200), started=now + 0.1), now + 1.5)
    assert 1 <= failures <= 5


def test_the_last_server_of_a_model_is_tried_though_its_breaker_is_open() -> None:
    ours = Ours("weighted", SERVERS, 1)
    ours.probed(Sighting("s1", False, {}), 0.0)
    number = 0
    for number in range(6):
        now = number * 20.0  # beyond any cooldown
        order = sent(ours, number, now)
        assert order.server == "s0"
        ours.ended(ending(order, CRASH, started=now), now + 0.1)
        ours.woken(now + 10.0)
    assert sent(ours, number + 1, number * 20.0 + 20.0).server == "s0"
