"""How many tokens an answer will have: the mean of what this client got from this model at this endpoint.

Formula: min(num_predict, context - prompt, exp(m + v / 2)); m and v are mean and variance of log(eval_count) by
(client, model, endpoint), weights halving each half hour, with three samples of the model's own mixed in, and in those
one of 200 tokens. Units: tokens. Source: `eval_count` (`usage` of the /v1 routes).

What it is wrong about: a client with two habits (titles and essays) gets the mean of both; an answer that was cut by
the client or a limit counts as a short one.
"""

from __future__ import annotations

import math
from typing import Final

from fleet.common.ids import ModelName
from fleet.common.lru_table import LruTable
from fleet.scheduling.estimates.averages.decaying_mean import DecayingMean, LogMean
from fleet.scheduling.estimates.averages.plain_rows import rows_of

TOKENS: Final = 200.0
"""Before anything is known."""
LEAST: Final = 1.0
MOST: Final = 1e6
_SPREAD: Final = 0.5
"""The variance of log(eval_count) before anything is known."""
_STRENGTH: Final = 3.0
_HALF_LIFE: Final = 1800.0
_MODELS: Final = 4096
_CLIENTS: Final = 8192

Asker = tuple[str, ModelName, str]
"""Client (key or address), model, endpoint."""


class AnswerTokens:
    """Bounded memory: some thousand models and askers."""

    def __init__(self) -> None:
        self._models: LruTable[ModelName, LogMean] = LruTable(_MODELS)
        self._askers: LruTable[Asker, LogMean] = LruTable(_CLIENTS)

    def tokens(self, asker: Asker, now: float, num_predict: int | None = None, room: float | None = None) -> float:
        """Tokens of the answer. `num_predict`: the client's limit, none if it is not positive.

        `room`: what the context has beside the prompt.
        """
        mean = self._mean(asker, now)
        if num_predict is not None and num_predict > 0:
            mean = min(mean, num_predict)
        return max(LEAST, mean if room is None else min(mean, room))

    def learn(self, asker: Asker, tokens: object, now: float) -> None:
        """An answer that ended well had so many tokens."""
        if self._askers.use(asker, _fresh).add(tokens, now):
            self._models.use(asker[1], _fresh).add(tokens, now)

    def to_plain(self, now: float, most: int) -> list[list[object]]:
        """Rows of model and mean. Clients are not kept: who they are is nobody's business after a restart."""
        rows: list[list[object]] = [[model, mean.logs.to_plain(now)] for model, mean in self._models.items()]
        return rows[-most:]

    def load_plain(self, data: object, now: float) -> None:
        """Add what `to_plain` gave; absurd rows are left out."""
        for (model,), plain in rows_of(data, 1, _MODELS):
            logs = DecayingMean.from_plain(plain, _HALF_LIFE, now)
            if logs.weight and 0.0 <= logs.mean <= math.log(MOST):
                self._models.put(ModelName(model), LogMean(logs, LEAST, MOST))

    def _mean(self, asker: Asker, now: float) -> float:
        model, own = self._models.get(asker[1]), self._askers.get(asker)
        if model is None or own is None:
            return TOKENS if model is None else model.expected(TOKENS, now, 1.0, _SPREAD)
        spread = model.logs.variance(now, _SPREAD)
        return own.expected(model.typical(TOKENS, now), now, _STRENGTH, spread)


def _fresh() -> LogMean:
    return LogMean.fresh(_HALF_LIFE, LEAST, MOST)
