"""Requests that kill the runners they meet: known again by a keyed hash, so that they do not walk the fleet.

Whoever was there when a runner died is a suspect, and is tried once more at most, on another server, with nobody beside
it. A suspect whose second runner dies too is convicted: the same request is refused at once for a while. One that is
answered is a suspect no more. What died with a suspect is not held against its server.

No prompt is kept: a hash of 16 bytes with a key of this process, and where runners died. Bounded: 1,024 requests.

What it is wrong about: two servers that are broken by themselves convict whoever meets both, for as long as it lasts.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, NamedTuple

from fleet.common.ids import ModelName, ServerId
from fleet.common.lru_table import LruTable

REMEMBERED: Final = 300.0
"""Seconds for which a death is remembered."""
_MOST: Final = 1024


class Standing(enum.Enum):
    """What is known of a request."""

    CLEAR = "clear"
    SUSPECT = "suspect"
    CONVICTED = "convicted"


class Fingerprint(NamedTuple):
    """By what a request is known again."""

    model: ModelName
    size: int
    digest: bytes


@dataclass(slots=True)
class _Deaths:
    last: float
    servers: set[ServerId] = field(default_factory=set)
    convicted: bool = False


class PoisonTable:
    """`key`: secret, of this process. Times in seconds on the caller's clock."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._deaths: LruTable[Fingerprint, _Deaths] = LruTable(_MOST)
        self._shapes: set[tuple[ModelName, int]] = set()

    def __len__(self) -> int:
        """How many requests are remembered."""
        return len(self._deaths)

    def standing(self, model: ModelName, body: bytes, now: float) -> Standing:
        """What is known of a request. Costs a look-up, and a hash only where one of that size has been a suspect."""
        if not self._shapes or (model, len(body)) not in self._shapes:
            return Standing.CLEAR
        deaths = self._deaths.get(self._fingerprint(model, body))
        if deaths is None or now - deaths.last >= REMEMBERED:
            return Standing.CLEAR
        return Standing.CONVICTED if deaths.convicted else Standing.SUSPECT

    def died(self, model: ModelName, body: bytes, server: ServerId, now: float, *, alone: bool) -> bool:
        """A runner died while this request was there; `alone`: with nobody beside it. True if that was its second.

        A second one on the same server proves nothing: it may be the server.
        """
        if self.standing(model, body, now) is Standing.CLEAR:
            self._forget(model, body)
        deaths = self._deaths.use(self._fingerprint(model, body), lambda: _Deaths(now))
        elsewhere = bool(deaths.servers - {server})
        deaths.last = now
        deaths.servers.add(server)
        deaths.convicted |= alone and elsewhere
        self._shapes = {(known.model, known.size) for known in self._deaths}
        return elsewhere

    def answered(self, model: ModelName, body: bytes) -> None:
        """A server answers it: it was not the cause."""
        self._forget(model, body)

    def _forget(self, model: ModelName, body: bytes) -> None:
        if (model, len(body)) in self._shapes and self._deaths.pop(self._fingerprint(model, body), None) is not None:
            self._shapes = {(known.model, known.size) for known in self._deaths}

    def _fingerprint(self, model: ModelName, body: bytes) -> Fingerprint:
        return Fingerprint(model, len(body), blake2b(body, key=self._key, digest_size=16).digest())
