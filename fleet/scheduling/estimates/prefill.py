"""How long a prompt takes to be evaluated: tokens that are not cached over the speed of the runner.

Formula: (n - hit) / rho; rho is the 25th percentile of n / prompt_eval_duration over the last 32 samples with hit = 0
and n >= 64, for the batch at that time (1, 2, 3-4, 5-8, more), weights halving each quarter of an hour. A bin without
samples takes the nearest one that has some; a pair without any takes the server's speed over the size of the model
(tokens/s x bytes, its median), then the fleet's (its fast quartile: the unknown shall be tried), then 1,000 tokens/s.
Units: tokens, seconds, bytes. Source: `prompt_eval_duration` and `prompt_eval_count`.

The low percentile, because hits that nobody knows of make samples too fast and never too slow: up to three quarters of
them do no harm. `prompt_eval_count` counts what was cached in new servers and not in old ones; with hit = 0 both agree.

What it is wrong about: prompts of more than some thousand tokens, whose attention grows with the square; other models
that are evaluated on the same GPU at that moment.
"""

from __future__ import annotations

from typing import Final

from fleet.common.ids import ModelName, Pair, ServerId
from fleet.common.lru_table import LruTable
from fleet.scheduling.estimates.averages.bounds import blended, sane
from fleet.scheduling.estimates.averages.plain_rows import rows_of
from fleet.scheduling.estimates.averages.sample_ring import SampleRing

RATE: Final = 1000.0
"""Tokens per second before anything is known."""
SLOWEST, FASTEST = 0.1, 1e6
ENOUGH: Final = 64
"""Tokens of a prompt from which on its duration says something."""
BATCHES: Final = 5
_BIN_OF: Final = (0, 0, 1, 2, 2, 3, 3, 3, 3)
_QUARTILE: Final = 0.25
_LATELY: Final = 32
_FLEET: Final = 64
_HALF_LIFE: Final = 900.0
_PAIRS: Final = 4096
_SERVERS: Final = 1024

Rings = list[SampleRing | None]


def batch_bin(batch: int) -> int:
    """The bin of so many requests at once, this one included."""
    return _BIN_OF[max(batch, 0)] if batch < len(_BIN_OF) else BATCHES - 1


class PrefillSpeed:
    """Bounded memory: 4,096 pairs with five bins of 512 bytes each, made when first used."""

    def __init__(self) -> None:
        self._pairs: LruTable[Pair, Rings] = LruTable(_PAIRS)
        self._servers: LruTable[ServerId, SampleRing] = LruTable(_SERVERS)
        self._speeds = SampleRing(_FLEET, _HALF_LIFE)
        self._rates = SampleRing(_FLEET, _HALF_LIFE)

    def seconds(self, pair: Pair, size: int | None, batch: int, tokens: float, now: float) -> float:
        """Seconds to evaluate so many tokens, none of them cached, `batch` requests being open with this one."""
        return max(tokens, 0.0) / self.rate(pair, size, batch, now)

    def rate(self, pair: Pair, size: int | None, batch: int, now: float) -> float:
        """Tokens per second, between `SLOWEST` and `FASTEST`. `size` of the model in bytes, None if unknown."""
        return self.rates(pair, size, now)[batch_bin(batch)]

    def rates(self, pair: Pair, size: int | None, now: float) -> list[float]:
        """The same for each bin of batches."""
        rings, prior = self._pairs.get(pair), self._prior(pair.server, size, now)
        if rings is None:
            return [prior] * BATCHES
        known = {at: ring.weighed(_QUARTILE, now) for at, ring in enumerate(rings) if ring is not None}
        rates = []
        for at in range(BATCHES):
            rate = prior
            for other in sorted(known, key=lambda other: -abs(other - at)):  # the nearest last
                slow, weight = known[other]
                rate = rate if slow is None else blended(slow, weight, rate)
            rates.append(rate)
        return rates

    def learn(self, pair: Pair, size: int | None, batch: int, tokens: object, seconds: object, now: float) -> None:
        """A prompt of which surely nothing was cached took so long."""
        count, took = sane(tokens, 0.0, 1e7), sane(seconds, 0.0, 1e5)
        if count is None or took is None or count < ENOUGH or took <= 0.0:
            return
        rate = min(max(count / took, SLOWEST), FASTEST)
        self._ring(pair, batch_bin(batch)).add(rate, now)
        self._rates.add(rate, now)
        if size is not None and size > 0:
            self._servers.use(pair.server, _fresh).add(rate * size, now)
            self._speeds.add(rate * size, now)

    def to_plain(self, now: float, most: int) -> list[list[object]]:
        """Rows of server, model and samples by bin."""
        return [
            [*pair, [[] if ring is None else ring.to_plain(now) for ring in rings]]
            for pair, rings in list(self._pairs.items())[-most:]
        ]

    def load_plain(self, data: object, now: float) -> None:
        """Add what `to_plain` gave; absurd rows are left out."""
        for (server, model), plain in rows_of(data, 2, _PAIRS):
            for at, samples in enumerate(plain if isinstance(plain, list) and len(plain) == BATCHES else ()):
                if samples:
                    ring = self._ring(Pair(ServerId(server), ModelName(model)), at)
                    ring.load_plain(samples, now, SLOWEST, FASTEST)

    def _ring(self, pair: Pair, at: int) -> SampleRing:
        rings = self._pairs.use(pair, lambda: [None] * BATCHES)
        ring = rings[at]
        if ring is None:
            ring = rings[at] = _fresh()
        return ring

    def _prior(self, server: ServerId, size: int | None, now: float) -> float:
        rate, weight = self._rates.weighed(1.0 - _QUARTILE, now)
        prior = RATE if rate is None else blended(rate, weight, RATE)
        if size is None or size <= 0:
            return prior
        known = self._servers.get(server)
        for ring, share in ((self._speeds, 1.0 - _QUARTILE), (known, 0.5)):
            speed, weight = (None, 0.0) if ring is None else ring.weighed(share, now)
            prior = prior if speed is None else blended(speed / size, weight, prior)
        return min(max(prior, SLOWEST), FASTEST)


def _fresh() -> SampleRing:
    return SampleRing(_LATELY, _HALF_LIFE)
