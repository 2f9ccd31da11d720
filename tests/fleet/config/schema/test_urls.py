"""Server URLs: accepted, refused, equivalent; and single servers as the admin API gets them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.config import ConfigError, normalise_url, parse_server
from fleet.config.schema.urls import clean_url


@pytest.mark.parametrize(
    ("url", "kept", "normal"),
    [
        ("http://a", "http://a", "http://a:80"),
        ("HTTPS://A.Example./", "https://A.Example.", "https://a.example:443"),
        ("http://localhost:11434/", "http://localhost:11434", "http://127.0.0.1:11434"),
        ("http://a:1/base/path//", "http://a:1/base/path", "http://a:1/base/path"),
        ("http://[::1]:5", "http://[::1]:5", "http://[::1]:5"),
        ("http://[0:0::1]", "http://[0:0::1]", "http://[::1]:80"),
        ("http://my_container:1", "http://my_container:1", "http://my_container:1"),
        ("http://a:", "http://a:", "http://a:80"),
    ],
)
def test_accepted(url: str, kept: str, normal: str) -> None:
    assert clean_url(url) == kept
    assert normalise_url(url) == normal
    assert normalise_url(normal) == normal


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "http://"),
        ("a:11434", "must start"),
        ("127.0.0.1:11434", "must start"),
        ("ftp://a", "must start"),
        ("http:a", "must start"),
        ("http://", "host name"),
        ("http://:80", "host name"),
        ("http://a..b", "host name"),
        ("http://-a", "host name"),
        ("http://a%41", "host name"),
        ("http://u:hunter2@a", "user or password"),
        ("http://@a", "user or password"),
        ("http://a?", "query"),
        ("http://a/x?y=hunter2", "query"),
        ("http://a#", "fragment"),
        ("http://a:0", "port"),
        ("http://a:65536", "port"),
        ("http://a:x", "port"),
        ("http://[::1", "brackets"),
        ("http://a b", "ASCII"),
        ("http://a\n", "ASCII"),
        ("\thttp://a", "ASCII"),
        ("http://a\\b", "backslash"),
        ("http://ä", "ASCII"),
        ("http://a/" + "x" * 2048, "2048"),
    ],
)
def test_refused_without_repeating_the_url(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        clean_url(url)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ValueError, match=words):
        normalise_url(url)


@given(st.text(st.characters(codec="utf-8"), max_size=40) | st.from_regex(r"https?://[\w.:\[\]@/?#%-]{0,20}"))
def test_a_kept_url_stays_as_it_is(url: str) -> None:
    try:
        kept = clean_url(url)
    except ValueError:
        return
    assert clean_url(kept) == kept
    assert normalise_url(kept) == normalise_url(url)
    assert not kept.endswith("/")


def test_a_single_server_with_defaults() -> None:
    spec = parse_server({"id": "a", "url": "http://x/", "maxConcurrency": 2})
    assert (spec.url, spec.max_concurrency, spec.priority, spec.tags, spec.api_key) == ("http://x", 2, 1, (), None)


def test_a_single_server_reports_everything() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_server({"url": "x", "maxConcurrency": "many", "prio": 1, "tags": "gpu", "api_key": ""}, source="request")
    found = {problem.path for problem in caught.value.problems}
    assert found == {"id", "url", "max_concurrency", "prio", "tags", "api_key"}
    assert caught.value.status == 400
    assert "did you mean priority?" in str(caught.value)


def test_a_request_cannot_read_our_environment() -> None:
    with pytest.raises(ConfigError, match="only in the configuration at start"):
        parse_server({"id": "a", "url": "http://evil", "api_key": "env:PATH"})


def test_numbers_too_long_to_print_are_not_printed() -> None:
    with pytest.raises(ConfigError, match=r"1 to 1024, or auto, not such a number"):
        parse_server({"id": "a", "url": "http://x", "max_concurrency": 10**5000})


def test_a_secret_that_is_a_number_is_not_shown_and_long_keys_are_cut() -> None:
    with pytest.raises(ConfigError, match="api_key: must be text") as caught:
        parse_server({"id": "a", "url": "http://x", "api_key": 987654321, "k" * 10_000: 1})
    assert "987654321" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_deep_nesting_in_a_request_is_no_recursion() -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ConfigError):
        parse_server({"id": "a", "url": "http://x", "tags": deep})
    with pytest.raises(ConfigError):
        parse_server({"id": "a", "url": "http://x", "tags": [1]})


def test_many_unknown_keys_are_counted_not_listed() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_server({"id": "a", "url": "http://x"} | {f"k{n}": n for n in range(50_000)})
    assert len(caught.value.problems) == 21
    assert "49980 more" in caught.value.problems[-1].message
