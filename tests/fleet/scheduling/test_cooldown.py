"""Who fails fast is passed over: for how long, and what ends it."""

from __future__ import annotations

from fleet.common.ids import ServerId
from fleet.protocol.missing_endpoints import MissingRoutes
from fleet.scheduling.cooldown import FIRST, LONGEST, Cooling

A, B = ServerId("a"), ServerId("b")


def test_one_fast_failure_is_held_against_a_pair_and_two_pass_it_over() -> None:
    cooling = Cooling()
    assert cooling.failed(0.0, 0.0) == 0.0
    assert cooling.strikes == 1
    assert cooling.failed(0.1, 0.2) == FIRST


def test_failures_that_began_before_it_was_passed_over_tell_nothing_new() -> None:
    cooling = Cooling()
    assert [cooling.failed(0.0, 0.1) for _ in range(12)] == [0.0, FIRST] + [0.0] * 10


def test_each_trial_that_fails_doubles_the_time_up_to_a_bound() -> None:
    cooling, now, times = Cooling(), 0.0, []
    cooling.failed(now, now)
    for _ in range(12):
        now += 0.1
        times.append(cooling.failed(now, now))
        cooling.rested()
        now += times[-1]
    assert times[:3] == [FIRST, 2 * FIRST, 4 * FIRST]
    assert times == sorted(times)
    assert times[-1] == LONGEST


def test_a_success_that_began_later_ends_it_and_an_older_one_does_not() -> None:
    cooling = Cooling()
    cooling.failed(1.0, 1.0)
    cooling.failed(1.1, 1.1)
    assert not cooling.succeeded(0.5)
    assert cooling.strikes == 2
    assert cooling.succeeded(2.0)
    assert (cooling.strikes, cooling.rounds) == (0, 0)
    assert not cooling.succeeded(3.0)


def test_long_ago_counts_no_more() -> None:
    cooling = Cooling()
    for at in (0.0, 0.1, 0.2):
        cooling.failed(at, at)
    assert cooling.failed(1000.0, 1000.0) == 0.0
    assert cooling.rounds == 0


def test_a_missing_route_is_remembered_until_the_server_has_another_version() -> None:
    missing = MissingRoutes()
    assert missing.note(A, "/v1/responses", "0.3.0", 0.0)
    assert not missing.note(A, "/v1/responses", "0.3.0", 0.0)
    missing.note(B, "/v1/responses", None, 0.0)
    missing.note(A, "/v1/messages", "0.3.0", 0.0)
    assert missing.of("/v1/responses") == {A, B}
    missing.seen(A, "0.3.0", 1.0)
    missing.seen(A, None, 1.0)
    assert missing.routes(A) == ["/v1/responses", "/v1/messages"]
    missing.seen(A, "0.33.0", 1.0)
    assert missing.routes(A) == []
    assert missing.of("/v1/responses") == {B}
    assert not missing.of("/v1/messages")
    missing.seen(B, "0.33.0", 1.0)
    assert not missing.of("/v1/responses")


def test_a_server_that_is_gone_lacks_nothing() -> None:
    missing = MissingRoutes()
    missing.note(A, "/v1/responses", "1", 0.0)
    missing.forget(A)
    missing.forget(B)
    assert not missing.of("/v1/responses")


def test_what_a_server_lacks_is_asked_for_again_after_an_hour_whatever_its_version() -> None:
    missing = MissingRoutes()
    missing.note(A, "/v1/responses", "1", 0.0)
    missing.seen(A, "1", 3599.0)
    assert missing.of("/v1/responses")
    missing.seen(A, "1", 3600.0)
    assert not missing.of("/v1/responses")
