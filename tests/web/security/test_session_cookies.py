"""Passes: signed, bound to a key, bounded in time and number, and good after a restart where there is a store."""

from __future__ import annotations

import string
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import URLSafeSerializer

from actors.storage.journal import Document, Journal
from fleet.security.api_keys import KeyRing, StoredKey, digest_of, ring_with
from fleet.security.roles import Identity, Role
from web.security import session_cookies
from web.security.session_cookies import LIFE, SessionCookies, cookie, shown

KEY = "a-key-0123456789"
RING = KeyRing([(digest_of(KEY), Identity("ops", Role.OPERATOR))])


class Day:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def issued(made: SessionCookies, ring: KeyRing = RING) -> str:
    found = made.issue(KEY, ring)
    assert found is not None
    return found[0]


def restarted(before: Journal, day: Day) -> SessionCookies:
    """Passes of the next process, which finds what this one has kept."""
    source = before.sources[session_cookies.KIND]
    keys = {key for kind, key in before.touched if kind == session_cookies.KIND}
    kept: Mapping[str, Document] = {key: found for key in keys if (found := source(key)) is not None}
    return SessionCookies(Journal({session_cookies.KIND: dict(kept)}), day)


def kept() -> Journal:
    journal = Journal()
    journal.attached = True
    return journal


def test_a_pass_is_good_until_it_ends_by_itself() -> None:
    day = Day()
    made = SessionCookies(Journal(), day)
    token = issued(made)
    assert made.find(token, RING) == Identity("ops", Role.OPERATOR)
    day.now += LIFE - 1
    assert made.find(token, RING) is not None
    day.now += 2
    assert made.find(token, RING) is None


def test_it_is_good_after_a_restart_and_one_that_was_ended_is_not() -> None:
    day, journal = Day(), kept()
    made = SessionCookies(journal, day)
    good, ended = issued(made), issued(made)
    made.end(ended)
    later = restarted(journal, day)
    assert later.find(good, RING) is not None
    assert later.find(ended, RING) is None


def test_without_a_store_it_ends_with_the_process() -> None:
    token = issued(SessionCookies(Journal(), Day()))
    assert SessionCookies(Journal(), Day()).find(token, RING) is None


@pytest.mark.parametrize("secret", ["", "00", "zz" * 32, None, 7])
@pytest.mark.filterwarnings("ignore")
def test_a_store_that_was_tampered_with_means_a_new_secret(secret: object) -> None:
    made = SessionCookies(Journal({session_cookies.KIND: {"secret": {"secret": secret}}}), Day())
    assert made.find(issued(made), RING) is not None


def test_a_key_that_is_removed_changed_or_revoked_takes_its_passes_along() -> None:
    made = SessionCookies(Journal(), Day())
    token = issued(made)
    other = digest_of("another-key-0123456789")
    assert made.find(token, KeyRing([])) is None
    assert made.find(token, KeyRing([(other, Identity("ops", Role.ADMIN))])) is None
    assert made.find(token, KeyRing([(digest_of(KEY), Identity("renamed", Role.ADMIN))])) is None
    revoked = StoredKey("ops", Role.OPERATOR, digest_of(KEY), revoked="2026-01-01T00:00:00Z")
    assert made.find(token, ring_with([(digest_of(KEY), Identity("ops", Role.OPERATOR))], [revoked])) is None
    assert made.find(token, KeyRing([(digest_of(KEY), Identity("ops", Role.ADMIN))])) == Identity("ops", Role.ADMIN)
    both = KeyRing([(other, Identity("ops", Role.ADMIN)), (digest_of(KEY), Identity("ops", Role.CLIENT))])
    assert made.find(token, both) == Identity("ops", Role.CLIENT)


@given(st.integers(min_value=0), st.sampled_from(string.ascii_letters + string.digits + "._-"))
def test_one_letter_changed_makes_it_none_of_ours(at: int, letter: str) -> None:
    token = issued(MADE)
    at %= len(token)
    changed = token[:at] + letter + token[at + 1 :]
    if changed != token and at != len(token) - 1:  # the last letter carries bits that mean nothing
        assert MADE.find(changed, RING) is None


MADE = SessionCookies(Journal(), Day())


@given(st.text(max_size=2000))
def test_no_text_is_a_pass_and_none_does_harm(text: str) -> None:
    assert MADE.find(text, RING) is None
    assert shown(MADE, ((b"cookie", f"fleet_pass={text}".encode()),), RING) is None
    MADE.end(text)


@pytest.mark.parametrize(
    "payload", [None, 7, {}, [], ["ops"], ["ops", "x", "y", "z"], ["ops", 1, 2, 1e99], [[], {}, [], 1e99]]
)
def test_what_another_version_may_have_signed_is_no_pass(payload: object) -> None:
    made = SessionCookies(Journal(), Day())
    signer: URLSafeSerializer = made._signer()
    assert made.find(signer.dumps(payload), RING) is None


def test_more_log_outs_than_are_remembered_end_every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_cookies, "MOST_ENDED", 3)
    day, journal = Day(), kept()
    made = SessionCookies(journal, day)
    tokens = [issued(made) for _ in range(5)]
    for token in tokens[:4]:
        made.end(token)
    assert [made.find(token, RING) for token in tokens] == [None] * 5
    assert made.find(issued(made), RING) is not None
    assert [each for each in journal.touched if journal.sources[session_cookies.KIND](each[1])] == [
        (session_cookies.KIND, "secret")
    ]


def test_what_has_ended_by_itself_is_forgotten() -> None:
    day, journal = Day(), kept()
    made = SessionCookies(journal, day)
    first = issued(made)
    made.end(first)
    day.now += LIFE + 1
    made.end(issued(made))
    assert sum(journal.sources[session_cookies.KIND](key) is not None for _, key in journal.touched) == 2


@pytest.mark.parametrize("key", ["", "wrong", "é\udcff", "k" * 5000])
def test_whoever_shows_no_key_gets_no_pass(key: str) -> None:
    assert SessionCookies(Journal(), Day()).issue(key, RING) is None


def test_among_several_cookies_the_good_one_is_found() -> None:
    token = issued(MADE)
    line = f'a=b; fleet_pass=; fleet_pass=old; {cookie(token, secure=False).partition(";")[0]}; x="y'
    held = shown(MADE, ((b"Cookie", line.encode()),), RING)
    assert held is not None
    assert held.who(RING) == Identity("ops", Role.OPERATOR)
