"""How many tokens a prompt has: bytes of the body (images apart) times tokens per byte of the model.

Formula: exp(mean log(prompt_eval_count / bytes)) per model, weights halving each hour, one sample of 0.28 mixed in.
Units: bytes to tokens. Source: `prompt_eval_count` of answers whose prompt was not cached, since older servers count
only what they evaluated. A small body says less (its frame is most of it) and weighs less: bytes / 1024, at most 1.

What it is wrong about: languages and code differ by a factor of three within one model; a chat template that adds much
text of its own; images, which are tokens without bytes here.
"""

from __future__ import annotations

import math
from typing import Final

from fleet.common.ids import ModelName
from fleet.common.lru_table import LruTable
from fleet.scheduling.estimates.averages.bounds import sane
from fleet.scheduling.estimates.averages.decaying_mean import DecayingMean, LogMean
from fleet.scheduling.estimates.averages.plain_rows import rows_of

PER_BYTE: Final = 0.28
"""Tokens per byte before anything is known: English text in JSON."""
LEAST: Final = 0.01
MOST: Final = 2.0
MOST_TOKENS: Final = 1e7
_HALF_LIFE: Final = 3600.0
_FULL: Final = 1024
_MODELS: Final = 4096


class PromptTokens:
    """Bounded memory: some thousand models."""

    def __init__(self) -> None:
        self._ratios: LruTable[ModelName, LogMean] = LruTable(_MODELS)

    def tokens(self, model: ModelName, size: int, now: float) -> float:
        """Tokens of a prompt whose body has `size` bytes; at least 1."""
        return min(max(1.0, size * self.per_byte(model, now)), MOST_TOKENS)

    def per_byte(self, model: ModelName, now: float) -> float:
        """Tokens per byte."""
        ratio = self._ratios.get(model)
        return PER_BYTE if ratio is None else ratio.typical(PER_BYTE, now)

    def learn(self, model: ModelName, size: int, tokens: object, now: float) -> None:
        """An answer said how many tokens `size` bytes were; only of prompts that were surely not cached."""
        count = sane(tokens, 0.0, MOST_TOKENS)
        if count and size > 0:
            self._ratios.use(model, _fresh).add(count / size, now, min(1.0, size / _FULL))

    def to_plain(self, now: float, most: int) -> list[list[object]]:
        """Rows of model and mean."""
        rows: list[list[object]] = [[model, ratio.logs.to_plain(now)] for model, ratio in self._ratios.items()]
        return rows[-most:]

    def load_plain(self, data: object, now: float) -> None:
        """Add what `to_plain` gave; absurd rows are left out."""
        for (model,), plain in rows_of(data, 1, _MODELS):
            logs = DecayingMean.from_plain(plain, _HALF_LIFE, now)
            if logs.weight and math.log(LEAST) <= logs.mean <= math.log(MOST):
                self._ratios.put(ModelName(model), LogMean(logs, LEAST, MOST))


def _fresh() -> LogMean:
    return LogMean.fresh(_HALF_LIFE, LEAST, MOST)
