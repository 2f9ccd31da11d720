"""Who is kept away from traffic by order or for a while: bans (until lifted, or for a time) and cooldowns."""

from __future__ import annotations

import enum
import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from fleet.ids import Pair, ServerId

MAX_BANS: Final = 10_000


class BanKind(enum.Enum):
    """A ban is somebody's decision; a cooldown follows a failed attempt and is the first to go when room is short."""

    BAN = "ban"
    COOLDOWN = "cooldown"


@dataclass(frozen=True, slots=True)
class Ban:
    """One pair kept away. Times on the caller's clock; `expires_at` is infinite for "until lifted"."""

    pair: Pair
    kind: BanKind
    reason: str
    banned_at: float
    expires_at: float = math.inf

    def holds(self, now: float) -> bool:
        """Whether it still counts."""
        return now < self.expires_at


Key = tuple[Pair, BanKind]
Expiry = tuple[float, int, Ban]
"""When, a running number (so that equal times never compare bans), which."""


@dataclass(slots=True)
class Bans:
    """All bans and cooldowns of the fleet. A pair may have one of each; a newer one replaces that of its kind.

    Writer: the dispatcher. At most `limit` entries: when full, expired ones go first, then the cooldown nearest its
    end; when everything left is a ban, `add` refuses rather than forget somebody's decision.
    """

    limit: int = MAX_BANS
    _bans: dict[Key, Ban] = field(default_factory=dict)
    _expiries: list[Expiry] = field(default_factory=list)
    _added: int = 0

    def __len__(self) -> int:
        return len(self._bans)

    def add(self, pair: Pair, reason: str, now: float, *, kind: BanKind = BanKind.BAN, until: float = math.inf) -> bool:
        """Keep a pair away until `until`; False if there is no room."""
        if (pair, kind) not in self._bans and not self._make_room(now):
            return False
        ban = Ban(pair, kind, reason, now, until)
        self._bans[pair, kind] = ban
        if until < math.inf:
            self._added += 1
            heapq.heappush(self._expiries, (until, self._added, ban))
        self._compact()
        return True

    def list(self, now: float) -> tuple[Ban, ...]:
        """All that hold now, oldest first."""
        return tuple(sorted((b for b in self._bans.values() if b.holds(now)), key=lambda b: b.banned_at))

    def lift(self, pair: Pair, kind: BanKind | None = None) -> tuple[Pair, ...]:
        """End the ban, the cooldown or (no kind) both of a pair; returns the pairs that were kept away."""
        kinds = BanKind if kind is None else (kind,)
        gone = [self._bans.pop((pair, each), None) for each in kinds]
        return (pair,) if any(gone) else ()

    def lift_server(self, server: ServerId, kind: BanKind | None = None) -> tuple[Pair, ...]:
        """End those of all models of a server."""
        return self._lift(lambda b: b.pair.server == server, kind)

    def clear(self, kind: BanKind | None = None) -> tuple[Pair, ...]:
        """End everything, or everything of a kind."""
        return self._lift(lambda b: True, kind)

    def next_expiry(self) -> float:
        """When `expire` has something to do; infinite if never."""
        while self._expiries and self._stale(self._expiries[0]):
            heapq.heappop(self._expiries)
        return self._expiries[0][0] if self._expiries else math.inf

    def expire(self, now: float) -> tuple[Pair, ...]:
        """Forget what has run out; returns the pairs, so that who waits for them can be served."""
        done = []
        while self.next_expiry() <= now:
            _, _, ban = heapq.heappop(self._expiries)
            del self._bans[ban.pair, ban.kind]
            done.append(ban.pair)
        return tuple(dict.fromkeys(done))

    def _lift(self, wanted: Callable[[Ban], bool], kind: BanKind | None) -> tuple[Pair, ...]:
        gone = [key for key, ban in self._bans.items() if kind in (None, ban.kind) and wanted(ban)]
        for key in gone:
            del self._bans[key]
        return tuple(dict.fromkeys(pair for pair, _ in gone))

    def _make_room(self, now: float) -> bool:
        if len(self._bans) >= self.limit:
            self.expire(now)
        if len(self._bans) >= self.limit:
            cooldowns = (b for b in self._bans.values() if b.kind is BanKind.COOLDOWN)
            nearest = min(cooldowns, key=lambda b: b.expires_at, default=None)
            if nearest is None:
                return False
            del self._bans[nearest.pair, nearest.kind]
        return True

    def _stale(self, entry: Expiry) -> bool:
        ban = entry[2]
        return self._bans.get((ban.pair, ban.kind)) is not ban

    def _compact(self) -> None:
        """Replaced and lifted entries stay in the heap until they are its larger half; then it is built anew."""
        if len(self._expiries) > 2 * len(self._bans) + 64:
            self._expiries = [entry for entry in self._expiries if not self._stale(entry)]
            heapq.heapify(self._expiries)
