"""The book of failures and recoveries: what it keeps, counts, forgets, and what it makes of it."""

from __future__ import annotations

import math

import pytest

from fleet.breakers.recovery_log import (
    ERROR_TYPES,
    LONGEST_ERROR,
    MOST_ATTEMPTS,
    MOST_MOVES,
    Failure,
    RecoveryLog,
    ServerLog,
    clean,
    error_type,
)
from fleet.breakers.recovery_reports import (
    HOUR,
    Pattern,
    Trend,
    analyse,
    impact_of,
    latest,
    pattern_of,
    relapses,
    since,
    summarise,
)
from fleet.breakers.values import Why
from fleet.common.ids import ANY_MODEL, ModelName, Pair, ServerId
from tests.fleet.breakers.recoveries import CLOSED, HALF, OPEN, PROBE, S1, S2, TEST, TRIAL, TYPES, A

ITSELF = Pair(S1, ANY_MODEL)
B = Pair(S1, ModelName("qwen3:4b"))
DEAD = Failure("connection_refused", "nobody listens")


def probes(text: str, start: float = 0.0, gap: float = 1.0) -> ServerLog:
    """The page after probes that succeeded (`o`) or failed (`x`)."""
    book = RecoveryLog()
    for n, letter in enumerate(text):
        book.attempt(ITSELF, PROBE, start + n * gap, failure=None if letter == "o" else DEAD)
    return book.page(S1)


@pytest.mark.parametrize(("kind", "expected"), TYPES)
def test_the_type_of_an_error_comes_from_its_fixed_word(kind: str, expected: str) -> None:
    assert error_type(kind) == expected
    assert expected in ERROR_TYPES


TEXTS = [
    ("plain", "plain"),
    ("two\nlines\r\n\tand\x00 a\x1b[31m zero", "two lines and a [31m zero"),
    ("", ""),
    ("x" * 200, "x" * 200),
    ("x" * 201, "x" * 199 + "…"),
    ("x" * 10_000_000, "x" * 199 + "…"),
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_error_texts_become_one_short_line(text: str, expected: str) -> None:
    assert clean(text) == expected
    assert len(clean(text)) <= LONGEST_ERROR


def test_an_attempt_is_kept_with_all_that_is_known_of_it() -> None:
    book = RecoveryLog()
    book.attempt(ITSELF, PROBE, 1.0, failure=DEAD)
    book.attempt(A, TRIAL, 2.0, state=HALF, failure=Failure("refused_503", ""))
    book.attempt(A, TRIAL, 3.0, state=HALF)
    first, second, third = book.page(S1).attempts
    assert (first.at, first.model, first.source, first.number, first.in_a_row) == (1.0, "", PROBE, 1, 1)
    assert (first.error, first.type, first.state) == ("nobody listens", "connection_refused", CLOSED)
    assert (second.model, second.number, second.in_a_row, second.state) == (A.model, 2, 2, HALF)
    assert (second.error, second.type) == ("refused_503", "server_error")
    assert (third.ok, third.number, third.in_a_row, third.error, third.type) == (True, 3, 0, "", "")


def test_totals_and_means_of_one_server() -> None:
    page = probes("xxoxo", start=10.0, gap=5.0)
    assert (page.tried, page.succeeded, page.failed, page.in_a_row) == (5, 2, 3, 0)
    assert (page.first_failure, page.last_failure, page.last_success, page.tried_at) == (10.0, 25.0, 30.0, 30.0)
    assert (page.failure_rate, page.mean_gap) == (0.6, 7.5)
    assert [attempt.at for attempt in page.failures] == [25.0, 15.0, 10.0]


def test_a_server_that_nothing_happened_to_is_all_zeros_and_asking_makes_no_page() -> None:
    book = RecoveryLog()
    page = book.page(S1)
    assert (page.tried, page.failed, page.in_a_row, page.failure_rate, page.mean_gap, page.moved) == (0,) * 6
    assert (page.first_failure, page.last_error, page.open_reason) == (None, None, None)
    assert (pattern_of(page, -math.inf), len(book)) == (Pattern.STABLE, 0)
    assert not book.forget(S1)


def test_recovery_tests_are_attempts_and_are_counted_apart() -> None:
    book = RecoveryLog()
    book.tested(A, 1.0, 0.25)
    book.tested(A, 2.0, 0.75, failure=Failure("bad_answer", "answered 500"))
    book.tested(A, 5.0, 3.0, failure=Failure("first_byte_timeout"))
    book.cancelled(S1)
    page = book.page(S1)
    results = page.tests
    assert (results.passed, results.failed, results.timed_out, results.cancelled) == (1, 1, 1, 1)
    assert (results.ended, results.seconds) == (3, 4.0)
    assert [(each.source, each.ok, each.type) for each in page.attempts] == [
        (TEST, True, ""),
        (TEST, False, "server_error"),
        (TEST, False, "timeout"),
    ]
    assert page.tried == 3  # what was given up proves nothing


def test_moves_of_breakers_add_up() -> None:
    book = RecoveryLog()
    book.moved(A, CLOSED, OPEN, Why.STRIKES.value, 10.0, 4.0)
    book.moved(A, OPEN, HALF, Why.WAITED.value, 130.0, 120.0)
    book.moved(A, HALF, OPEN, Why.TRIAL_FAILED.value, 131.0, 1.0)
    book.moved(A, OPEN, CLOSED, "reset", 191.0, 60.0)
    page = book.page(S1)
    assert (page.moved, page.opened, page.closed, page.left_open, page.open_seconds) == (4, 2, 1, 2, 180.0)
    assert (page.moved_at, page.open_reason) == (191.0, Why.TRIAL_FAILED.value)
    seen = impact_of(page, 0)
    assert (seen.impacted, seen.moves, seen.openings, seen.per_closing, seen.mean_open) == (False, 4, 2, 2.0, 90.0)
    assert impact_of(page, 1).impacted
    book.moved(B, CLOSED, OPEN, "forced by ada", 200.0, 0.0)
    seen = impact_of(page, 0)
    assert seen.impacted
    assert "Breakers opened 3 times, lately for 2 models." in seen.advice


def test_nothing_moved_is_no_impact() -> None:
    seen = impact_of(RecoveryLog().page(S1), 0)
    assert (seen.impacted, seen.per_closing, seen.mean_open) == (False, 0.0, 0.0)
    assert seen.advice == ("No breaker of this server has moved.",)


PATTERNS = [
    # outcomes in order, pattern
    ("", Pattern.STABLE),
    ("xx", Pattern.STABLE),  # too few to tell
    ("xxx", Pattern.INTERMITTENT),
    ("xxxx", Pattern.INTERMITTENT),
    ("xxxxx", Pattern.PERSISTENT),
    ("oxxxxx", Pattern.PERSISTENT),
    ("xxxxxo", Pattern.INTERMITTENT),
    ("xoxoxo", Pattern.INTERMITTENT),  # two relapses
    ("xoxoxox", Pattern.FLAPPING),
    ("oooo", Pattern.FLAPPING),  # up again at once, four times
    ("ooo", Pattern.STABLE),
    ("oooo" + "x" * 16, Pattern.PERSISTENT),
    ("xo" * 9 + "xxxxx", Pattern.PERSISTENT),
]


@pytest.mark.parametrize(("outcomes", "expected"), PATTERNS)
def test_patterns(outcomes: str, expected: Pattern) -> None:
    assert pattern_of(probes(outcomes), -math.inf) is expected


def test_a_pattern_looks_at_the_last_twenty_attempts_only() -> None:
    book = RecoveryLog()
    for n in range(30):
        book.attempt(A, TRIAL, float(n), state=HALF, failure=DEAD if n < 10 else None)
    assert pattern_of(book.page(S1), -math.inf) is Pattern.STABLE
    assert pattern_of(book.page(S1), 27.5) is Pattern.STABLE
    book.attempt(A, TRIAL, 30.0, state=HALF, failure=DEAD)
    assert pattern_of(book.page(S1), -math.inf) is Pattern.INTERMITTENT


def cycle(book: RecoveryLog, pair: Pair, at: float, why: str) -> None:
    """A breaker opens, half-opens, and two trials close it."""
    book.moved(pair, CLOSED, OPEN, why, at, 1.0)
    book.moved(pair, OPEN, HALF, Why.WAITED.value, at + 1, 1.0)
    for _ in range(2):
        book.attempt(pair, TRIAL, at + 2, state=HALF)
    book.moved(pair, HALF, CLOSED, Why.RECOVERED.value, at + 2, 1.0)


@pytest.mark.parametrize(
    ("why", "expected"), [(Why.STRIKES.value, Pattern.FLAPPING), ("forced by ada", Pattern.STABLE)]
)
def test_a_model_that_recovers_and_fails_anew_flaps_though_every_trial_passes(why: str, expected: Pattern) -> None:
    book = RecoveryLog()
    for n in range(4):
        cycle(book, A, 10.0 * n, why)
    page = book.page(S1)
    assert pattern_of(page, -math.inf) is expected
    assert relapses(since(page, -math.inf), page.moves) == (3 if expected is Pattern.FLAPPING else 0)


def test_relapses_before_the_last_twenty_attempts_are_old_news() -> None:
    book = RecoveryLog()
    for n in range(4):
        cycle(book, A, 10.0 * n, Why.STRIKES.value)
    for n in range(20):
        book.attempt(A, TRIAL, 100.0 + n, state=HALF)
    assert pattern_of(book.page(S1), -math.inf) is Pattern.STABLE


def test_a_window_begins_just_after_its_start() -> None:
    page = probes("xxx", start=10.0, gap=10.0)
    assert [attempt.at for attempt in since(page, 10.0)] == [20.0, 30.0]
    seen = analyse(page, 30.0, 10.0)
    assert (seen.failures, seen.before) == (1, 1)
    assert summarise({S1: page}, 30.0, 20.0).failures == 2


def test_models_relapse_each_for_itself() -> None:
    book = RecoveryLog()
    for pair, at in ((A, 0.0), (B, 10.0)):
        cycle(book, pair, at, Why.STRIKES.value)
    page = book.page(S1)
    assert relapses(since(page, -math.inf), page.moves) == 0


TRENDS = [
    # failures in the window before, failures in the window, trend
    (0, 0, Trend.STABLE),
    (0, 1, Trend.WORSENING),
    (4, 6, Trend.STABLE),
    (10, 15, Trend.STABLE),
    (10, 16, Trend.WORSENING),
    (4, 2, Trend.STABLE),
    (4, 1, Trend.IMPROVING),
    (1, 0, Trend.IMPROVING),
]


@pytest.mark.parametrize(("before", "now", "expected"), TRENDS)
def test_the_trend_compares_with_the_window_before(before: int, now: int, expected: Trend) -> None:
    book = RecoveryLog()
    for n in range(before):
        book.attempt(ITSELF, PROBE, 100.0 + n, failure=DEAD)
    for n in range(now):
        book.attempt(ITSELF, PROBE, 200.0 + n, failure=DEAD)
    seen = analyse(book.page(S1), 250.0, 100.0)
    assert (seen.trend, seen.before, seen.failures, seen.attempts) == (expected, before, now, now)
    assert seen.confidence == now / (now + 5)


def test_a_window_that_is_partly_forgotten_is_scaled_up() -> None:
    """Steady failures stay a steady trend, though the ring holds only one and a half windows of them."""
    page = probes("x" * 2 * MOST_ATTEMPTS)
    window = MOST_ATTEMPTS / 1.5
    seen = analyse(page, 2.0 * MOST_ATTEMPTS, window)
    assert seen.before == pytest.approx(window, rel=0.02)
    assert seen.trend is Trend.STABLE


def test_advice_follows_pattern_and_errors() -> None:
    seen = analyse(probes("x" * 6), 6.0, HOUR)
    assert (seen.pattern, seen.trend, seen.types) == (Pattern.PERSISTENT, Trend.WORSENING, {"connection_refused": 6})
    assert len(seen.advice) == 3
    assert "Nothing listens there" in seen.advice[1]
    assert analyse(ServerLog(), 6.0, HOUR).advice == ("Nothing was tried in this window.",)
    assert analyse(ServerLog(), 6.0, HOUR).confidence == 0.0


def test_the_summary_counts_a_window_over_all_servers() -> None:
    book = RecoveryLog()
    for n in range(6):
        book.attempt(Pair(S2, ANY_MODEL), PROBE, 100.0 + n, failure=DEAD)
    book.attempt(ITSELF, PROBE, 50.0, failure=DEAD)
    book.attempt(ITSELF, PROBE, 101.0, failure=Failure("first_byte_timeout"))
    book.attempt(ITSELF, PROBE, 102.0)
    quiet = ServerId("s3")
    pages = {server: book.page(server) for server in (S1, S2, quiet)}
    seen = summarise(pages, 110.0, 20.0)
    assert (seen.servers, seen.failing, seen.persistent, seen.attempts, seen.failures) == (3, 2, 1, 8, 7)
    assert (seen.top, seen.types, seen.complete) == (((S2, 6), (S1, 1)), {"connection_refused": 6, "timeout": 1}, True)
    assert summarise(pages, 110.0, 100.0).failures == 8


def test_the_summary_says_when_the_rings_are_too_short_for_its_window() -> None:
    page = probes("x" * (MOST_ATTEMPTS + 10))
    now = float(MOST_ATTEMPTS + 10)
    assert summarise({S1: page}, now, float(MOST_ATTEMPTS)).complete
    assert not summarise({S1: page}, now, MOST_ATTEMPTS + 2.0).complete


def test_at_most_ten_servers_are_named_as_failing_most() -> None:
    book = RecoveryLog()
    names = [ServerId(f"s{n}") for n in range(15)]
    for n, server in enumerate(names):
        for _ in range(n + 1):
            book.attempt(Pair(server, ANY_MODEL), PROBE, 1.0, failure=DEAD)
    seen = summarise({server: book.page(server) for server in names}, 2.0, HOUR)
    assert [count for _, count in seen.top] == list(range(15, 5, -1))


def test_the_latest_failures_of_several_servers_come_in_order() -> None:
    book = RecoveryLog()
    for n in range(10):
        server = S1 if n % 3 else S2
        book.attempt(Pair(server, ANY_MODEL), PROBE, float(n), failure=None if n == 7 else DEAD)
    pages = [book.page(S1), book.page(S2)]
    assert [each.at for each in latest(pages, 4)] == [9.0, 8.0, 6.0, 5.0]
    assert len(latest(pages, 100)) == 9


def test_the_book_forgets_the_server_that_was_quiet_longest_when_it_is_full() -> None:
    book = RecoveryLog(most=2)
    names = [ServerId(name) for name in "abc"]
    for server in names[:2]:
        book.attempt(Pair(server, ANY_MODEL), PROBE, 1.0)
    book.cancelled(names[0])
    book.attempt(Pair(names[2], ANY_MODEL), PROBE, 2.0)
    assert len(book) == 2
    assert [book.page(server).tried for server in names] == [1, 0, 1]


def test_a_forgotten_server_starts_anew() -> None:
    book = RecoveryLog()
    book.attempt(ITSELF, PROBE, 1.0, failure=DEAD)
    assert book.forget(S1)
    book.attempt(ITSELF, PROBE, 2.0, failure=DEAD)
    assert (book.page(S1).tried, book.page(S1).first_failure) == (1, 2.0)


def test_rings_are_bounded_and_totals_go_on() -> None:
    book = RecoveryLog()
    for n in range(3 * MOST_ATTEMPTS):
        book.attempt(ITSELF, PROBE, float(n), failure=DEAD)
        book.moved(A, CLOSED, OPEN, f"no. {n}", float(n), 1.0)
    page = book.page(S1)
    assert (len(page.attempts), len(page.moves)) == (MOST_ATTEMPTS, MOST_MOVES)
    assert (page.tried, page.moved) == (3 * MOST_ATTEMPTS,) * 2
    assert page.attempts[0].number == 2 * MOST_ATTEMPTS + 1
    assert page.lost_at == page.attempts[0].at - 1.0
    assert len({id(attempt.error) for attempt in page.attempts}) == 1  # one text for the whole run
