"""What the guard does about the Origin of a request, by `fleet.cors`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from fleet import cors
from fleet.call import Headers
from fleet.headers import field


@dataclass(frozen=True, slots=True)
class Decision:
    """`status`: answer with it at once, with an empty body; None: go on. `fields` go on every answer."""

    status: int | None = None
    fields: tuple[tuple[bytes, bytes], ...] = ()


NOTHING: Final = Decision()
_allowed = lru_cache(maxsize=8)(cors.allowed_origins)


def decide(method: str, path: str, host: str, headers: Headers, configured: tuple[str, ...]) -> Decision:
    """Judge one request to `host`.

    What Ollama allows every local page is meant for models; who may administer the fleet has to be configured.
    """
    raw = field(headers, b"origin")
    if not raw:
        return NOTHING
    origin = raw.decode("latin-1")
    allowed = _allowed(configured, defaults=not _is_admin(path))
    verdict = cors.decide(origin, allowed, host)
    if verdict is cors.Verdict.DENIED:
        return Decision(403)
    if verdict is cors.Verdict.ABSENT:
        return NOTHING
    if method == "OPTIONS":
        return Decision(204, tuple(cors.preflight_headers(origin, allowed)))
    return Decision(None, tuple(cors.response_headers(origin, allowed)))


def _is_admin(path: str) -> bool:
    return path == "/api/orchestrator" or path.startswith("/api/orchestrator/")
