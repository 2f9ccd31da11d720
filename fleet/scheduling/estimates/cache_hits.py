"""How probably a prompt that a runner once evaluated is still in its prefix cache.

Formula: by age of the last use (1 minute, 5 minutes, 30 minutes, 2 hours) the share of prompts that were found cached
on that server, weights halving each half hour, with four samples of the prior mixed in: .9 .8 .5 .2, later .05.
A prompt was found cached if its `prompt_eval_duration` lies below the middle between what it takes cold and what it
takes with the hit. That is asked only where both are told apart: a third of the prompt, 20 ms. Units: seconds, tokens.

What it is wrong about: a runner that works at a different speed just then looks like a hit or a miss; caches are
flushed by the number of other prompts rather than by time; all models of a server are counted together.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from fleet.common.ids import ServerId
from fleet.common.lru_table import LruTable
from fleet.scheduling.estimates.averages.bounds import sane
from fleet.scheduling.estimates.averages.decaying_mean import DecayingMean
from fleet.scheduling.estimates.averages.plain_rows import rows_of

AGES: Final = (60.0, 300.0, 1800.0, 7200.0)
PRIORS: Final = (0.9, 0.8, 0.5, 0.2)
LATER: Final = 0.05
_STRENGTH: Final = 4.0
_HALF_LIFE: Final = 1800.0
_LEAST_SHARE: Final = 1 / 3
_LEAST_SECONDS: Final = 0.02
_SERVERS: Final = 1024


class CacheHits:
    """Bounded memory: 1,024 servers, four means each."""

    def __init__(self) -> None:
        self._servers: LruTable[ServerId, list[DecayingMean]] = LruTable(_SERVERS)

    def chance(self, server: ServerId, age: float, now: float) -> float:
        """The probability that what was used there `age` seconds ago is still cached."""
        at = bisect_left(AGES, age)
        if at == len(AGES):
            return LATER
        means = self._servers.get(server)
        return PRIORS[at] if means is None else means[at].towards(PRIORS[at], now, _STRENGTH)

    def learn(
        self, server: ServerId, age: float, tokens: float, hit: float, seconds: object, rate: float, now: float
    ) -> bool | None:
        """Whether a prompt was found cached, of which `hit` of `tokens` were expected to be; None if it does not show.

        `seconds` is its `prompt_eval_duration`, `rate` the speed without a cache in tokens per second.
        """
        took, at = sane(seconds, 0.0, 1e5), bisect_left(AGES, age)
        hit = min(hit, tokens)
        if took is None or at == len(AGES) or hit < _LEAST_SHARE * tokens or hit < _LEAST_SECONDS * rate:
            return None
        found = took < (tokens - hit / 2) / rate
        self._servers.use(server, _fresh)[at].add(float(found), now)
        return found

    def to_plain(self, now: float, most: int) -> list[list[object]]:
        """Rows of server and means by age."""
        rows: list[list[object]] = [
            [server, [mean.to_plain(now) for mean in means]] for server, means in self._servers.items()
        ]
        return rows[-most:]

    def load_plain(self, data: object, now: float) -> None:
        """Add what `to_plain` gave; absurd rows are left out."""
        for (server,), plain in rows_of(data, 1, _SERVERS):
            if isinstance(plain, list) and len(plain) == len(AGES):
                means = [DecayingMean.from_plain(each, _HALF_LIFE, now) for each in plain]
                if all(0.0 <= mean.mean <= 1.0 for mean in means):
                    self._servers.put(ServerId(server), means)


def _fresh() -> list[DecayingMean]:
    return [DecayingMean(_HALF_LIFE) for _ in AGES]
