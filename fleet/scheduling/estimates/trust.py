"""How far predictions for a pair are off: a correction, and when not to rely on them at all.

Formula: the factor exp(mean log(actual / predicted)) within [0.5, 2], weights halving each quarter of an hour, three
samples of 1 mixed in; predictions are taken **before** the factor, or it would undo itself. The error that is left,
|log(actual / (factor x predicted))|: if its median over the last 50 requests is above log 2 (out by a factor of two,
half of the time), choices among warm servers fall back to LMetric (see `lmetric`) until it is below log 1.8. That
error is of predictions with the length that the answer turned out to have: nobody can foresee it, in chats it varies by
more than two, and it is the same wherever the request goes. Without units.

What it is wrong about: it corrects a pair's requests as if all were off by the same factor; a wrong size of one
client's answers moves the factor for the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from fleet.common.ids import ModelName, Pair, ServerId
from fleet.common.lru_table import LruTable
from fleet.scheduling.estimates.averages.bounds import sane
from fleet.scheduling.estimates.averages.decaying_mean import DecayingMean
from fleet.scheduling.estimates.averages.plain_rows import rows_of
from fleet.scheduling.estimates.averages.sample_ring import SampleRing

LOWEST, HIGHEST = 0.5, 2.0
TOO_FAR: Final = math.log(2.0)
NEAR_AGAIN: Final = math.log(1.8)
ENOUGH: Final = 10.0
"""Fresh samples before a pair is called unreliable, or reliable again."""
_ABSURD: Final = math.log(100.0)
_SHORTEST: Final = 1e-4
_LONGEST: Final = 1e5
_STRENGTH: Final = 3.0
_LATELY: Final = 50
_HALF_LIFE: Final = 900.0
_SUBJECTS: Final = 8192


@dataclass(slots=True)
class Accuracy:
    """Of one kind of prediction: its bias, and what is left when that is corrected."""

    bias: DecayingMean = field(default_factory=lambda: DecayingMean(_HALF_LIFE))
    errors: SampleRing = field(default_factory=lambda: SampleRing(_LATELY, _HALF_LIFE))
    wild: bool = False

    def factor(self, now: float) -> float:
        """What to multiply a prediction with."""
        return min(max(math.exp(self.bias.towards(0.0, now, _STRENGTH)), LOWEST), HIGHEST)

    def error(self, now: float) -> float | None:
        """The median of |log(actual / corrected prediction)|; None if nothing is known."""
        return self.errors.quantile(0.5, now)

    def learn(self, predicted: object, actual: object, now: float) -> None:
        """One prediction, uncorrected, and what came of it. Both in one unit; what is not positive is dropped."""
        one, other = sane(predicted, _SHORTEST, _LONGEST), sane(actual, _SHORTEST, _LONGEST)
        if one is None or other is None:
            return
        off = min(max(math.log(other / one), -_ABSURD), _ABSURD)
        self.errors.add(abs(off - math.log(self.factor(now))), now)
        self.bias.add(off, now)
        if self.errors.weight_at(now) >= ENOUGH:
            self.wild = (self.error(now) or 0.0) > (NEAR_AGAIN if self.wild else TOO_FAR)

    def unreliable(self, now: float) -> bool:
        """Whether to fall back; what is forgotten is given another chance."""
        return self.wild and self.errors.weight_at(now) >= ENOUGH / 4


class Trust:
    """Accuracy by pair: as it was predicted, and with the true length of answers. Bounded: 8,192 pairs of 2 KiB."""

    def __init__(self) -> None:
        self._pairs: LruTable[Pair, Accuracy] = LruTable(_SUBJECTS)
        self._speeds: LruTable[Pair, Accuracy] = LruTable(_SUBJECTS)

    def of(self, pair: Pair) -> Accuracy | None:
        """What is known of a pair; None if nothing is."""
        return self._pairs.get(pair)

    def reliable(self, pair: Pair, now: float) -> bool:
        """Whether to go by predictions for the pair; what is unknown is given its chance."""
        speed = self._speeds.get(pair)
        return speed is None or not speed.unreliable(now)

    def speed_error(self, pair: Pair, now: float) -> float | None:
        """The median of |log(actual / predicted)| with the true lengths of answers; None if nothing is known."""
        speed = self._speeds.get(pair)
        return None if speed is None else speed.error(now)

    def learn(self, pair: Pair, predicted: object, actual: object, now: float, hindsight: object = None) -> None:
        """Seconds that a request was predicted to take there, uncorrected, and those that it took.

        `hindsight`: what would have been predicted had the length of its answer been known; None: nothing.
        """
        self._pairs.use(pair, Accuracy).learn(predicted, actual, now)
        self._speeds.use(pair, Accuracy).learn(hindsight, actual, now)

    def to_plain(self, now: float, most: int) -> list[list[object]]:
        """Rows of server, model and bias: errors are measured anew after a restart."""
        return [[*pair, accuracy.bias.to_plain(now)] for pair, accuracy in list(self._pairs.items())[-most:]]

    def load_plain(self, data: object, now: float) -> None:
        """Add what `to_plain` gave; absurd rows are left out."""
        for (server, model), plain in rows_of(data, 2, _SUBJECTS):
            bias = DecayingMean.from_plain(plain, _HALF_LIFE, now)
            if bias.weight and abs(bias.mean) <= _ABSURD:
                self._pairs.put(Pair(ServerId(server), ModelName(model)), Accuracy(bias))
