"""What the guard does about the Origin of a request, by `fleet.security.cors`."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from fleet.config import Config
from fleet.protocol.call import Headers
from fleet.protocol.headers import field
from fleet.security import cors
from web.security.api_key_auth import FORMS, LIVE


@dataclass(frozen=True, slots=True)
class OriginDecision:
    """`status`: answer with it at once, with an empty body; None: go on. `fields` go on every answer."""

    status: int | None = None
    fields: tuple[tuple[bytes, bytes], ...] = ()


log = logging.getLogger("fleet.cors")

_SHOWN: Final = 128
_MOST_TOLD: Final = 256

NOTHING: Final = OriginDecision()
OWN_KEY: Final = "fleet.own"
"""Where the scope says what `is_own` has found, on the dashboard port."""
_FORBIDDEN: Final = OriginDecision(403)
_SAFE: Final = frozenset(("GET", "HEAD", "OPTIONS"))
_OWN: Final = frozenset((b"same-origin", b"none"))
"""What browsers say in Sec-Fetch-Site about a page of ours, and about somebody who typed the address."""
_ANYBODY: Final = re.compile(r"\*|https?://\*(?::.*)?", re.IGNORECASE)
"""All pages, or all of one scheme."""
_allowed = lru_cache(maxsize=8)(cors.allowed_origins)


class RefusedOrigins:
    """The pages that one fleet has turned away: each is told once, up to a number of them.

    A browser shows its user nothing that would help.
    """

    def __init__(self) -> None:
        self._told: set[tuple[str, bool]] = set()

    def tell(self, origin: str, *, admin: bool) -> None:
        """A page of this origin was refused."""
        known = (origin[:_SHOWN].lower(), admin)
        if known in self._told or len(self._told) >= _MOST_TOLD:
            return
        self._told.add(known)
        what = "administer the fleet" if admin else "use the fleet"
        last = "" if len(self._told) < _MOST_TOLD else " (further origins are not told)"
        log.warning("refused a page of %s that wants to %s: cors.origins could allow it%s", origin[:_SHOWN], what, last)


def decide(
    method: str, path: str, host: str, headers: Headers, config: Config, refused: RefusedOrigins
) -> OriginDecision:
    """Judge one request to `host`.

    What Ollama allows every local page is meant for models; who may administer the fleet has to be configured.
    `refused` hears of pages that are turned away.
    """
    live = path in LIVE
    admin = live or _is_admin(path)
    raw = field(headers, b"origin")
    if not raw:
        safe = method in _SAFE and not live  # there even a GET makes something
        return _FORBIDDEN if admin and not safe and _is_foreign(headers) else NOTHING
    origin = raw.decode("latin-1")
    configured = _admins(config) if admin else config.cors.origins
    allowed = _allowed(configured, defaults=not admin)
    verdict = cors.decide(origin, allowed, host)
    if verdict is cors.CorsVerdict.DENIED:
        refused.tell(origin, admin=admin)
        return _FORBIDDEN
    if verdict is cors.CorsVerdict.ABSENT:
        return NOTHING
    if method == "OPTIONS":
        return OriginDecision(204, tuple(_preflight(origin, allowed, headers, config)))
    return OriginDecision(None, tuple(cors.response_headers(origin, allowed)))


def is_own(method: str, path: str, host: str, headers: Headers) -> bool:
    """Whether a page of ours makes this request, or somebody who typed or followed an address: then a pass counts.

    A page on another port of the same machine is of the same site to a browser, so it sends our cookie along. What
    changes something, or makes a session, has to come with proof that it was our page; except the two forms, of which
    no page can have anything but that somebody is logged in or out, and browsers always say where those come from.
    """
    origin, site = field(headers, b"origin"), (field(headers, b"sec-fetch-site") or b"").lower()
    if site == b"same-origin":
        return True
    if origin is not None:
        return cors.decide(origin.decode("latin-1"), (), host) is cors.CorsVerdict.ABSENT and origin != b""
    if method == "POST" and path in FORMS:
        return site == b""
    harmless = method in _SAFE and path not in LIVE
    return harmless and (site in (b"", b"none") or field(headers, b"sec-fetch-mode") == b"navigate")


def _preflight(origin: str, allowed: tuple[str, ...], headers: Headers, config: Config) -> list[cors.Field]:
    asked = (field(headers, b"access-control-request-headers") or b"").decode("latin-1")
    private = (field(headers, b"access-control-request-private-network") or b"").lower() == b"true"
    return cors.preflight_headers(origin, allowed, asked=asked, extra=config.cors.headers, private=private)


def _admins(config: Config) -> tuple[str, ...]:
    """The origins that may administer: "all pages" means that only where a page has to know a key."""
    origins = config.cors.origins
    return origins if config.security.keys_required else tuple(each for each in origins if not _ANYBODY.fullmatch(each))


def _is_foreign(headers: Headers) -> bool:
    """Whether a browser says that another site's page asks; browsers send no Origin with some old kinds of requests."""
    site = field(headers, b"sec-fetch-site")
    return site is not None and site.lower() not in _OWN


def _is_admin(path: str) -> bool:
    return path == "/api/orchestrator" or path.startswith("/api/orchestrator/")
