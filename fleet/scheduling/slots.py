"""The slots of one server (or of the whole fleet): in use means open leases, counted, never remembered."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

from fleet.common.ids import ModelName


@dataclass(slots=True)
class Slots:
    """Open leases by number. `capacity` is the most that may be open; lowering it never closes any.

    `numbers` may be read by anybody (its length is asked of every candidate for every request); only `open` and
    `close` write it, and the count by model with it.
    """

    capacity: float
    numbers: dict[int, ModelName] = field(default_factory=dict)
    _by_model: dict[ModelName, int] = field(default_factory=dict)

    @property
    def in_use(self) -> int:
        return len(self.numbers)

    @property
    def free(self) -> float:
        free = self.capacity - len(self.numbers)
        return free if free > 0 else 0

    def of_model(self, model: ModelName) -> int:
        """How many open leases are for this model."""
        return self._by_model.get(model, 0)

    def models(self) -> dict[ModelName, int]:
        """Open leases by model; models without any are absent."""
        return dict(self._by_model)

    def open(self, number: int, model: ModelName) -> bool:
        """Enter a lease; False (and nothing entered) when full or the number is taken."""
        numbers = self.numbers
        if number in numbers or len(numbers) >= self.capacity:
            return False
        numbers[number] = model
        self._by_model[model] = self._by_model.get(model, 0) + 1
        return True

    def close(self, number: int) -> bool:
        """Strike out a lease; False if it is not open (closing twice is harmless)."""
        model = self.numbers.pop(number, None)
        if model is None:
            return False
        left = self._by_model[model] - 1
        if left:
            self._by_model[model] = left
        else:
            del self._by_model[model]
        return True

    def keep_only(self, numbers: Container[int]) -> None:
        """Strike out every lease that is not among `numbers` (after a crash, the open leases are the truth)."""
        for number in [number for number in self.numbers if number not in numbers]:
            self.close(number)
