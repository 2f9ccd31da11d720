from __future__ import annotations

from typing import Any

import pytest

from fleet.security.cors import CorsVerdict, allowed_origins, decide, preflight_headers, response_headers

DEFAULT = allowed_origins([])
CONFIGURED = allowed_origins(["https://chat.example.org", "https://*.example.com", "chrome-extension://*", " "])


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "https://localhost",
        "http://localhost:3000",
        "HTTP://LOCALHOST:3000",
        "http://127.0.0.1:8080",
        "https://0.0.0.0",
        "app://obsidian.md",
        "file://",
        "file://x",
        "tauri://localhost",
        "vscode-webview://abc",
        "vscode-file://vscode-app",
    ],
)
def test_local_pages_are_allowed_by_default(origin: str) -> None:
    assert decide(origin, DEFAULT) is CorsVerdict.ALLOWED


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://example.com",
        "http://localhost.evil.com",
        "http://localhostevil.com",
        "http://evil.com/http://localhost",
        "chrome-extension://abc",
        "http://127.0.0.1.evil.com",
        "ftp://localhost",
        "x" * 10_000,
    ],
)
def test_other_pages_are_denied_by_default(origin: str) -> None:
    assert decide(origin, DEFAULT) is CorsVerdict.DENIED


@pytest.mark.parametrize(
    ("origin", "verdict"),
    [
        ("https://chat.example.org", CorsVerdict.ALLOWED),
        ("https://chat.example.org.evil.com", CorsVerdict.DENIED),
        ("https://a.example.com", CorsVerdict.ALLOWED),
        ("https://.example.com", CorsVerdict.ALLOWED),
        ("https://example.com", CorsVerdict.DENIED),
        ("http://a.example.com", CorsVerdict.DENIED),
        ("chrome-extension://abc", CorsVerdict.ALLOWED),
        ("http://localhost:1", CorsVerdict.ALLOWED),
    ],
)
def test_configured_origins_come_on_top(origin: str, verdict: CorsVerdict) -> None:
    assert decide(origin, CONFIGURED) is verdict


def test_no_origin_and_our_own_origin_are_not_cross_origin() -> None:
    assert decide(None, DEFAULT) is CorsVerdict.ABSENT
    assert decide("", DEFAULT) is CorsVerdict.ABSENT
    assert decide("https://fleet.example.net:11434", DEFAULT, "fleet.example.net:11434") is CorsVerdict.ABSENT
    assert decide("https://other.example.net", DEFAULT, "fleet.example.net") is CorsVerdict.DENIED


def test_an_allowed_origin_is_echoed() -> None:
    headers = dict(response_headers("http://localhost:3000", DEFAULT))
    assert headers[b"access-control-allow-origin"] == b"http://localhost:3000"
    assert headers[b"vary"] == b"Origin"


def test_pages_may_read_the_fields_that_there_are() -> None:
    exposed = dict(response_headers("http://localhost:3000", DEFAULT))[b"access-control-expose-headers"]
    assert set(exposed.split(b",")) == {
        b"X-Request-Id",
        b"X-Fleet-Server",
        b"X-Fleet-Attempts",
        b"X-Fleet-Queue-Ms",
        b"X-Fleet-Error",
        b"Retry-After",
        b"X-RateLimit-Limit",
        b"X-RateLimit-Remaining",
        b"X-RateLimit-Reset",
    }


def test_the_default_origins_can_be_left_out() -> None:
    assert allowed_origins([" HTTPS://x "], defaults=False) == ("https://x",)


def test_preflight_answers_like_ollama() -> None:
    headers = dict(preflight_headers("http://localhost", DEFAULT))
    assert headers[b"access-control-allow-methods"] == b"GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
    assert headers[b"access-control-max-age"] == b"43200"
    assert headers[b"access-control-allow-headers"].startswith(b"Authorization,Content-Type,User-Agent,Accept,")
    assert headers[b"access-control-allow-origin"] == b"http://localhost"


def test_a_lone_star_allows_all() -> None:
    allowed = allowed_origins(["*"])
    assert decide("https://anything", allowed) is CorsVerdict.ALLOWED
    for headers in (response_headers("https://x", allowed), preflight_headers("https://x", allowed)):
        assert dict(headers)[b"access-control-allow-origin"] == b"*"
        assert b"vary" not in dict(headers)


def test_an_origin_cannot_split_the_header() -> None:
    assert b"\n" not in dict(response_headers("app://x\r\ny: z", DEFAULT))[b"access-control-allow-origin"]


READ = [
    "Authorization", "Api-Key", "X-Api-Key", "X-Priority", "X-Request-Id", "Traceparent", "Tracestate",
    "X-Fleet-Errors", "X-Stainless-Lang", "X-Stainless-Retry-Count", "Anthropic-Version", "Anthropic-Beta",
]  # fmt: skip


def names(**asking: Any) -> list[str]:
    headers = dict(preflight_headers("http://localhost", DEFAULT, **asking))
    return headers[b"access-control-allow-headers"].decode().lower().split(",")


@pytest.mark.parametrize("name", READ)
def test_every_field_that_is_read_may_be_sent_by_a_page(name: str) -> None:
    assert name.lower() in names()


def test_new_fields_of_the_sdks_are_allowed_when_they_are_asked_for() -> None:
    found = names(
        asked="authorization, X-Stainless-New-One,anthropic-future , x-evil, x-stainless-a\r\nx: y, anthropic-\x00"
    )
    assert {"x-stainless-new-one", "anthropic-future"} <= set(found)
    assert not [name for name in found if "evil" in name or "\r" in name or "\x00" in name]
    assert len(found) == len(set(found))
    assert len(names(asked="anthropic-a," * 10_000)) < 200
    assert "x-stainless-new-one" not in names()


def test_configured_fields_are_allowed_too() -> None:
    assert names(extra=("X-My-Header",))[-1] == "x-my-header"
    assert names(extra=("X-API-KEY",)).count("x-api-key") == 1


def test_a_private_network_may_be_called_by_whom_it_allows() -> None:
    field = b"access-control-allow-private-network"
    assert dict(preflight_headers("http://localhost", DEFAULT, private=True))[field] == b"true"
    assert field not in dict(preflight_headers("http://localhost", DEFAULT))
