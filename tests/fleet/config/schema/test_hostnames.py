"""Hosts and URLs that not everybody who will use them accepts, or reads alike."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.config.schema.urls import clean_url, is_host, normalise_url
from tests.kit.cases.urlreaders import accepted, check, made

REFUSED = [
    "http://10.0.0.256:11434",
    "http://192.168.1.300",
    "http://010.0.0.5:11434",
    "http://1.2.3.4.5",
    "http://4294967296",
    "http://0xg.1.2.3:0x50",
    "http://[::1]11434",
    "http://[v1.x]",
    "http://[]",
    "http://[10.0.0.1]",
    "http://::1:11434",
    "http://[::1]]",
    "http://[::1%25" + "z" * 70 + "]",
    "http://[::1%25zzz]",
    "http://[fe80::1%]",
    "http://[fe80::1%2525x]",
    "http://xn--a",
    "http://a.xn--a",
    "http://XN--A.example",
    "http://xn--",
    "http://" + "x" * 64,
    "http://" + ".".join(["x" * 60] * 5),
    "http://a..b",
    "http://.a",
    "http://.",
    "http://a.-",
    "http://a:+80",
    "http://a:-1",
    "http://a:80:80",
    "http://a:99999999999999999999",
    "http://a/../b",
    "http://a/%2e%2E/b",
    "http://a/.",
    "http://a/%zz",
    "http://a/x%",
    "http://a/{b}",
    'http://a/"',
    "http:///a",
]


@pytest.mark.parametrize("url", REFUSED, ids=lambda url: url[:40])
def test_what_some_reader_refuses_is_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(ValueError, match=r"(needs|is no|has a|must|may)") as caught:
        clean_url(url)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://my_box:11434", "http://my_box:11434"),
        ("http://_gpu.a-.b", "http://_gpu.a-.b"),
        ("http://gpu.1", "http://gpu.1"),
        ("http://r3---sn.example", "http://r3---sn.example"),
        ("http://" + "x" * 63, "http://" + "x" * 63),
        ("http://xn--mnchen-3ya.de", "http://xn--mnchen-3ya.de"),
        ("http://a.example.:80/", "http://a.example.:80"),
        ("http://127.1:5", "http://127.0.0.1:5"),
        ("http://0x7f.1", "http://127.0.0.1"),
        ("http://2130706433", "http://127.0.0.1"),
        ("http://10.0.0.1.", "http://10.0.0.1"),
        ("HTTP://a:00080", "http://a:00080"),
        ("http://[fe80::1%eth0]:1", "http://[fe80::1%eth0]:1"),
        ("http://[fe80::1%25eth0]:1", "http://[fe80::1%eth0]:1"),
        ("http://a/b%20c/~!$&'()*+,;=:@/", "http://a/b%20c/~!$&'()*+,;=:@"),
    ],
)
def test_what_all_read_alike_is_kept_in_the_spelling_that_all_read(url: str, kept: str) -> None:
    assert clean_url(url) == kept
    assert normalise_url(url) == normalise_url(kept)
    check(kept)


def test_everybody_who_will_use_a_url_accepts_what_the_validator_accepts() -> None:
    dice, good = random.Random(10), set[str]()
    for _ in range(4000):
        kept = accepted(made(dice))
        if kept is not None and kept not in good:
            good.add(kept)
            check(kept)
    assert len(good) > 300, "else the test tells nothing"


@settings(deadline=None)
@given(
    st.from_regex(r"https?://[a-z0-9._\[\]:%@~-]{0,30}(:[0-9+]{0,6})?(/[!-~]{0,8})?", fullmatch=True)
    | st.text(max_size=30).map("http://".__add__)
    | st.ip_addresses(v=6).map(lambda each: f"http://[{each}]:1")
    | st.ip_addresses(v=4).map(lambda each: f"http://{each}/x")
    | st.integers(0, 2**33).map(lambda each: f"http://{each:#x}")
)
def test_no_url_at_all_is_read_in_two_ways(url: str) -> None:
    kept = accepted(url)
    if kept is not None:
        check(kept)


@pytest.mark.parametrize("host", ["10.0.0.256", "x" * 64, "xn--a", "a..b", "[::1]", "::1%x", "a b", "", "010.0.0.1"])
def test_what_is_no_host_is_none_anywhere(host: str) -> None:
    assert not is_host(host)
