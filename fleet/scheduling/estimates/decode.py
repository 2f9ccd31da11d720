"""How long a token of the answer takes, by how many streams run beside it.

Formula: t0 + t1 b, by least squares over (b, eval_duration / eval_count) with weights that halve each quarter of an
hour; both >= 0; at most 4x the median of the last 32 samples, and no sample counts as more (or less) than 4x the median
before it. Half a sample of the prior for t0 is mixed in, and half a one for t1 (a tenth of the level per stream), so
that a runner that was only seen alone has a slope, too, and a forgotten one is unknown again. Prior of t0: the server's
seconds per token and byte times the size of the model, then the fleet's (its fast quartile), then 0.02 s.
Units: seconds per token, streams, bytes. Source: `eval_duration` and `eval_count` of answers of eight tokens or more,
b the mean number of other leases open on the server meanwhile.

What it is wrong about: it is a line; beyond the runner's slots nothing runs beside. Long contexts slow decoding down,
and foreign work on the GPU does, unseen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from fleet.common.ids import ModelName, Pair, ServerId
from fleet.common.lru_table import LruTable
from fleet.scheduling.estimates.averages.bounds import NO_TRUST, blended, faded, sane
from fleet.scheduling.estimates.averages.plain_rows import rows_of
from fleet.scheduling.estimates.averages.sample_ring import SampleRing

STEP: Final = 0.02
"""Seconds per token before anything is known."""
SHORTEST, LONGEST = 1e-5, 60.0
SLOPE: Final = 0.1
"""What each stream beside adds, as a share of the level, before anything is known."""
ENOUGH: Final = 8
_MOST_STREAMS: Final = 1024.0
_CLAMP: Final = 4.0
_QUARTILE: Final = 0.25
_PRIOR: Final = 0.5
_LATELY: Final = 32
_FLEET: Final = 64
_FEW: Final = 5
_HALF_LIFE: Final = 900.0
_PAIRS: Final = 4096
_SERVERS: Final = 1024


@dataclass(slots=True)
class _Fit:
    """The sums of the normal equations at `at`, weights halving with time."""

    w: float = 0.0
    b: float = 0.0
    bb: float = 0.0
    y: float = 0.0
    by: float = 0.0
    at: float = -math.inf
    lately: SampleRing = field(default_factory=lambda: SampleRing(_LATELY, _HALF_LIFE))

    def add(self, beside: float, step: float, now: float) -> None:
        left = faded(now - self.at, _HALF_LIFE) if self.w else 0.0
        self.w, self.b, self.bb = self.w * left + 1.0, self.b * left + beside, self.bb * left + beside * beside
        self.y, self.by = self.y * left + step, self.by * left + beside * step
        self.at = max(self.at, now)

    def line(self, prior: float, now: float) -> tuple[float, float]:
        """The level alone and the slope per stream beside it."""
        left = faded(now - self.at, _HALF_LIFE) if self.w else 0.0
        w, b, bb = self.w * left + _PRIOR, self.b * left, self.bb * left + _PRIOR
        y = self.y * left + _PRIOR * prior
        slope = SLOPE * (y / w) / (1.0 + SLOPE * b / w)
        by = self.by * left + _PRIOR * slope
        determinant = w * bb - b * b  # at least _PRIOR * w: b * b <= (w - _PRIOR) * (bb - _PRIOR)
        t0, t1 = (y * bb - by * b) / determinant, (w * by - b * y) / determinant
        if t1 < 0.0:
            return y / w, 0.0
        return (t0, t1) if t0 >= 0.0 else (0.0, by / bb)


class DecodeSpeed:
    """Bounded memory: 4,096 pairs of 0.8 KiB, 1,024 servers."""

    def __init__(self) -> None:
        self._pairs: LruTable[Pair, _Fit] = LruTable(_PAIRS)
        self._servers: LruTable[ServerId, SampleRing] = LruTable(_SERVERS)
        self._fleet = SampleRing(_FLEET, _HALF_LIFE)
        self._steps = SampleRing(_FLEET, _HALF_LIFE)

    def step(self, pair: Pair, size: int | None, beside: float, now: float) -> float:
        """Seconds per token with so many streams beside it."""
        t0, t1, most = self.line(pair, size, now)
        return max(SHORTEST, min(t0 + t1 * max(beside, 0.0), most))

    def line(self, pair: Pair, size: int | None, now: float) -> tuple[float, float, float]:
        """Seconds per token alone, what each stream beside adds, and the most that both together may be."""
        fit, prior = self._pairs.get(pair), self._prior(pair.server, size, now)
        if fit is None:
            return prior, SLOPE * prior, _CLAMP * prior
        median, weight = fit.lately.weighed(0.5, now)
        most = _CLAMP * (prior if median is None else blended(median, weight, prior))
        return (*fit.line(prior, now), most)

    def learn(self, pair: Pair, size: int | None, beside: float, tokens: object, seconds: object, now: float) -> None:
        """An answer that ended well. `beside`: the mean number of other leases open there while it was decoded."""
        count, took, streams = sane(tokens, 0.0, 1e7), sane(seconds, 0.0, 1e6), sane(beside, 0.0, _MOST_STREAMS)
        if count is None or took is None or streams is None or count < ENOUGH or took <= 0.0 or not math.isfinite(now):
            return
        step = min(max(took / count, SHORTEST), LONGEST)
        fit = self._pairs.use(pair, _Fit)
        median = fit.lately.quantile(0.5, now) if len(fit.lately) >= _FEW else None
        fit.lately.add(step, now)
        fit.add(streams, step if median is None else min(max(step, median / _CLAMP), median * _CLAMP), now)
        alone = step / (1.0 + SLOPE * streams)
        self._steps.add(alone, now)
        if size is not None and size > 0:
            self._servers.use(pair.server, _fresh).add(alone / size, now)
            self._fleet.add(alone / size, now)

    def to_plain(self, now: float, most: int) -> list[list[object]]:
        """Rows of server, model, sums and the last samples."""
        rows: list[list[object]] = []
        for pair, fit in list(self._pairs.items())[-most:]:
            left = faded(now - fit.at, _HALF_LIFE)
            sums = [each * left for each in (fit.w, fit.b, fit.bb, fit.y, fit.by)]
            if sums[0] > NO_TRUST:
                rows.append([*pair, [sums, fit.lately.to_plain(now)]])
        return rows

    def load_plain(self, data: object, now: float) -> None:
        """Add what `to_plain` gave; absurd rows are left out."""
        for (server, model), plain in rows_of(data, 2, _PAIRS):
            sums = plain[0] if isinstance(plain, list) and len(plain) == 2 else None
            if isinstance(sums, list) and len(sums) == 5:
                w, b, bb, y, by = (sane(each, 0.0, 1e12) or 0.0 for each in sums)
                if w > 0.0 and b * b <= 1.000001 * w * bb and w * SHORTEST <= y <= w * LONGEST:
                    fit = _Fit(w, b, max(bb, b * b / w), y, by, now)
                    fit.lately.load_plain(plain[1] if isinstance(plain, list) else None, now, SHORTEST, LONGEST)
                    self._pairs.put(Pair(ServerId(server), ModelName(model)), fit)

    def _prior(self, server: ServerId, size: int | None, now: float) -> float:
        step, weight = self._steps.weighed(_QUARTILE, now)
        prior = STEP if step is None else blended(step, weight, STEP)
        if size is None or size <= 0:
            return prior
        known = self._servers.get(server)
        for ring, share in ((self._fleet, _QUARTILE), (known, 0.5)):
            per_byte, weight = (None, 0.0) if ring is None else ring.weighed(share, now)
            prior = prior if per_byte is None else blended(per_byte * size, weight, prior)
        return min(max(prior, SHORTEST), LONGEST)


def _fresh() -> SampleRing:
    return SampleRing(_LATELY, _HALF_LIFE)
