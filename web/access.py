"""Who may use the fleet: API keys."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Final

from pydantic import SecretStr

from fleet.call import Headers
from fleet.config import Config, SecuritySection
from fleet.errors import FleetError, Forbidden, Unauthorized
from fleet.headers import field
from fleet.roles import ANONYMOUS, Identity, Role

_WHAT_TO_SEND: Final = "send one as `Authorization: Bearer <key>` or `X-API-Key: <key>`"


def is_open(method: str, path: str) -> bool:
    """What needs no key: the root page that every CLI command asks for first, health probes, and preflights."""
    if method == "OPTIONS" or path == "/health" or path.startswith("/health/"):
        return True
    return path == "/" and method in ("GET", "HEAD")


def is_trusted(headers: Headers, security: SecuritySection) -> bool:
    """Whether a request may see what is not for everybody: it has a valid key, or none is needed."""
    return not security.keys_required or _matches(_presented(headers), security.api_keys)


def identity(headers: Headers, config: Config) -> Identity:
    """Who asks; whoever comes this far has shown a valid key if one is needed."""
    return Identity(ANONYMOUS, Role.ADMIN)


def refusal(path: str, headers: Headers, keys: Sequence[SecretStr]) -> FleetError | None:
    """The error for a request without a valid key, or None.

    Native routes get a 403: Ollama's own CLI takes every 401 for "sign in to the cloud".
    """
    if _matches(_presented(headers), keys):
        return None
    if path.startswith("/api/") and not path.startswith("/api/orchestrator"):
        return Forbidden(f"a valid API key is needed: {_WHAT_TO_SEND}")
    return Unauthorized("a valid API key is needed", details=_WHAT_TO_SEND)


def _presented(headers: Headers) -> list[bytes]:
    found = [key for name in (b"x-api-key", b"api-key") if (key := field(headers, name))]
    scheme, _, token = (field(headers, b"authorization") or b"").partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        found.append(token.strip())
    return found


def _matches(presented: list[bytes], keys: Sequence[SecretStr]) -> bool:
    """Compares with every key, so that the time taken says nothing about which was close."""
    known = [key.get_secret_value().encode() for key in keys]
    equal = [hmac.compare_digest(mine, theirs) for mine in known for theirs in presented]
    return any(equal)
