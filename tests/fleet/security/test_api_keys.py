"""API keys: made, found again whatever their number, written and read; and what a hostile file can do."""

from __future__ import annotations

import hashlib
import hmac
import string
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.security import api_keys
from fleet.security.api_keys import (
    KeyRing,
    StoredKey,
    digest_of,
    is_name,
    new_key,
    read_keys,
    ring_with,
    without_keys,
    written,
)
from fleet.security.roles import Identity, Role

ALICE = Identity("alice", Role.OPERATOR)
DIGEST = "0123456789abcdef" * 4


def key(number: int) -> str:
    return new_key(hashlib.sha256(b"%d" % number).digest())


def ring(count: int) -> KeyRing:
    return KeyRing([(digest_of(key(at)), Identity(f"k{at}", Role.CLIENT)) for at in range(count)])


def test_a_key_carries_256_random_bits_behind_a_mark_that_scanners_know() -> None:
    made = new_key(bytes(range(32)))
    assert made.startswith("fleet_")
    assert len(made) == len("fleet_") + 43
    assert set(made) <= set(string.ascii_letters + string.digits + "_-")
    assert len({new_key(bytes([at]) * 32) for at in range(256)}) == 256
    with pytest.raises(ValueError, match="32 random bytes"):
        new_key(b"too short")


def test_who_shows_a_key_is_known_by_it_and_nobody_else_is() -> None:
    found = KeyRing([(digest_of("a-secret"), ALICE)])
    assert found.find(b"a-secret") == ALICE
    for other in (b"", b"a-secre", b"a-secret ", b"A-secret", digest_of("a-secret").encode(), b"x" * 10_000):
        assert found.find(other) is None
    assert KeyRing([]).find(b"a-secret") is None


def test_a_key_that_is_longer_than_any_is_not_even_hashed() -> None:
    long = "x" * (api_keys.LONGEST_KEY + 1)
    assert KeyRing([(digest_of(long), ALICE)]).find(long.encode()) is None


def test_digests_that_begin_alike_are_told_apart() -> None:
    whole = digest_of("right")
    other = whole[:16] + "0" * 48
    found = KeyRing([(other, Identity("other", Role.ADMIN)), (whole, ALICE)])
    assert found.find(b"right") == ALICE
    assert KeyRing([(other, ALICE)]).find(b"right") is None


def test_digests_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(mine: bytes, theirs: bytes) -> bool:
        compared.append((mine, theirs))
        return mine == theirs

    monkeypatch.setattr(hmac, "compare_digest", compare)
    digest = hashlib.sha256(b"a-secret").digest()
    assert KeyRing([(digest.hex(), ALICE)]).find(b"a-secret") == ALICE
    assert compared == [(digest, digest)]


def test_a_thousand_keys_cost_hardly_more_than_one() -> None:
    one, many = ring(1), ring(1000)
    shown = key(0).encode()

    def best(of: KeyRing) -> float:
        times = []
        for _ in range(7):
            began = time.thread_time()
            for _ in range(500):
                of.find(shown)
            times.append(time.thread_time() - began)
        return min(times)

    assert best(many) < 3 * best(one)
    assert [many.find(key(at).encode()) for at in (0, 999)] == [Identity(f"k{at}", Role.CLIENT) for at in (0, 999)]


def test_a_revocation_counts_wherever_the_key_is_written() -> None:
    digest = digest_of("leaked-key")
    stored = StoredKey("x", Role.ADMIN, digest, "2026-01-01T00:00:00Z")
    assert ring_with([], [stored]).find(b"leaked-key") == Identity("x", Role.ADMIN)
    gone = replace(stored, revoked="2026-01-02T00:00:00Z")
    assert ring_with([], [gone]).find(b"leaked-key") is None
    assert ring_with([(digest, ALICE)], [gone]).find(b"leaked-key") is None


def test_of_one_key_in_two_places_the_configuration_counts() -> None:
    digest = digest_of("one-key")
    assert ring_with([(digest, ALICE)], [StoredKey("x", Role.ADMIN, digest)]).find(b"one-key") == ALICE


@pytest.mark.parametrize(
    ("name", "good"),
    [("ci", True), ("a.b-c_9", True), ("x" * 64, True), ("x" * 65, False), ("", False), ("-a", False), ("a b", False),
     ("a\n", False), ("anonymous", False), ("Anonymous", False), ("api_keys[0]", False), ("ü", False)],
)  # fmt: skip
def test_names_are_plain_words(name: str, good: bool) -> None:
    assert is_name(name) is good


NAMES = st.from_regex(api_keys.NAME, fullmatch=True).filter(is_name)
MOMENTS = st.sampled_from(["2026-11-22T03:00:00Z", ""])
STORED = st.builds(
    StoredKey,
    name=NAMES,
    role=st.sampled_from(Role),
    sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
    created=MOMENTS,
    revoked=st.none() | st.just("2026-11-22T04:00:00Z"),
)


@given(st.lists(STORED, unique_by=(lambda each: each.name, lambda each: each.sha256)))
def test_what_is_written_reads_as_the_same(stored: list[StoredKey]) -> None:
    assert read_keys(written(stored)) == tuple(stored)


def line(**changes: object) -> str:
    import json

    return json.dumps({"name": "ci", "role": "client", "sha256": DIGEST, "created": ""} | changes)


BAD: list[tuple[str, str]] = [
    ("nonsense hunter2", "line 1 is no JSON object"),
    ("[]", "line 1: is no JSON object"),
    (line() + "\n\n" + "{", "line 3 is no JSON object"),
    (line(more=1), "line 1: has a field"),
    (line(name="a b"), "line 1: name must be"),
    (line(name=7), "line 1: name must be text"),
    (line(name="anonymous"), "line 1: name must be"),
    (line(role="root"), "line 1: role must be one of client, operator, admin"),
    (line(sha256="hunter2"), "line 1: sha256 must be"),
    (line(sha256=DIGEST.upper()), "lower case"),
    (line(sha256=None), "line 1: sha256 must be text"),
    (line(created="hunter2\u001b"), "line 1: created must be a moment"),
    (line(revoked=True), "line 1: revoked must be text"),
    (line() + "\n" + line(name="other"), "one key is listed twice"),
    (line() + "\n" + line(sha256="ab" * 32), "two keys in use are called ci"),
    ("x" * (api_keys.LONGEST_FILE + 1), "longer than"),
]


@pytest.mark.parametrize(("text", "words"), BAD, ids=[words for _, words in BAD])
def test_a_bad_file_is_refused_with_the_line_and_none_of_its_content(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        read_keys(text)
    assert "hunter2" not in str(caught.value)
    assert DIGEST not in str(caught.value)


def test_a_file_has_a_bounded_number_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "MOST_KEYS", 2)
    with pytest.raises(ValueError, match="more than 2 keys"):
        read_keys(written([StoredKey(f"k{at}", Role.CLIENT, digest_of(str(at))) for at in range(3)]))


def test_a_revoked_name_may_be_used_again() -> None:
    old = StoredKey("ci", Role.CLIENT, "ab" * 32, revoked="2026-01-01T00:00:00Z")
    assert len(read_keys(written([old, StoredKey("ci", Role.CLIENT, "cd" * 32)]))) == 2


@given(
    st.text(max_size=300) | st.lists(st.sampled_from([*'{}[]":,\n', "name", "role", DIGEST]), max_size=40).map("".join)
)
def test_garbage_is_only_ever_a_sentence(text: str) -> None:
    try:
        stored = read_keys(text)
    except ValueError as error:
        said = str(error)
    else:
        said = "".join(each.name for each in stored)
    assert said.isprintable()


def test_neither_digest_nor_key_is_shown_by_repr() -> None:
    assert DIGEST not in repr(StoredKey("ci", Role.CLIENT, DIGEST))
    shower: Callable[[object], str] = repr
    assert "a-secret" not in shower(KeyRing([(digest_of("a-secret"), ALICE)]))


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        (b"", b""),
        (b"a=b&c", b"a=b&c"),
        (b"beta=true", b"beta=true"),
        (b"api_key=s", b""),
        (b"a=1&API-Key=s&b=2", b"a=1&b=2"),
        (b"token=s&access_token=s&key=s&apikey=s&x-api-key=s&z", b"z"),
        (b"monkey=1&keys=2", b"monkey=1&keys=2"),
        (b"%6bey=s", b""),
        (b"k%65y=s&a=%20", b"a=%20"),
        (b"%4BEY=s", b""),
        (b"%256bey=s", b""),
        (b"%2525252525256bey=s", b""),
        (b"key=s&key=t&KEY=u", b""),
        (b"+key=s&key+=s&%20key=s&%00key=s", b""),
        (b"a=b;key=s&c", b"c"),
        (b"a%26key=s&c", b"c"),
        (b"a=1%3Bkey=s", b""),
        (b"key[]=s&key[0]=s&c", b"c"),
        (b"?key=s", b""),
        (b"Api%5FKey=s&x_api_key=s&X-Goog-Api-Key=s&authorization=s", b""),
        (b"password=s&client_secret=s&auth=s&bearer=s&cookie=s&auth_token=s", b""),
        (b"&" * 100, b"&" * 100),
        (b"&" * 100 + b"key=s", b""),
        (b"a%ZZ=%&max_tokens=5", b"a%ZZ=%&max_tokens=5"),
    ],
)
def test_credentials_in_a_query_go_no_further(query: bytes, kept: bytes) -> None:
    assert without_keys(query) == kept


def test_a_secret_that_is_spread_over_pairs_goes_no_further_either() -> None:
    assert without_keys(b"a=se&b=cret&c=1", lambda data: b"se&b=cret" in data) == b""
    assert without_keys(b"a=secret&c=1", lambda data: b"secret" in data) == b"c=1"
