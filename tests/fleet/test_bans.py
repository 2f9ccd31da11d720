"""Bans and cooldowns: who is kept away, until when, and what ends it."""

from __future__ import annotations

import math

import pytest

from fleet.bans import BanKind, Bans
from fleet.ids import ModelName, Pair, ServerId

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
