"""What counts as failed: every outcome has a row, and each of those who judge reads its own column."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from fleet.breakers.failure_classes import (
    CLASSES,
    GROUNDS,
    HARMLESS_PATTERN,
    LEFT,
    NO_ERRORS,
    REFUSED,
    REFUSED_4XX,
    REJECTED,
    UNKNOWN,
    FailureClass,
    FailureKind,
    class_of,
    classify,
    convict,
    failed,
)
from fleet.breakers.outcomes import (
    ClientLeft,
    Completed,
    End,
    Failed,
    Incomplete,
    Refused,
    Revoked,
    Signal,
    StreamError,
    kind,
)
from fleet.common.errors import BackendError, BackendRefused, FleetError, Phase, QueueCancelled, RequestCancelled
from fleet.protocol.refusals import Ground

STATUSES = range(400, 600)
NEVER_OF_A_REQUEST = {
    "not_found",
    "job_not_found",
    "job_failed",
    "conflict",
    "too_many_jobs",
    "too_many_clients",
    "body_budget",
    "no_answer",
    "disk_timeout",
    "history_off",
    "history_unavailable",
}
"""Reasons that only the admin API, the feed or the door gives: no finished request bears them."""
ROWS = {row.outcome: row for row in CLASSES}


def subclasses(root: type[FleetError]) -> Iterator[type[FleetError]]:
    """The errors of `fleet.common.errors` below one, and it."""
    if root.__module__ == "fleet.common.errors":
        yield root
        for each in root.__subclasses__():
            yield from subclasses(each)


REASONS = {error.reason.lower() for error in subclasses(FleetError)}
REQUESTED = sorted(REASONS - NEVER_OF_A_REQUEST)
ATTEMPTS: list[End] = [
    Completed(200),
    Incomplete(200),
    ClientLeft(),
    ClientLeft(stalled=True),
    Revoked("drain timeout"),
    Revoked("cancelled", RequestCancelled("x")),
    Revoked("cancelled", QueueCancelled("x")),
    StreamError("x"),
    Refused(200, "x"),
    *(Failed(error("x", Phase.BODY)) for error in subclasses(BackendError) if error is not BackendRefused),  # type: ignore[arg-type, call-arg]
    Failed(BackendRefused("x", 502)),
    *(Refused(status, "x") for status in STATUSES),
]
EVERY = sorted({*REQUESTED, *map(kind, ATTEMPTS)})


@pytest.mark.parametrize("outcome", REQUESTED)
def test_every_error_that_a_request_may_end_with_has_a_row(outcome: str) -> None:
    assert outcome in ROWS


def test_every_row_is_an_outcome_and_stands_there_once() -> None:
    assert len(ROWS) == len(CLASSES)
    known = {*REASONS, *map(kind, ATTEMPTS), *(row.outcome for row in (REFUSED, REFUSED_4XX, UNKNOWN))}
    assert set(ROWS) <= known
    assert not set(ROWS) & NEVER_OF_A_REQUEST


@pytest.mark.parametrize("end", ATTEMPTS, ids=kind)
def test_every_end_of_an_attempt_has_a_row_that_says_what_a_breaker_learns(end: End) -> None:
    row = class_of(kind(end))
    assert row is not UNKNOWN
    assert row.breaker is not None or isinstance(end, Revoked)
    if isinstance(end, Failed):
        assert classify(end) is Signal.FAILURE
    elif isinstance(end, Completed):
        assert classify(end) is Signal.SUCCESS
    elif not isinstance(end, Refused | StreamError):
        assert classify(end) is Signal.NEUTRAL


@pytest.mark.parametrize("outcome", [*EVERY, "something_new"])
def test_alerts_and_prometheus_and_statistics_read_the_same_row(outcome: str) -> None:
    row = class_of(outcome)
    assert failed(outcome) is row.alerts
    assert (re.fullmatch(HARMLESS_PATTERN, outcome) is None) is row.alerts
    assert (outcome not in NO_ERRORS) is row.statistics
    assert (outcome in LEFT) is row.left
    assert REJECTED.get(outcome, "") == row.queue


@pytest.mark.parametrize("row", CLASSES, ids=lambda row: row.outcome)
def test_columns_do_not_contradict_each_other(row: FailureClass) -> None:
    assert row.statistics or not row.alerts, "whoever was answered was not failed"
    assert not (row.left and row.statistics)
    if row.breaker is Signal.SUCCESS:
        assert not row.statistics
    if row.breaker in (Signal.FAILURE, Signal.SOFT_FAILURE):
        assert row.alerts, "what shuts a server out is worth a word"
    else:
        assert row.sort is FailureKind.OTHER or row.breaker == "ground"


@pytest.mark.parametrize(
    ("outcome", "statistics", "alerts", "left"),
    [
        ("completed", False, False, False),
        ("incomplete", False, False, False),
        ("client_left", False, False, True),
        ("client_stalled", False, False, True),
        ("model_not_found", True, False, False),
        ("route_missing", True, False, False),
        ("queue_cancelled", True, False, False),
        ("request_cancelled", True, False, False),
        ("shutting_down", True, False, False),
        ("refused_400", True, False, False),
        ("refused_429", True, True, False),
        ("refused_4xx", True, False, False),
        ("refused_500", True, True, False),
        ("refused_5xx", True, True, False),
        ("revoked", True, True, False),
        ("queue_full", True, True, False),
        ("no_server", True, True, False),
        ("internal_error", True, True, False),
        ("something_new", True, True, False),
    ],
)
def test_who_counts_what(outcome: str, statistics: bool, alerts: bool, left: bool) -> None:
    row = class_of(outcome)
    assert (row.statistics, row.alerts, row.left) == (statistics, alerts, left)


def test_an_endpoint_that_no_server_has_is_no_failure_as_the_same_404_of_a_server_is_none() -> None:
    assert failed("refused_404") is failed("route_missing") is failed("model_not_found") is False


@pytest.mark.parametrize(
    ("outcome", "sort"),
    [
        ("refused_500", FailureKind.CRASH),
        ("stream_error", FailureKind.CRASH),
        ("refused_502", FailureKind.TRANSIENT),
        ("refused_503", FailureKind.TRANSIENT),
        ("refused_504", FailureKind.TRANSIENT),
        ("idle_timeout", FailureKind.TRANSIENT),
        ("refused_429", FailureKind.OVERLOAD),
        ("refused_501", FailureKind.OTHER),
        ("refused_418", FailureKind.OTHER),
        ("bad_answer", FailureKind.OTHER),
        ("something_new", FailureKind.OTHER),
    ],
)
def test_what_sort_of_failure_the_threshold_takes_it_for(outcome: str, sort: FailureKind) -> None:
    assert class_of(outcome).sort is sort


def test_every_ground_has_its_weight_and_a_conviction_is_never_milder() -> None:
    order = [Signal.NEUTRAL, Signal.SOFT_FAILURE, Signal.FAILURE]
    assert set(GROUNDS) == set(Ground)
    for weight in GROUNDS.values():
        assert order.index(weight.alone) <= order.index(weight.convicted)


BUSY = "server busy, please try again.  maximum pending requests exceeded"


@pytest.mark.parametrize("end", [Refused(429), Refused(429, "x", ours=False), Refused(503, BUSY)])
def test_who_has_enough_to_do_has_not_failed_whoever_else_answers(end: Refused) -> None:
    assert end.busy
    assert classify(end) is convict(end) is Signal.NEUTRAL


@pytest.mark.parametrize("end", [Refused(503, "down"), Refused(500, BUSY), Refused(408), Refused(425), Refused(502)])
def test_only_those_who_say_so_have_enough_to_do(end: Refused) -> None:
    assert not end.busy
