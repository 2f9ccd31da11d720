"""Which web pages may call the fleet: Ollama's own CORS rules, its default origins plus configured ones."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Sequence
from typing import Final

Field = tuple[bytes, bytes]

_LOCAL: Final = ("localhost", "127.0.0.1", "0.0.0.0")
DEFAULT_ORIGINS: Final[tuple[str, ...]] = (
    *(f"{scheme}://{host}{port}" for host in _LOCAL for scheme in ("http", "https") for port in ("", ":*")),
    "app://*",
    "file://*",
    "tauri://*",
    "vscode-webview://*",
    "vscode-file://*",
)
"""The origins Ollama always allows."""

_METHODS: Final = b"GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
_REQUEST_HEADERS: Final = (
    # Ollama's list, in its spelling and order,
    "Authorization",
    "Content-Type",
    "User-Agent",
    "Accept",
    "X-Requested-With",
    "Openai-Beta",
    "X-Stainless-Arch",
    "X-Stainless-Async",
    "X-Stainless-Custom-Poll-Interval",
    "X-Stainless-Helper-Method",
    "X-Stainless-Lang",
    "X-Stainless-Os",
    "X-Stainless-Package-Version",
    "X-Stainless-Poll-Helper",
    "X-Stainless-Retry-Count",
    "X-Stainless-Runtime",
    "X-Stainless-Runtime-Version",
    "X-Stainless-Timeout",
    # what Anthropic's client needs in a browser, and what is ours.
    "X-Api-Key",
    "Api-Key",
    "Anthropic-Version",
    "Anthropic-Beta",
    "Anthropic-Dangerous-Direct-Browser-Access",
    "X-Priority",
    "X-Request-Id",
    "X-Fleet-Errors",
    "Traceparent",
    "Tracestate",
)
_PREFIXES: Final = ("x-stainless-", "anthropic-", "openai-")
"""Of fields of which SDKs have new ones now and then; what is asked for by these names is allowed."""
_NAME: Final = re.compile(r"[a-z0-9-]{1,64}")
_MOST_ASKED: Final = 64
_EXPOSED_HEADERS: Final = (
    b"X-Request-Id,X-Fleet-Server,X-Fleet-Attempts,X-Fleet-Queue-Ms,X-Fleet-Error,Retry-After,"
    b"X-RateLimit-Limit,X-RateLimit-Remaining,X-RateLimit-Reset"
)
_MAX_AGE: Final = b"43200"
_LONGEST: Final = 512


class CorsVerdict(enum.Enum):
    """What becomes of a request with this Origin."""

    ABSENT = "absent"
    """No cross-origin request: nothing is added."""
    ALLOWED = "allowed"
    DENIED = "denied"
    """Answer 403 with an empty body, whatever the method."""


def allowed_origins(configured: Iterable[str], *, defaults: bool = True) -> tuple[str, ...]:
    """The configured origins (each with at most one `*`; a lone `*` allows all), then Ollama's defaults if wanted."""
    own = tuple(origin.strip().lower() for origin in configured if origin.strip())
    return (*own, *DEFAULT_ORIGINS) if defaults else own


def decide(origin: str | None, allowed: Sequence[str], host: str = "") -> CorsVerdict:
    """Judge an Origin header field. `host` is the request's Host: a page of our own is not cross-origin."""
    if not origin:
        return CorsVerdict.ABSENT
    if len(origin) > _LONGEST:
        return CorsVerdict.DENIED
    origin = origin.lower()
    if host and origin in (f"http://{host.lower()}", f"https://{host.lower()}"):
        return CorsVerdict.ABSENT
    return CorsVerdict.ALLOWED if any(_matches(origin, rule) for rule in allowed) else CorsVerdict.DENIED


def response_headers(origin: str, allowed: Sequence[str]) -> list[Field]:
    """The fields to add to any answer for an allowed origin. If all are allowed, the answer does not vary by origin."""
    exposed = (b"access-control-expose-headers", _EXPOSED_HEADERS)
    if "*" in allowed:
        return [(b"access-control-allow-origin", b"*"), exposed]
    return [(b"access-control-allow-origin", _value(origin)), (b"vary", b"Origin"), exposed]


def preflight_headers(
    origin: str,
    allowed: Sequence[str],
    *,
    asked: str = "",
    extra: Sequence[str] = (),
    private: bool = False,
) -> list[Field]:
    """The fields of the 204 that answers OPTIONS for an allowed origin.

    `asked` are the request fields that the browser asks about, `extra` those that are allowed besides ours. `private`:
    it asks for leave to call from a public page into a private network (Private Network Access).
    """
    own = [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", _allowed_headers(asked, extra)),
        (b"access-control-max-age", _MAX_AGE),
    ]
    if private:
        own.append((b"access-control-allow-private-network", b"true"))
    if "*" in allowed:
        return [(b"access-control-allow-origin", b"*"), *own]
    vary = b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
    return [(b"access-control-allow-origin", _value(origin)), (b"vary", vary), *own]


def _allowed_headers(asked: str, extra: Sequence[str]) -> bytes:
    """Ollama's and ours, then those that are configured, then those of an SDK's family that this browser asks about."""
    known = {name.lower(): name for name in (*_REQUEST_HEADERS, *extra)}
    for name in asked.lower().split(",", _MOST_ASKED)[:_MOST_ASKED]:
        name = name.strip()
        if name.startswith(_PREFIXES) and _NAME.fullmatch(name):
            known.setdefault(name, name)
    return ",".join(known.values()).encode("ascii")


def _matches(origin: str, rule: str) -> bool:
    before, star, after = rule.partition("*")
    if not star:
        return origin == rule
    # The star stands for something of its own: "a*a" does not match "a".
    return len(origin) >= len(before) + len(after) and origin.startswith(before) and origin.endswith(after)


def _value(origin: str) -> bytes:
    """An origin as a field value; characters that could end the field are dropped."""
    return "".join(char for char in origin if char.isprintable()).encode("latin-1", "ignore")
