"""What the guard does about the Origin of a request, by `fleet.cors`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from fleet import cors
from fleet.call import Headers
from fleet.headers import field


@dataclass(frozen=True, slots=True)
class Decision:
    """`status`: answer with it at once, with an empty body; None: go on. `fields` go on every answer."""

    status: int | None = None
    fields: tuple[tuple[bytes, bytes], ...] = ()


_NOTHING = Decision()
_allowed = lru_cache(maxsize=8)(cors.allowed_origins)


def decide(method: str, headers: Headers, configured: tuple[str, ...]) -> Decision:
    """Judge one request."""
    raw = field(headers, b"origin")
    if not raw:
        return _NOTHING
    origin = raw.decode("latin-1")
    allowed = _allowed(configured)
    verdict = cors.decide(origin, allowed, (field(headers, b"host") or b"").decode("latin-1"))
    if verdict is cors.Verdict.DENIED:
        return Decision(403)
    if verdict is cors.Verdict.ABSENT:
        return _NOTHING
    if method == "OPTIONS":
        return Decision(204, tuple(cors.preflight_headers(origin, allowed)))
    return Decision(None, tuple(cors.response_headers(origin, allowed)))
