"""What predictions said and what came, by term, over the whole fleet: for people and for Prometheus, not for choices.

Formula: actual / predicted, as it was predicted when the request was sent (`wait`: when it entered its line), with the
correction by `trust`; 1 is right, 2 took twice as long. `accuracy` has its bias and its median over the last fifty.

What it is wrong about: a term that was held to be nothing (a load that nobody foresaw) has no ratio and is left out,
and so is what is below a hundredth of a second on both sides. Of each pair at most four requests a second are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fleet.scheduling.estimates.averages.bounds import sane
from fleet.scheduling.estimates.forecast.terms import TERMS
from fleet.scheduling.estimates.trust import Accuracy

RatioTold = Callable[[str, float], None]
"""Is told of each term and its ratio, 0.001 to 1000."""
_NOTHING: Final = 0.01
_LONGEST: Final = 1e5
_MOST: Final = 1000.0


class PredictionErrors:
    """One accuracy for each of `TERMS`; `told` may count."""

    def __init__(self, told: RatioTold | None = None) -> None:
        self.accuracy = {term: Accuracy() for term in TERMS}
        self._told = told

    def note(self, term: str, predicted: object, actual: object, now: float) -> None:
        """One prediction and what came of it, in seconds; what is not positive is dropped."""
        one, other = sane(predicted, 0.0, _LONGEST), sane(actual, 0.0, _LONGEST)
        if not one or not other or max(one, other) < _NOTHING:
            return
        self.accuracy[term].learn(one, other, now)
        if self._told is not None:
            self._told(term, min(max(other / one, 1.0 / _MOST), _MOST))
