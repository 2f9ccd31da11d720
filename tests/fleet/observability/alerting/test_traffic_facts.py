"""What finished requests tell the monitor: windows, culprits, first tokens, stalls, loads."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from fleet.breakers.recovery_log import RecoveryLog
from fleet.breakers.values import BreakerState
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.observability.alerting.facts import Culprit, FirstTokenTimes, Share, Traffic
from fleet.observability.alerting.traffic_facts import (
    ASKED,
    LONG,
    MOST_CAUSES,
    MOST_MODELS,
    Counts,
    culprit_of,
    flaps_of,
)
from fleet.observability.statistics.aggregates import Count
from fleet.observability.statistics.request_batch import RequestBatch
from fleet.observability.statistics.time_windows import Series

A, M = ServerId("a"), ModelName("m:latest")
PAIR = Pair(A, M)


@dataclass
class Try:
    server: str = "a"
    outcome: str = "completed"
    started: float = 0.0
    first_byte: float | None = 0.5
    ended: float = 0.0


@dataclass
class End:
    outcome: str = "completed"
    server: str = "a"
    model: str = "m:latest"
    first_byte_seconds: float | None = None
    stream: bool = False
    endpoint: str = "/api/chat"
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    tries: tuple[Try, ...] = ()


def whole(counts: Counts, now: float) -> Traffic:
    servers = {name: counts.server(ServerId(name), now) for name in ("a", "b")}
    return counts.traffic(now, servers, {})


def test_shares_are_those_of_their_windows_and_own_doing_is_no_failure() -> None:
    counts = Counts()
    counts.note(RequestBatch([End("backend_broke")] * 4), 0.0)
    counts.note(
        RequestBatch([End()] * 6 + [End("client_left"), End("refused_404"), End("model_not_found", "")]), 3_600.0
    )
    found = whole(counts, 3_600.0)
    assert (found.minutes5, found.minutes30, found.hours6) == (Share(9, 0), Share(9, 0), Share(13, 4))
    assert whole(counts, 3_600.0 + 1_800).hour == Share(9, 0)
    assert found.per_second == pytest.approx(9 / 60, rel=0.1)


def test_the_culprit_is_who_failed_most_lately() -> None:
    counts = Counts()
    counts.note(RequestBatch([End("backend_broke", "old")] * 50), 0.0)
    counts.note(RequestBatch([End("backend_unreachable", "b")] * 3 + [End("queue_full", "")] * 2), 400.0)
    found = whole(counts, 400.0)
    assert found.culprit == Culprit("b", "backend_unreachable", 3, "m:latest")
    assert found.rejected == 2
    assert whole(counts, 900.0).culprit is None


@pytest.mark.parametrize(
    ("causes", "culprit"),
    [
        ({}, None),
        ({("a", "m", "x"): 3}, Culprit("a", "x", 3, "m")),
        ({("a", "m", "x"): 3, ("a", "n", "x"): 3}, Culprit("a", "x", 6)),
        ({("a", "m", "x"): 5, ("a", "n", "x"): 3, ("b", "m", "y"): 7}, Culprit("a", "x", 8, "m")),
        ({("a", "m", "x"): 3, ("b", "m", "x"): 3, ("c", "m", "x"): 3}, Culprit("", "x", 9, "m")),
        ({("a", "m", "x"): 9, ("b", "m", "x"): 1}, Culprit("a", "x", 9, "m")),
        ({("", "m", "no_server"): 4}, Culprit("", "no_server", 4, "m")),
        ({("a", "", "x"): 4}, Culprit("a", "x", 4)),
    ],
)
def test_where_most_failures_come_from(causes: dict[tuple[str, str, str], int], culprit: Culprit | None) -> None:
    assert culprit_of(causes) == culprit


def test_the_youngest_windows_tell_whether_a_fault_is_over() -> None:
    counts = Counts()
    counts.note(RequestBatch([End("backend_broke")] * 50), 0.0)
    counts.note(RequestBatch([End()] * 5), 40.0)
    counts.note(RequestBatch([End()] * 7), 62.0)
    assert whole(counts, 63.0).lately == (Share(7, 0), Share(12, 0), *[Share(62, 50)] * 4)


def test_kinds_of_failures_are_bounded() -> None:
    counts = Counts()
    counts.note(RequestBatch([End(f"refused_5{n}", "a") for n in range(2 * MOST_CAUSES)]), 0.0)
    assert len(counts._causes.bucket(0.0).numbers) == MOST_CAUSES


def test_first_tokens_are_the_fleets_from_arrival_and_a_servers_from_the_grant() -> None:
    counts = Counts()
    tries = (Try("b", "backend_broke", 0.0, None), Try("a", "completed", 7.0, 8.0))
    counts.note(RequestBatch([End(stream=True, first_byte_seconds=8.0, tries=tries)] * 20), 10.0)
    counts.note(
        RequestBatch([End(stream=False, first_byte_seconds=99.0, tries=(Try("a", started=0, first_byte=99.0),))]), 10.0
    )
    found = whole(counts, 20.0)
    assert found.first.count == found.servers["a"].count == 20
    assert found.first.p95 == pytest.approx(8.0, rel=0.06)
    assert list(found.servers) == ["a"]
    assert found.servers["a"].p95 == pytest.approx(1.0, rel=0.06)
    assert found.streams == 20


def test_five_minutes_of_first_tokens_are_no_less_than_five_minutes() -> None:
    """A ring of whole minutes forgot the first of them up to a minute too early, and so did the alert."""
    counts = Counts()
    counts.note(RequestBatch([End("backend_broke", stream=True, first_byte_seconds=1.0)]), 10.0)
    assert whole(counts, 305.0).first.count == 1
    assert whole(counts, 305.0).culprit is not None
    assert whole(counts, 340.0).first.count == 0
    assert whole(counts, 340.0).culprit is None


def test_streams_that_fell_silent_are_stalls_of_the_server_where_they_did() -> None:
    counts = Counts()
    counts.note(RequestBatch([End("idle_timeout", stream=True, tries=(Try(outcome="idle_timeout"),))] * 2), 0.0)
    counts.note(RequestBatch([End(stream=True, tries=(Try(),))] * 8), 0.0)
    found = whole(counts, 1.0)
    assert (found.streams, found.stalls) == (10, 2)
    assert whole(counts, 1_000.0).streams == 0


def test_models_count_as_asked_for_a_while_and_invented_names_push_out_none() -> None:
    counts = Counts()
    counts.note(RequestBatch([End("no_server", "")]), 0.0)
    counts.note(RequestBatch([End("model_not_found", "", f"x{n}") for n in range(2 * MOST_MODELS)]), 1.0)
    counts.note(RequestBatch([End(model="")]), 1.0)
    counts.forget([A], 2.0)
    assert list(counts.asked) == [M]
    counts.note(RequestBatch([End("no_server", "", f"y{n}") for n in range(2 * MOST_MODELS)]), 3.0)
    assert len(counts.asked) == MOST_MODELS
    counts.forget([A], ASKED + 4.0)
    assert not counts.asked


def test_a_model_that_was_not_in_memory_at_the_last_look_was_loaded() -> None:
    counts = Counts()
    for n in range(6):
        counts.look(A, {M: {}} if n % 2 else {}, 10.0 * n)
    assert counts.loads() == {PAIR: 3}
    counts.forget([A], LONG + 11.0)  # the first of them is too long ago
    assert counts.loads() == {PAIR: 2}
    counts.forget([], 100.0)
    assert counts.loads() == {}


def test_loads_that_only_requests_saw_count_as_the_metrics_count_them() -> None:
    counts = Counts()
    counts.look(A, {}, 0.0)
    counts.look(A, {M: {}}, 5.0)  # of these, the metrics know too
    for now, total in ((5.0, 4), (10.0, 4), (15.0, 6)):
        counts.loaded({PAIR: total}, now)
    assert counts.loads() == {PAIR: 6}
    counts.loaded({}, 20.0)
    counts.loaded({PAIR: 1}, 25.0)  # its series made room, and began anew
    assert counts.loads() == {PAIR: 7}
    counts.forget([A], LONG + 10.0)
    assert counts.loads() == {PAIR: 3}
    counts.forget([], LONG + 10.0)
    assert counts.loads() == {}


def test_a_server_that_was_down_has_loaded_nothing_by_coming_back() -> None:
    counts = Counts()
    for n in range(10):
        counts.look(A, {M: {}} if n % 2 else None, float(n))
    assert counts.loads() == {}


def test_servers_that_are_gone_are_forgotten() -> None:
    counts = Counts()
    counts.note(RequestBatch([End(stream=True, tries=(Try(),))]), 0.0)
    counts.forget([], 1.0)
    assert counts.server(A, 1.0) == (FirstTokenTimes(), 0, 0)


def test_moves_of_a_breaker_are_counted_over_half_an_hour() -> None:
    book = RecoveryLog()
    for at in (0.0, 100.0, 200.0):
        book.moved(PAIR, BreakerState.CLOSED, BreakerState.OPEN, "", at, 1.0)
    assert flaps_of(book.page(A), LONG + 50.0) == {PAIR: 2}
    assert flaps_of(book.page(A), 2 * LONG) == {} == flaps_of(book.page(ServerId("b")), 0.0)


def test_minutes_forget_what_is_too_old() -> None:
    minutes = Series(Count, ((60.0, 180.0),))
    for now in (0.0, 59.9, 60.0, 180.0):
        minutes.bucket(now).number += 1
    lately, nothing = Count(), Count()
    assert (minutes.window(240.0, 180.0, lately), lately.number) == (60.0, 2)
    assert (minutes.window(460.0, 180.0, nothing), nothing.number) == (280.0, 0)
    assert len(minutes) == 0
