"""Bans and cooldowns: who is kept away, until when, and what ends it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.common.ids import ModelName, Pair, ServerId
from fleet.scheduling.bans import BanKind, Bans

A = Pair(ServerId("s1"), ModelName("llama3:8b"))
B = Pair(ServerId("s1"), ModelName("llama3:70b"))
C = Pair(ServerId("s2:11434"), ModelName("llama3:8b"))


def bans_of(*pairs: Pair) -> Bans:
    bans = Bans()
    for at, pair in enumerate(pairs):
        assert bans.add(pair, "test", float(at))
    return bans


def test_a_ban_holds_until_lifted() -> None:
    bans = bans_of(A)
    (ban,) = bans.list(1e9)
    assert (ban.kind, ban.reason, ban.expires_at) == (BanKind.BAN, "test", math.inf)
    assert bans.next_expiry() == math.inf
    assert bans.lift(A) == (A,)
    assert bans.list(0.0) == ()
    assert bans.lift(A) == ()


def test_a_cooldown_ends_by_itself_at_its_time() -> None:
    bans = Bans()
    bans.add(A, "connect_timeout", 10.0, kind=BanKind.COOLDOWN, until=20.0)
    assert [ban.pair for ban in bans.list(19.9)] == [A]
    assert bans.list(20.0) == ()
    assert bans.next_expiry() == 20.0
    assert bans.expire(19.9) == ()
    assert bans.expire(20.0) == (A,)
    assert (len(bans), bans.next_expiry()) == (0, math.inf)


def test_a_cooldown_neither_hides_nor_ends_a_ban() -> None:
    bans = bans_of(A)
    bans.add(A, "refused_503", 1.0, kind=BanKind.COOLDOWN, until=2.0)
    assert [ban.kind for ban in bans.list(1.5)] == [BanKind.BAN, BanKind.COOLDOWN]
    assert bans.expire(5.0) == (A,)
    assert [ban.kind for ban in bans.list(5.0)] == [BanKind.BAN]


def test_a_newer_cooldown_replaces_the_older_one() -> None:
    bans = Bans()
    bans.add(A, "first", 0.0, kind=BanKind.COOLDOWN, until=10.0)
    bans.add(A, "second", 5.0, kind=BanKind.COOLDOWN, until=15.0)
    assert bans.next_expiry() == 15.0
    assert bans.expire(10.0) == ()
    assert [ban.reason for ban in bans.list(10.0)] == ["second"]


@pytest.mark.parametrize(
    ("lift", "gone"),
    [
        (lambda bans: bans.lift_server(A.server), {A, B}),
        (lambda bans: bans.clear(), {A, B, C}),
        (lambda bans: bans.clear(BanKind.COOLDOWN), set()),
        (lambda bans: bans.lift_server(ServerId("s2")), set()),
    ],
)
def test_lifting_goes_by_whole_names(lift, gone) -> None:  # type: ignore[no-untyped-def]  # a table of lambdas
    bans = bans_of(A, B, C)
    assert set(lift(bans)) == gone
    assert {ban.pair for ban in bans.list(0.0)} == {A, B, C} - gone


def test_lists_are_in_the_order_of_banning() -> None:
    assert [ban.pair for ban in bans_of(C, A, B).list(9.0)] == [C, A, B]


def test_when_full_cooldowns_go_first_and_bans_are_never_forgotten() -> None:
    bans = Bans(limit=2)
    assert bans.add(A, "short", 0.0, kind=BanKind.COOLDOWN, until=5.0)
    assert bans.add(B, "long", 0.0, kind=BanKind.COOLDOWN, until=50.0)
    assert bans.add(C, "operator", 1.0)
    assert {ban.pair for ban in bans.list(1.0)} == {B, C}
    assert bans.add(A, "operator", 60.0)
    assert not bans.add(B, "operator", 61.0)
    assert bans.add(A, "operator again", 62.0)
    assert len(bans) == 2


def test_the_book_of_expiries_does_not_grow_with_renewals() -> None:
    bans = Bans()
    for now in range(5_000):
        bans.add(A, "again", float(now), kind=BanKind.COOLDOWN, until=now + 120.0)
    assert len(bans._expiries) < 200


def test_who_banned_is_kept() -> None:
    bans = Bans()
    bans.add(A, "smells", 1.0, by="alice")
    bans.add(B, "no such model", 1.0, kind=BanKind.COOLDOWN, until=9.0)
    assert [ban.by for ban in bans.list(2.0)] == ["alice", ""]


def test_one_pair_is_asked_for_by_kind_and_only_while_it_holds() -> None:
    bans = Bans()
    bans.add(A, "slow", 0.0, kind=BanKind.COOLDOWN, until=5.0)
    assert bans.get(A, BanKind.BAN, 1.0) is None
    found = bans.get(A, BanKind.COOLDOWN, 1.0)
    assert found is not None
    assert found.reason == "slow"
    assert bans.get(A, BanKind.COOLDOWN, 5.0) is None


LIFTS = [
    # server, model, kind, what is gone
    (None, None, None, {(A, "ban"), (A, "cooldown"), (B, "ban"), (C, "ban")}),
    (A.server, None, None, {(A, "ban"), (A, "cooldown"), (B, "ban")}),
    (None, A.model, None, {(A, "ban"), (A, "cooldown"), (C, "ban")}),
    (None, A.model, BanKind.BAN, {(A, "ban"), (C, "ban")}),
    (A.server, A.model, BanKind.COOLDOWN, {(A, "cooldown")}),
    (C.server, B.model, None, set()),
    (ServerId("nobody"), None, None, set()),
    (None, ModelName(""), None, set()),
]


@pytest.mark.parametrize(("server", "model", "kind", "gone"), LIFTS)
def test_one_call_lifts_by_server_model_and_kind(
    server: ServerId | None, model: ModelName | None, kind: BanKind | None, gone: set[tuple[Pair, str]]
) -> None:
    bans = bans_of(A, B, C)
    bans.add(A, "slow", 0.0, kind=BanKind.COOLDOWN, until=50.0)
    everything = {(ban.pair, ban.kind.value) for ban in bans.list(1.0)}
    assert {(ban.pair, ban.kind.value) for ban in bans.lift_matching(server, model, kind)} == gone
    assert {(ban.pair, ban.kind.value) for ban in bans.list(1.0)} == everything - gone


PAIRS = [Pair(ServerId(server), ModelName(model)) for server in ("a", "b") for model in ("m:1", "m:2")]
KINDS = st.sampled_from(list(BanKind))
STEPS = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(PAIRS), KINDS, st.one_of(st.just(math.inf), st.floats(0.1, 9.0))),
    st.tuples(st.just("lift"), st.sampled_from([*PAIRS, None]), st.one_of(st.none(), KINDS), st.booleans()),
    st.tuples(st.just("expire"), st.none(), st.none(), st.none()),
)


@given(st.lists(STEPS, max_size=40), st.integers(1, 6))
def test_what_a_server_is_kept_away_from_is_what_the_list_says(steps: list[tuple[Any, ...]], limit: int) -> None:
    bans, now = Bans(limit=limit), 0.0
    for what, pair, kind, more in steps:
        now += 1.0
        if what == "add":
            bans.add(pair, "test", now, kind=kind, until=now + more)
        elif what == "lift":
            bans.lift_matching(pair.server if pair else None, pair.model if pair and more else None, kind)
        else:
            bans.expire(now)
        assert len(bans) <= limit
        for server in (ServerId("a"), ServerId("b")):
            assert bans.barred(server, now) == {ban.pair.model for ban in bans.list(now) if ban.pair.server == server}
    bans.clear()
    assert not bans._by_server
