"""The slots of one server (or of the whole fleet): in use means open leases, counted, never remembered."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

from fleet.ids import ModelName


@dataclass(slots=True)
class Ledger:
    """Open leases by number. `capacity` is the most that may be open; lowering it never closes any."""

    capacity: float
    _open: dict[int, ModelName] = field(default_factory=dict)
    _by_model: dict[ModelName, set[int]] = field(default_factory=dict)

    @property
    def in_use(self) -> int:
        return len(self._open)

    @property
    def free(self) -> float:
        free = self.capacity - len(self._open)
        return free if free > 0 else 0

    def of_model(self, model: ModelName) -> int:
        """How many open leases are for this model."""
        return len(self._by_model.get(model, ()))

    def models(self) -> dict[ModelName, int]:
        """Open leases by model; models without any are absent."""
        return {model: len(numbers) for model, numbers in self._by_model.items()}

    def open(self, number: int, model: ModelName) -> bool:
        """Enter a lease; False (and nothing entered) when full or the number is taken."""
        if number in self._open or len(self._open) >= self.capacity:
            return False
        self._open[number] = model
        self._by_model.setdefault(model, set()).add(number)
        return True

    def close(self, number: int) -> bool:
        """Strike out a lease; False if it is not open (closing twice is harmless)."""
        model = self._open.pop(number, None)
        if model is None:
            return False
        numbers = self._by_model[model]
        numbers.discard(number)
        if not numbers:
            del self._by_model[model]
        return True

    def keep_only(self, numbers: Container[int]) -> None:
        """Strike out every lease that is not among `numbers` (after a crash, the open leases are the truth)."""
        for number in [number for number in self._open if number not in numbers]:
            self.close(number)
