"""Who is kept away from traffic by order or for a while: bans (until lifted, or for a time) and cooldowns."""

from __future__ import annotations

import enum
import heapq
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from fleet.common.ids import ModelName, Pair, ServerId

MAX_BANS: Final = 10_000


class BanKind(enum.Enum):
    """A ban is somebody's decision; a cooldown follows failed attempts and is the first to go when room is short.

    What is banned gets nothing. What cools down is passed over as long as somebody else can serve the model.
    """

    BAN = "ban"
    COOLDOWN = "cooldown"


@dataclass(frozen=True, slots=True)
class Ban:
    """One pair kept away. Times on the caller's clock; `expires_at` is infinite for "until lifted".

    `by` is the name of whoever asked for it, empty for the fleet itself.
    """

    pair: Pair
    kind: BanKind
    reason: str
    banned_at: float
    expires_at: float = math.inf
    by: str = ""

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
    changed: Callable[[Pair, BanKind], None] = field(default=lambda pair, kind: None)
    """Told of every entry that comes, goes or is replaced, which is then so."""
    _bans: dict[Key, Ban] = field(default_factory=dict)
    _by_server: dict[ServerId, dict[Key, Ban]] = field(default_factory=dict)
    _expiries: list[Expiry] = field(default_factory=list)
    _added: int = 0
    _displaced: list[Pair] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._bans)

    def add(
        self,
        pair: Pair,
        reason: str,
        now: float,
        *,
        kind: BanKind = BanKind.BAN,
        until: float = math.inf,
        by: str = "",
    ) -> bool:
        """Keep a pair away from `now` until `until`; False if there is no room."""
        if (pair, kind) not in self._bans and not self._make_room(now):
            return False
        ban = Ban(pair, kind, reason, now, until, by)
        self._bans[pair, kind] = ban
        self._by_server.setdefault(pair.server, {})[pair, kind] = ban
        if until < math.inf:
            self._added += 1
            heapq.heappush(self._expiries, (until, self._added, ban))
        self._compact()
        self.changed(pair, kind)
        return True

    def get(self, pair: Pair, kind: BanKind, now: float) -> Ban | None:
        """The pair's ban or cooldown, if it holds now."""
        ban = self._bans.get((pair, kind))
        return ban if ban is not None and ban.holds(now) else None

    def barred(self, server: ServerId, now: float) -> set[ModelName]:
        """The models that a server gets nothing of now, or only if nobody else can serve them (`cooling`)."""
        return {ban.pair.model for ban in self._by_server.get(server, {}).values() if ban.holds(now)}

    def cooling(self, server: ServerId, now: float) -> set[ModelName]:
        """The models that a server gets only if nobody else can serve them."""
        holding = [ban for ban in self._by_server.get(server, {}).values() if ban.holds(now)]
        banned = {ban.pair.model for ban in holding if ban.kind is BanKind.BAN}
        return {ban.pair.model for ban in holding} - banned

    def list(self, now: float) -> tuple[Ban, ...]:
        """All that hold now, oldest first."""
        return tuple(sorted((b for b in self._bans.values() if b.holds(now)), key=lambda b: b.banned_at))

    def lift(self, pair: Pair, kind: BanKind | None = None) -> tuple[Pair, ...]:
        """End the ban, the cooldown or (no kind) both of a pair; returns the pairs that were kept away."""
        return _pairs(self.lift_matching(pair.server, pair.model, kind))

    def lift_server(self, server: ServerId, kind: BanKind | None = None) -> tuple[Pair, ...]:
        """End those of all models of a server."""
        return _pairs(self.lift_matching(server, None, kind))

    def clear(self, kind: BanKind | None = None) -> tuple[Pair, ...]:
        """End everything, or everything of a kind."""
        return _pairs(self.lift_matching(None, None, kind))

    def lift_matching(
        self, server: ServerId | None = None, model: ModelName | None = None, kind: BanKind | None = None
    ) -> tuple[Ban, ...]:
        """End all of a server, a model and a kind; None stands for any. Returns what there was."""
        among = self._bans if server is None else self._by_server.get(server, {})
        gone = [b for b in among.values() if model in (None, b.pair.model) and kind in (None, b.kind)]
        for ban in gone:
            self._drop(ban)
        return tuple(gone)

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
            self._drop(ban)
            done.append(ban.pair)
        return tuple(dict.fromkeys(done))

    def displaced(self) -> tuple[Pair, ...]:
        """The pairs that lost an entry to make room, since this was last asked: who waits for them can be served."""
        pairs = tuple(dict.fromkeys(self._displaced))
        self._displaced.clear()
        return pairs

    def _drop(self, ban: Ban) -> None:
        key = ban.pair, ban.kind
        del self._bans[key]
        of_server = self._by_server[ban.pair.server]
        del of_server[key]
        if not of_server:
            del self._by_server[ban.pair.server]
        self.changed(*key)

    def _make_room(self, now: float) -> bool:
        if len(self._bans) >= self.limit:
            self._displaced += self.expire(now)
        if len(self._bans) >= self.limit:
            cooldowns = (b for b in self._bans.values() if b.kind is BanKind.COOLDOWN)
            nearest = min(cooldowns, key=lambda b: b.expires_at, default=None)
            if nearest is None:
                return False
            self._drop(nearest)
            self._displaced.append(nearest.pair)
        return True

    def _stale(self, entry: Expiry) -> bool:
        ban = entry[2]
        return self._bans.get((ban.pair, ban.kind)) is not ban

    def _compact(self) -> None:
        """Replaced and lifted entries stay in the heap until they are its larger half; then it is built anew."""
        if len(self._expiries) > 2 * len(self._bans) + 64:
            self._expiries = [entry for entry in self._expiries if not self._stale(entry)]
            heapq.heapify(self._expiries)


def _pairs(bans: Iterable[Ban]) -> tuple[Pair, ...]:
    return tuple(dict.fromkeys(ban.pair for ban in bans))
