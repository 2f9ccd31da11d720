"""Where a backend lives."""

from __future__ import annotations

import pytest

from actors.upstream.pool import BackendAddress


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://gpu1:11434", BackendAddress("gpu1", 11434, False, "", b"gpu1:11434")),
        ("http://GPU1:11434/", BackendAddress("gpu1", 11434, False, "", b"gpu1:11434")),
        ("https://a.example", BackendAddress("a.example", 443, True, "", b"a.example")),
        ("http://a.example:443", BackendAddress("a.example", 443, False, "", b"a.example:443")),
        ("http://a.example/ollama/", BackendAddress("a.example", 80, False, "/ollama", b"a.example")),
        ("http://[::1]:11434/x/y", BackendAddress("::1", 11434, False, "/x/y", b"[::1]:11434")),
        ("http://[fe80::1%eth0]:1", BackendAddress("fe80::1%eth0", 1, False, "", b"[fe80::1]:1")),
    ],
)
def test_urls(url: str, expected: BackendAddress) -> None:
    assert BackendAddress.parse(url) == expected


def test_address_for_messages() -> None:
    assert BackendAddress.parse("http://[::1]:9").address == "[::1]:9"
    assert BackendAddress.parse("http://h:9").address == "h:9"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "gpu1:11434",
        "ftp://a",
        "http://",
        "http://a:0",
        "http://a:99999",
        "http://a:x",
        "http://u:p@a",
        "http://a?b=c",
        "http://a#b",
        "http://a b",
        "http://a\r\nx",
        "http://[::1",
        "http://ä",
    ],
)
def test_what_is_no_backend_url(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        BackendAddress.parse(url)
