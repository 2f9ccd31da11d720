"""How long it will take until a model is loaded on a server.

Formula: the rest of a load that is under way; else the rest of the loads ahead (one after another on each server), the
time until the victims are idle (the caller's to say), and the load itself: the median of the pair's last five **of its
tier**, else size over the speed at which the server, or else the fleet, has loaded from that tier, else a guess.
Units: seconds, bytes. Source: `load_duration` over 100 ms of the request that began the load, minus what it overlapped
with loads of other models there. Tiers (ServerlessLLM, OSDI 2024): what was loaded there within 30 minutes is still in
the page cache; from disk a load takes several times as long. Samples weigh half after six hours;
below half a fresh sample the prior takes over.

What it is wrong about: the page cache is gone earlier when other large files were read, and stays longer when not; a
foreign client's load stands ahead unseen; one that has overrun its time is given a tenth of its age more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from fleet.common.ids import ModelName, Pair, ServerId
from fleet.common.lru_table import LruTable
from fleet.scheduling.estimates.averages.bounds import blended, sane
from fleet.scheduling.estimates.averages.plain_rows import rows_of
from fleet.scheduling.estimates.averages.sample_ring import SampleRing

REAL: Final = 0.1
"""Seconds. A warm runner says 0.4 to 7 ms, a load 250 ms at the least: what is shorter loaded nothing."""
LONGEST: Final = 1800.0
PAGE_CACHE: Final = 1800.0
"""Seconds after which a file is taken to have left the page cache."""
CACHED, DISK = 0, 1
_FASTER: Final = 2.0
"""How much faster a load from the page cache is held to be, as long as only the other kind was seen."""
_GUESS: Final = (3.0, 10.0)
_START: Final = (0.5, 1.0)
_SPEED: Final = (4e9, 1e9)
_SLOWEST, _FASTEST = 1e5, 1e12
_LOST: Final = 900.0
_LATELY: Final = 5
_HALF_LIFE: Final = 6 * 3600.0
_PAIRS: Final = 8192
_SERVERS: Final = 1024
_KNOWN: Final = 8

Tiers = tuple[SampleRing, SampleRing]


def _tiers() -> Tiers:
    return SampleRing(_LATELY, _HALF_LIFE), SampleRing(_LATELY, _HALF_LIFE)


@dataclass(slots=True)
class LoadUnderWay:
    """One load on a server, under way until `ended`. `tier` is the one it began from."""

    model: ModelName
    began: float
    expected: float
    tier: int
    ended: float = math.inf


@dataclass(slots=True)
class _PairLoads:
    tiers: Tiers = field(default_factory=_tiers)
    seen: float = -math.inf


class LoadSeconds:
    """Bounded memory: 8,192 pairs, 1,024 servers with eight loads each."""

    def __init__(self) -> None:
        self._pairs: LruTable[Pair, _PairLoads] = LruTable(_PAIRS)
        self._speeds: LruTable[ServerId, Tiers] = LruTable(_SERVERS)
        self._fleet: Tiers = _tiers()
        self._loads: LruTable[ServerId, list[LoadUnderWay]] = LruTable(_SERVERS)

    def seconds(self, pair: Pair, size: int | None, now: float, drain: float = 0.0) -> float:
        """Seconds until it would be loaded. `drain`: until what has to leave for it is idle."""
        return self.ahead(pair, now) + (0.0 if self.loading(pair, now) else drain + self.alone(pair, size, now))

    def ahead(self, pair: Pair, now: float) -> float:
        """Seconds of loads that are under way there: up to its own, that included, or else all."""
        loads = self._loads.get(pair.server)
        if not loads:
            return 0.0
        left, last_end = 0.0, max((load.ended for load in loads if load.ended <= now), default=-math.inf)
        for load in loads:
            if _under_way(load, now):
                elapsed = 0.0 if left else now - max(load.began, last_end)
                left += max(load.expected - elapsed, elapsed / 10, REAL)
                if load.model == pair.model:
                    break
        return left

    def loading(self, pair: Pair, now: float) -> bool:
        """Whether a load of it is under way there."""
        loads = self._loads.get(pair.server)
        return bool(loads) and any(load.model == pair.model and _under_way(load, now) for load in loads or ())

    def alone(self, pair: Pair, size: int | None, now: float, tier: int | None = None) -> float:
        """Seconds of the load itself, from the tier that the file is in now or from another."""
        tier = self.tier(pair, now) if tier is None else tier
        other = self._median(pair, 1 - tier, now)
        prior = self._prior(pair.server, size, tier, now)
        if other is not None:  # from the page cache it is never slower than from disk
            prior = min(prior, other) if tier == CACHED else max(prior, other)
        return min(max(self._median(pair, tier, now, prior) or prior, REAL), LONGEST)

    def tier(self, pair: Pair, now: float) -> int:
        """`CACHED` if it was loaded there lately."""
        known = self._pairs.get(pair)
        return CACHED if known is not None and now - known.seen <= PAGE_CACHE else DISK

    def seen(self, pair: Pair, now: float) -> None:
        """It is loaded there, or was until now: its file is in the page cache."""
        self._pairs.use(pair, _PairLoads).seen = now

    def began(self, pair: Pair, size: int | None, now: float) -> bool:
        """A request was sent that makes the server load it; False if that load was under way already."""
        if self.loading(pair, now):
            return False
        loads = self._loads.use(pair.server, list)
        loads.append(LoadUnderWay(pair.model, now, self.alone(pair, size, now), self.tier(pair, now)))
        del loads[:-_KNOWN]
        return True

    def ended(self, pair: Pair, now: float) -> None:
        """The load under way is over: the first chunk came, or the request that waited for it failed."""
        for load in self._loads.get(pair.server, ()):
            if load.model == pair.model and load.ended == math.inf:
                load.ended = now

    def learn(self, pair: Pair, size: int | None, load_seconds: object, sent: float, now: float) -> None:
        """The request that was sent at `sent` and began the load says what it took. Under `REAL`: it was none."""
        told = sane(load_seconds, 0.0, LONGEST)
        if told is None or told < REAL:
            return
        own = next((load for load in self._loads.get(pair.server, ()) if _is(load, pair.model, sent)), None)
        tier = self.tier(pair, sent) if own is None else own.tier
        start = self._start(pair, sent, sent + told)
        self.seen(pair, now)
        if start is None or sent + told - start < REAL:
            return
        took = sent + told - start
        self._pairs.use(pair, _PairLoads).tiers[tier].add(took, now)
        if size is not None and size > 0:
            speed = min(max(size / took, _SLOWEST), _FASTEST)
            self._speeds.use(pair.server, _tiers)[tier].add(speed, now)
            self._fleet[tier].add(speed, now)

    def to_plain(self, now: float, most: int) -> list[list[object]]:
        """Rows of server, model and samples by tier."""
        return [
            [*pair, [*(ring.to_plain(now) for ring in known.tiers), now - known.seen]]
            for pair, known in list(self._pairs.items())[-most:]
            if known.seen > -math.inf
        ]

    def load_plain(self, data: object, now: float) -> None:
        """Add what `to_plain` gave; absurd rows are left out."""
        for (server, model), plain in rows_of(data, 2, _PAIRS):
            if isinstance(plain, list) and len(plain) == 3 and (age := sane(plain[2], 0.0, 1e9)) is not None:
                known = self._pairs.use(Pair(ServerId(server), ModelName(model)), _PairLoads)
                known.seen = now - age
                for ring, samples in zip(known.tiers, plain, strict=False):
                    ring.load_plain(samples, now, REAL, LONGEST)

    def _start(self, pair: Pair, sent: float, until: float) -> float | None:
        """When its own load began: after the others that were before it; None if one of those may still go on."""
        start = sent
        for load in self._loads.get(pair.server, ()):
            if load.model != pair.model and load.began <= sent and load.ended > sent:
                if load.ended == math.inf:
                    return None
                start = max(start, min(load.ended, until))
        return start

    def _median(self, pair: Pair, tier: int, now: float, prior: float | None = None) -> float | None:
        """The pair's own; as what it saw grows old, the prior takes over."""
        known = self._pairs.get(pair)
        median = None if known is None else known.tiers[tier].quantile(0.5, now)
        if known is None or median is None or prior is None:
            return median
        return blended(median, known.tiers[tier].weight_at(now), prior)

    def _prior(self, server: ServerId, size: int | None, tier: int, now: float) -> float:
        if size is None or size <= 0:
            return _GUESS[tier]
        for tiers in (self._speeds.get(server), self._fleet):
            if tiers is not None and (speed := tiers[tier].quantile(0.5, now)) is not None:
                return size / speed
        for tiers in (self._speeds.get(server), self._fleet):  # of the other tier, half or twice as fast
            if tiers is not None and (speed := tiers[1 - tier].quantile(0.5, now)) is not None:
                return size / speed / (_FASTER if tier == CACHED else 1.0 / _FASTER)
        return _START[tier] + size / _SPEED[tier]


def _under_way(load: LoadUnderWay, now: float) -> bool:
    return load.ended == math.inf and now - load.began < max(_LOST, 3 * load.expected)


def _is(load: LoadUnderWay, model: ModelName, sent: float) -> bool:
    return load.model == model and abs(load.began - sent) < 1e-3
