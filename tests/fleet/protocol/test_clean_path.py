from __future__ import annotations

import posixpath
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.protocol.clean_path import moved, tidied


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/", "/"),
        ("//", "/"),
        ("/api/tags", "/api/tags"),
        ("//api/tags", "/api/tags"),
        ("/./api/tags", "/api/tags"),
        ("/api/../api/tags", "/api/tags"),
        ("/api//chat", "/api/chat"),
        ("/api/chat/", "/api/chat/"),
        ("/api//chat//", "/api/chat/"),
        ("/api/chat/.", "/api/chat"),
        ("/api/chat/..", "/api"),
        ("/api/chat/../", "/api/"),
        ("/..", "/"),
        ("/../../etc/passwd", "/etc/passwd"),
        ("/...", "/..."),
        ("/a%2F..%2fb", "/a%2F..%2fb"),
        ("/%2e%2e/a", "/%2e%2e/a"),
        ("//evil.example/%2e%2e", "/evil.example/%2e%2e"),
    ],
)
def test_paths_are_tidied_as_by_gos_multiplexer(path: str, wanted: str) -> None:
    assert tidied(path) == wanted


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "PUT", "OPTIONS"])
def test_get_and_head_move_for_good_and_what_has_a_body_is_sent_again(method: str) -> None:
    status = 301 if method in ("GET", "HEAD") else 307
    assert moved(method, "//api/chat") == (status, "/api/chat")
    assert moved(method, "/api/chat") is None
    assert moved(method, "*") is None


HOSTILE = st.lists(st.sampled_from([*"/.\\:@%a", "evil.example", "%2f", "%5c", "..", "//"]), max_size=12).map("".join)


@given(HOSTILE | st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40))
def test_nobody_is_sent_to_another_host_or_round_in_circles(text: str) -> None:
    path = "/" + text
    found = moved("GET", path)
    assert (found is None) == (tidied(path) == path)
    if found is None:
        return
    where = found[1]
    assert where.startswith("/")
    assert not where.startswith(("//", "/\\"))
    assert "\\" not in where
    assert urlsplit(urljoin("http://fleet.example:1/", where)).netloc == "fleet.example:1"
    assert moved("GET", where) is None
    assert unquote(where).rstrip("/") == unquote(posixpath.normpath("/" + path.lstrip("/"))).rstrip("/")
