"""Which models clients were refused for want of a server, and when: a server that has them is missed, and looked for.

Who waits can be seen in line. But when nobody can serve a model, its clients are refused within moments, and come back
seconds later: between them nobody waits, and still they do.

What it is wrong about: a client that gave up for good is missed for some seconds more.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from fleet.common.ids import ModelName
from fleet.common.lru_table import LruTable

LATELY: Final = 15.0
"""Seconds for which a refused client is thought to want it still."""
_MODELS: Final = 256


class Unserved:
    """Bounded memory: 256 models, those asked for last."""

    def __init__(self) -> None:
        self._refused: LruTable[ModelName, float] = LruTable(_MODELS)

    def note(self, model: ModelName, now: float) -> None:
        """Somebody was refused it."""
        self._refused.put(model, now)

    def lately(self, models: Container[ModelName] | None, now: float) -> bool:
        """Whether any of these (None: any at all) was refused to somebody lately. O(those remembered)."""
        for model, when in reversed(self._refused.items()):
            if now - when > LATELY:
                return False  # the table is in order of time
            if models is None or model in models:
                return True
        return False
