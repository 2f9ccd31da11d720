"""What clients ask of each model: with which runner options, for embeddings or text, and how long an answer takes.

A runner that was loaded with other options than the next request has is loaded again, so a warm-up is only worth its
while with the options that clients use: the most common ones of the last few requests, the latest among equals.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from fleet.common.ids import ModelName
from fleet.common.lru_table import LruTable
from fleet.scheduling.moving_average import Ewma

LATELY: Final = 9
"""Requests of a model that are remembered."""
_MODELS: Final = 4096

Options = tuple[tuple[str, object], ...]
"""Runner options as a key: sorted, and without those that say what Ollama does anyway."""


@dataclass(slots=True)
class _Asked:
    """One model. Seconds."""

    options: deque[Options] = field(default_factory=lambda: deque(maxlen=LATELY))
    embedding: deque[bool] = field(default_factory=lambda: deque(maxlen=LATELY))
    service: Ewma = field(default_factory=Ewma)


class Demand:
    """Bounded memory: some thousand models, those that were asked for last."""

    def __init__(self) -> None:
        self._asked: LruTable[ModelName, _Asked] = LruTable(_MODELS)

    def note(self, model: ModelName, options: Mapping[str, object] | None, *, embedding: bool) -> None:
        """A request ended well. `options`: its runner options, None if it had none."""
        asked = self._asked.use(model, _Asked)
        named = ((name, value) for name, value in (options or {}).items() if (name, value) != ("shift", True))
        asked.options.append(tuple(sorted(named)))
        asked.embedding.append(embedding)

    def note_seconds(self, model: ModelName, seconds: float) -> None:
        """How long a request held its slot, without what it waited for a load."""
        self._asked.use(model, _Asked).service.add(max(seconds, 0.0))

    def options(self, model: ModelName) -> dict[str, object]:
        """The runner options to load the model with; empty: those that the server chooses by itself."""
        asked = self._asked.get(model)
        if asked is None or not asked.options:
            return {}
        latest_first = Counter(reversed(asked.options))  # of equals, a Counter names the first that it met
        return dict(latest_first.most_common(1)[0][0])

    def embeds(self, model: ModelName) -> bool | None:
        """Whether clients want only embeddings of it; None if nobody has asked."""
        asked = self._asked.get(model)
        return all(asked.embedding) if asked is not None and asked.embedding else None

    def seconds(self, model: ModelName) -> float | None:
        """How long a request holds its slot, on average; None if nobody has asked."""
        asked = self._asked.get(model)
        return asked.service.value if asked is not None else None
