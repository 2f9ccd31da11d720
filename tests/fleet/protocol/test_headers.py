from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.protocol.call import Headers
from fleet.protocol.headers import downstream_headers, field, forwarded_headers, own_headers, priority_of, request_id_of

KEPT = [(b"content-type", b"application/json"), (b"user-agent", b"ollama/0.33"), (b"accept", b"*/*")]


def up(*headers: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return upstream(headers, api_key="", request_id="r1")


def upstream(headers: Headers, *, api_key: str, request_id: str) -> list[tuple[bytes, bytes]]:
    """Everything a backend would see, as fields."""
    seen = forwarded_headers(headers)
    lines = [line.split(b": ", 1) for line in seen.lines.splitlines()]
    return [*((name, value) for name, value in lines), *own_headers(seen, api_key=api_key, request_id=request_id)]


def test_what_concerns_the_model_goes_upstream() -> None:
    assert up(*KEPT, (b"Content-Encoding", b"zstd")) == [
        *KEPT,
        (b"content-encoding", b"zstd"),
        (b"x-request-id", b"r1"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        *(b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"proxy-authorization"),
        *(b"host", b"content-length", b"expect", b"origin", b"referer", b"cookie", b"authorization", b"x-api-key"),
        *(b"accept-encoding", b"x-priority", b"x-fleet-anything", b"x-request-id", b"X-API-Key", b"Host"),
        b"access-control-request-method",
        *(b"x-forwarded-for", b"X-Forwarded-Proto", b"x-forwarded-host", b"x-forwarded-port", b"X-Real-IP"),
        b"Forwarded",
    ],
)
def test_what_is_ours_or_the_connections_stays_here(name: bytes) -> None:
    assert up((name, b"v")) == [(b"x-request-id", b"r1")]


def test_fields_named_by_connection_stay_here() -> None:
    assert up(
        (b"x-mine", b"1"), (b"Connection", b"close, X-Mine"), (b"connection", b" x-other"), (b"x-other", b"2")
    ) == [(b"x-request-id", b"r1")]


def test_a_backends_own_key_replaces_the_clients() -> None:
    headers = upstream([(b"authorization", b"Bearer client")], api_key="k\r\nx: y", request_id="r")
    assert headers == [(b"x-request-id", b"r"), (b"authorization", b"Bearer kx: y")]


@pytest.mark.parametrize("bad", [(b"x a", b"1"), (b"", b"1"), (b"x", b"a\r\nb: c"), (b"x", b"a\nb"), (b"x", b"\x00")])
def test_fields_that_could_split_the_header_are_dropped(bad: tuple[bytes, bytes]) -> None:
    assert up(bad) == [(b"x-request-id", b"r1")]
    assert downstream_headers([bad]) == []


def test_downstream_headers() -> None:
    kept = [(b"content-type", b"application/json"), (b"content-length", b"2"), (b"retry-after", b"1")]
    dropped = [
        *((b"date", b"x"), (b"server", b"x"), (b"transfer-encoding", b"chunked"), (b"connection", b"close, x-hop")),
        *((b"x-hop", b"1"), (b"access-control-allow-origin", b"*"), (b"set-cookie", b"a=b"), (b"keep-alive", b"5")),
        *((b"x-ratelimit-limit", b"5"), (b"X-RateLimit-Remaining-Tokens", b"5")),  # the fleet's own, as a client
    ]
    assert downstream_headers([*kept, *dropped]) == kept
    assert downstream_headers(kept, verbatim=False) == [kept[0], kept[2]]
    assert downstream_headers([], request_id="r") == [(b"x-request-id", b"r")]


@pytest.mark.parametrize("lengths", [[b"1", b"2"], [b"-1"], [b"1, 2"], [b""], [b"0x1"]])
def test_a_doubtful_content_length_is_dropped(lengths: list[bytes]) -> None:
    assert downstream_headers([(b"content-length", length) for length in lengths]) == []


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (b"abc-1.2:3_4", "abc-1.2:3_4"),
        (b"x" * 128, "x" * 128),
        (b"x" * 129, "mine"),
        (b"", "mine"),
        (b"a b", "mine"),
        (b"a\xff", "mine"),
        (b"<script>", "mine"),
    ],
)
def test_a_sane_request_id_is_kept(value: bytes, wanted: str) -> None:
    assert request_id_of([(b"x-request-id", value)], "mine") == wanted
    assert request_id_of([], "mine") == "mine"


@pytest.mark.parametrize(
    ("value", "priority"),
    [
        (b"0", 0),
        (b"5", 5),
        (b"+5", 5),
        (b"-3", -3),
        (b"99", 10),
        (b"-99", -10),
        (b"low", -5),
        (b"NORMAL", 0),
        (b"High", 5),
        (b" high ", 5),
        (b"urgent", 0),
        (b"1.5", 0),
        (b"", 0),
        (b"9" * 10_000, 0),
        (b"\xff", 0),
    ],
)
def test_priority_is_a_clamped_number_or_a_word(value: bytes, priority: int) -> None:
    assert priority_of([(b"X-Priority", value)]) == priority
    assert priority_of([]) == 0


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20))))
def test_rubbish_never_raises_and_never_splits(headers: list[tuple[bytes, bytes]]) -> None:
    for name, value in (*up(*headers), *downstream_headers(headers)):
        assert b"\n" not in name + value
        assert b"\r" not in name + value
    assert -10 <= priority_of(headers) <= 10
    field(headers, b"x")
    request_id_of(headers, "mine")
