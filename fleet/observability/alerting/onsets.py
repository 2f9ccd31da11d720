"""When conditions began, for those whose facts do not say it, or say something that moves while they last."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

PATIENCE = 3
"""Looks in a row that a condition must be gone before its beginning is forgotten: one good look ends nothing."""


class Begins:
    """The beginnings of all conditions that hold. Times on the caller's clock; bounded by what holds."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[float, int]] = {}

    def look(self, found: Mapping[Hashable, float]) -> None:
        """All that hold at this look, each with the earliest beginning that this look alone knows of."""
        before, self._known = self._known, {}
        for key, began in found.items():
            self._known[key] = (before[key][0] if key in before else began, 0)
        for key, (began, missed) in before.items():
            if key not in found and missed + 1 < PATIENCE:
                self._known[key] = (began, missed + 1)

    def of(self, key: Hashable) -> float | None:
        """When it began; None if it does not hold."""
        known = self._known.get(key)
        return None if known is None else known[0]
