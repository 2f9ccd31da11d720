"""Who may use the fleet: API keys, and what each may do."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Final, Protocol

from actors.security.api_keys import ApiKeys
from fleet.common.errors import FleetError, Forbidden, Unauthorized
from fleet.config import Config
from fleet.config.schema.access import anonymous_role
from fleet.protocol.call import Headers
from fleet.protocol.endpoints import ENDPOINTS, PINNABLE
from fleet.protocol.headers import field
from fleet.security.api_keys import LONGEST_KEY, KeyRing
from fleet.security.known_secrets import Secrets
from fleet.security.roles import ANONYMOUS, Identity
from web.http.ports import Face
from web.security.session_cookies import Shown

PASS_KEY: Final = "fleet.pass"
"""Where the scope has the pass that a browser has shown, if its page is one of ours."""
_WHAT_TO_SEND: Final = "send one as `Authorization: Bearer <key>` or `X-API-Key: <key>`"
_LONGEST_BASIC: Final = 2 * LONGEST_KEY
_FIELDS: Final = (b"x-api-key", b"api-key")
_OURS: Final = ("/api/orchestrator", "/api/metrics/")
"""Ollama's CLI asks for nothing below these."""
_BELOW_OURS: Final = ("/api/orchestrator/", "/api/metrics/")
_SAFE: Final = frozenset(("GET", "HEAD", "OPTIONS"))
SOCKET_IO: Final = frozenset(("/socket.io/", "/socket.io"))
"""Where live clients come in; browsers can put no key into the head of a websocket's handshake."""
LIVE: Final = frozenset((*SOCKET_IO, "/ws"))
"""Where live clients come in. They are told what only operators may see, and there even a GET makes something."""
_PAGES: Final = frozenset(("/status", "/status.css", "/wall", "/login"))
"""The status page by its other names, its style, and where to log in. Without a key it is a sentence without names."""
FORMS: Final = frozenset(("/login", "/logout"))
"""Where the dashboard port's forms go."""


class Keyed(Protocol):
    """What is asked of a fleet: its configuration and its keys, both of the moment."""

    @property
    def config(self) -> Config: ...

    @property
    def keys(self) -> ApiKeys: ...


def is_open(method: str, path: str, face: Face = Face.PROXY) -> bool:
    """What needs no key: the root page that every CLI command asks for first, health probes, and preflights.

    And where Socket.IO's clients come in, who may show their key in their first packet: see `web.live.session`.
    """
    if method == "OPTIONS" or path == "/health" or path.startswith("/health/"):
        return True
    if face is Face.DASHBOARD and (path in SOCKET_IO or (method == "POST" and path in FORMS)):
        return True
    return (path == "/" or (face is Face.DASHBOARD and path in _PAGES)) and method in ("GET", "HEAD")


def is_use(method: str, path: str) -> bool:
    """Whether a request only uses models or looks: it changes nothing, and is no part of the admin API or the feeds."""
    if path in LIVE or path == _OURS[0] or path.startswith(_BELOW_OURS):
        return False
    if method in _SAFE:
        return True
    return method == "POST" and (path in ENDPOINTS or path.partition("--")[0] in PINNABLE)


def is_trusted(scope: Any, system: Keyed) -> bool:
    """Whether a request may see what is not for everybody: it has a valid key or pass, or none is needed."""
    return not system.config.security.keys_required or _shown(scope, system) is not None


def visitor(scope: Any, system: Keyed) -> Identity:
    """Who asks, by a key or by a pass; or nobody in particular, with the role of those."""
    return _shown(scope, system) or Identity(ANONYMOUS, anonymous_role(system.config))


def pass_of(scope: Any) -> Shown | None:
    """The pass that the guard has found good when the request came in."""
    return scope.get(PASS_KEY)  # type: ignore[no-any-return]


def identity(headers: Headers, system: Keyed) -> Identity:
    """The same, going by keys alone."""
    return _known(headers, system) or Identity(ANONYMOUS, anonymous_role(system.config))


def key_name(headers: Headers, system: Keyed) -> str:
    """The name of the valid key that was shown; empty if there is none."""
    known = _known(headers, system)
    return known.name if known is not None else ""


def refusal(path: str, headers: Headers, system: Keyed) -> FleetError | None:
    """The error for a request without a valid key, or None.

    Native routes get a 403: Ollama's own CLI takes every 401 for "sign in to the cloud".
    """
    if _known(headers, system) is not None:
        return None
    if path.startswith("/api/") and not path.startswith(_OURS):
        return Forbidden(f"a valid API key is needed: {_WHAT_TO_SEND}")
    return Unauthorized("a valid API key is needed", details=_WHAT_TO_SEND)


def ring_of(system: Keyed) -> KeyRing:
    """Everybody who has a key now."""
    return system.keys.ring(system.config.security)


def _shown(scope: Any, system: Keyed) -> Identity | None:
    known = _known(scope["headers"], system)
    if known is None and (held := pass_of(scope)) is not None:
        return held.who(ring_of(system))
    return known


def is_secret(headers: Headers, system: Keyed) -> Callable[[bytes], bool]:
    """What tells, of a piece of a request's head, that it holds a key: one of ours, or the one that was shown."""
    return _aware(headers, system).within if system.config.security.has_keys else _nothing


def cleaner(headers: Headers, system: Keyed) -> Callable[[str], str]:
    """What takes keys and other secrets out of a text that a caller has sent with these headers."""
    return _aware(headers, system).cleaned


def _aware(headers: Headers, system: Keyed) -> Secrets:
    """The secrets, this caller's key among them."""
    secrets, ring = system.keys.secrets(system.config), ring_of(system)
    for key in _presented(headers):
        if ring.find(key) is not None:
            secrets.shown(key.decode("latin-1"))
    return secrets


def _nothing(data: bytes) -> bool:
    return False


def _known(headers: Headers, system: Keyed) -> Identity | None:
    """Whose key was shown: of several, the first good one; never one in the query, which ends up in logs."""
    presented = _presented(headers)
    if not presented or not system.config.security.has_keys:
        return None
    ring = ring_of(system)
    return next((who for key in presented if (who := ring.find(key)) is not None), None)


def _presented(headers: Headers) -> list[bytes]:
    """What may be a key: the value of two fields, a bearer's token, and what HTTP Basic calls the password."""
    found = [key for name in _FIELDS if (key := field(headers, name))]
    scheme, _, token = (field(headers, b"authorization") or b"").partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        found.append(token.strip())
    elif scheme.lower() == b"basic" and (password := _password(token.strip())):
        found.append(password)
    return found


def _password(token: bytes) -> bytes:
    """Of `user:password` in base64, whoever the user is said to be; empty for anything else."""
    if len(token) > _LONGEST_BASIC:
        return b""
    try:
        return base64.b64decode(token, validate=True).partition(b":")[2]
    except ValueError:
        return b""
