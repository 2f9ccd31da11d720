"""Rate limits: what counts on which port, who a client is, and what an answer says about it; the same in both lanes.

A client is the key it has shown, if that is a valid one, else its address; of IPv6 the /64, because that is what one
subscriber has. Budgets live in the gate, so that both lanes take from the same.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Hashable
from typing import Final

from fleet.common.errors import FleetError
from fleet.config import Config
from fleet.protocol.call import Headers
from fleet.protocol.endpoints import ENDPOINTS, PINNABLE, Endpoint, EndpointKind
from fleet.security.rate_limit import SECOND, Rate, RateVerdict, per_minute
from web.http.ports import Face
from web.security.request_gate import Guarded, RequestGate

log = logging.getLogger(__name__)

_PROBES: Final = frozenset(("/health/live", "/health/ready"))
_QUIET: Final = 60 * SECOND
_FIELDS: Final = (b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset")
_LINES: Final = b"".join(b"%b: %%d\r\n" % name for name in _FIELDS)
_SETTINGS: Final = {
    Face.PROXY: "monitoring.rate_limit_per_minute",
    Face.METRICS: "security.rate_limiting.requests_per_minute",
}


class RateLimited(FleetError):
    """The client has used up what it may ask for in a minute."""

    status, code, reason = 429, "RATE_LIMIT_EXCEEDED", "RATE_LIMIT_EXCEEDED"


def rate_of(face: Face, config: Config) -> Rate | None:
    """What every client has on a face; None: as much as it likes."""
    limiting = config.security.rate_limiting
    if not limiting.enabled or face not in _SETTINGS:
        return None
    limit = config.monitoring.rate_limit_per_minute if face is Face.PROXY else limiting.requests_per_minute
    return per_minute(limit) if limit else None


def counts(face: Face, method: str, path: str) -> bool:
    """Whether a request (its path decoded) is one of those that a face limits. Probes of an orchestrator never are."""
    if face is Face.PROXY:
        base, pinned, _ = path.partition("--")
        endpoint = ENDPOINTS.get(base) if not pinned or base in PINNABLE else None
        return method == "POST" and endpoint is not None and generates(endpoint)
    return face is Face.METRICS and path not in _PROBES


def generates(endpoint: Endpoint) -> bool:
    """Whether a model has to write for it. Clients ask for the description of one model after the other, and for the
    embeddings of one chunk of a document after the other."""
    return endpoint.kind is not EndpointKind.SHOW and not endpoint.embedding


def fields_of(verdict: RateVerdict) -> Headers:
    """What the answer to a counted request has to say, whatever else it will be."""
    values = (b"%d" % number for number in verdict[1:4])
    return tuple(zip(_FIELDS, values, strict=True))


def lines_of(verdict: RateVerdict) -> bytes:
    """The same as complete lines."""
    return _LINES % verdict[1:4]


def address_of(client: str) -> Hashable:
    """By what a client without a key is known: its address, or the first half of an IPv6 one."""
    if ":" not in client:
        return client
    try:
        return socket.inet_pton(socket.AF_INET6, client.partition("%")[0])[:8]
    except OSError:
        return client


class RateLimiter:
    """Counts the requests that come in by one face."""

    __slots__ = ("_budgets", "_face", "_listener", "_quiet_until", "_system")

    def __init__(self, system: Guarded, gate: RequestGate, face: Face) -> None:
        self._system = system
        self._budgets = gate.limiter(face)
        self._face = face
        self._listener = face.value
        self._quiet_until = 0

    def count(self, rate: Rate, key: str, client: str) -> RateVerdict:
        """Count one request. `key` is the name of the valid one it has shown, or empty; `client` its address."""
        now, wall = self._system.clock.nanoseconds()
        if key:
            return self._budgets.keys.ask(key, rate, now, wall)
        return self._budgets.addresses.ask(address_of(client), rate, now, wall)

    def refusal(self, verdict: RateVerdict, who: str) -> RateLimited:
        """The error for a request that was one too many. `who` (a key's name or an address) is for the log."""
        self._system.statistics.metrics.limited(self._listener)
        now, _ = self._system.clock.nanoseconds()
        if now >= self._quiet_until:  # one line for all of them, or a client in a loop would fill the log
            self._quiet_until = now + _QUIET
            log.info("rate limit reached", extra={"listener": self._listener, "client": who, "limit": verdict.limit})
        return RateLimited(
            f"rate limit of {verdict.limit} requests per minute exceeded",
            details=f"{_SETTINGS[self._face]} sets the limit; X-RateLimit-Reset says when all of it is there again",
            retry_after=verdict.retry_after,
        )
