"""Rate limits: equal to a naive model, never more than promised in any window, bounded whatever comes."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.security.rate_limit import MINUTE, SECOND, Budgets, Limiter, per_minute

EPOCH = 1_700_000_000 * SECOND
LIMITS = (1, 2, 3, 7, 59, 60, 61, 100, 1_000, 999_983, 1_000_000)
STEPS = st.one_of(
    st.integers(0, 3),
    st.integers(0, SECOND),
    st.integers(0, 3 * MINUTE),
    st.sampled_from([SECOND - 1, SECOND, SECOND + 1, MINUTE - 1, MINUTE, MINUTE + 1]),
)
ARRIVALS = st.lists(st.tuples(STEPS, st.sampled_from("ab")), min_size=1, max_size=150)


class Naive:
    """A bucket of `limit` tokens that fills evenly, in exact fractions."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.interval = per_minute(limit).interval
        self.tokens = Fraction(limit)
        self.at = 0

    def ask(self, now: int) -> tuple[bool, int, Fraction, Fraction]:
        """Allowed, tokens left, nanoseconds until it is full, nanoseconds until the next one."""
        self.tokens = min(Fraction(self.limit), self.tokens + Fraction(now - self.at, self.interval))
        self.at = now
        allowed = self.tokens >= 1
        if allowed:
            self.tokens -= 1
        wait = 0 if allowed else (1 - self.tokens) * self.interval
        return allowed, int(self.tokens), (self.limit - self.tokens) * self.interval, Fraction(wait)


@pytest.mark.parametrize("limit", LIMITS)
def test_a_rate_is_never_more_than_its_limit(limit: int) -> None:
    rate = per_minute(limit)
    assert rate.burst == rate.interval * limit >= MINUTE
    assert rate.burst - MINUTE < limit


def test_sixty_at_once_and_then_one_a_second() -> None:
    budgets, rate = Budgets(), per_minute(60)
    told = [budgets.ask("a", rate, 5, EPOCH) for _ in range(62)]
    assert [each.allowed for each in told] == [True] * 60 + [False] * 2
    assert [each.remaining for each in told] == [*range(59, -1, -1), 0, 0]
    assert {each.limit for each in told} == {60}
    resets = [each.reset_epoch_seconds - EPOCH // SECOND for each in told]
    assert resets == [*range(1, 61), 60, 60]
    assert [each.retry_after for each in told] == [0.0] * 60 + [1.0] * 2
    assert not budgets.ask("a", rate, 4 + SECOND, EPOCH + SECOND - 1).allowed
    assert budgets.ask("a", rate, 5 + SECOND, EPOCH + SECOND).allowed
    assert not budgets.ask("a", rate, 5 + SECOND, EPOCH + SECOND).allowed
    after = budgets.ask("a", rate, 5 + 61 * SECOND, EPOCH + 61 * SECOND)
    assert (after.allowed, after.remaining) == (True, 59)


@given(st.sampled_from(LIMITS[:8]), ARRIVALS)
def test_it_equals_a_naive_bucket(limit: int, arrivals: Sequence[tuple[int, str]]) -> None:
    budgets, rate = Budgets(), per_minute(limit)
    models = {name: Naive(limit) for name in "ab"}
    now = 0
    for step, client in arrivals:
        now += step
        verdict = budgets.ask(client, rate, now, EPOCH + now)
        allowed, remaining, full, wait = models[client].ask(now)
        assert (verdict.allowed, verdict.remaining, verdict.limit) == (allowed, remaining, limit)
        assert verdict.reset_epoch_seconds == -((-EPOCH - now - full) // SECOND)
        assert verdict.retry_after == float(wait / SECOND)
    assert len(budgets) <= 4


@given(st.sampled_from(LIMITS[:8]), st.lists(STEPS, min_size=1, max_size=250))
def test_no_window_has_more_than_the_limit_and_what_came_back(limit: int, steps: Sequence[int]) -> None:
    budgets, rate = Budgets(), per_minute(limit)
    now, passed = 0, []
    for step in steps:
        now += step
        if budgets.ask("a", rate, now, now).allowed:
            passed.append(now)
    for first, begin in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first + 1 <= limit + (passed[last] - begin) * limit // MINUTE


def test_a_refused_request_costs_nothing_and_clients_do_not_share() -> None:
    budgets, rate = Budgets(), per_minute(1)
    assert budgets.ask("a", rate, 0, EPOCH).allowed
    for second in range(1, 60):
        refused = budgets.ask("a", rate, second * SECOND, EPOCH + second * SECOND)
        assert (refused.allowed, refused.retry_after) == (False, 60.0 - second)
    assert budgets.ask("b", rate, 59 * SECOND, EPOCH).allowed
    assert budgets.ask("a", rate, 60 * SECOND, EPOCH).allowed


def test_another_limit_holds_at_once_and_keeps_the_part_that_is_used() -> None:
    budgets = Budgets()
    for _ in range(30):
        assert budgets.ask("a", per_minute(60), 0, EPOCH).allowed
    assert budgets.ask("a", per_minute(10), 0, EPOCH).remaining == 4
    assert budgets.ask("a", per_minute(600), 0, EPOCH).remaining == 239
    assert not budgets.ask("a", per_minute(1), 0, EPOCH).allowed


def test_a_million_clients_take_no_more_room_than_the_table_has() -> None:
    budgets, rate = Budgets(1_000), per_minute(60)
    most = 0
    for client in range(1_000_000):
        assert budgets.ask(client, rate, client * 1_000, EPOCH).allowed
        if client % 97 == 0:
            most = max(most, len(budgets))
    assert 900 <= most <= 1_000


def test_clients_of_long_ago_are_forgotten() -> None:
    budgets, rate = Budgets(), per_minute(60)
    for client in range(100):
        budgets.ask(client, rate, 0, EPOCH)
    budgets.ask("a", rate, 61 * SECOND, EPOCH)
    assert len(budgets) == 101
    budgets.ask("a", rate, 122 * SECOND, EPOCH)
    assert len(budgets) == 2
    budgets.ask("b", rate, 600 * SECOND, EPOCH)
    assert len(budgets) == 1


def test_no_fewer_addresses_than_half_a_table_win_a_budget_back() -> None:
    budgets, rate = Budgets(1_000), per_minute(1)
    assert budgets.ask("mine", rate, 0, EPOCH).allowed
    for other in range(999):
        budgets.ask(other, rate, 1, EPOCH)
        assert not budgets.ask("mine", rate, 1, EPOCH).allowed
    budgets.ask("the last straw", rate, 1, EPOCH)
    assert budgets.ask("mine", rate, 1, EPOCH).allowed


def test_no_crowd_of_addresses_makes_a_key_be_forgotten() -> None:
    limiter, rate = Limiter(100), per_minute(1)
    assert limiter.keys.ask("ci", rate, 0, EPOCH).allowed
    for address in range(1_000):
        limiter.addresses.ask(address, rate, 1, EPOCH)
    assert limiter.addresses.ask("ci", rate, 1, EPOCH).allowed
    assert not limiter.keys.ask("ci", rate, 1, EPOCH).allowed
