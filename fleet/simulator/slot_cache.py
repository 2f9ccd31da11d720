"""What each slot of a runner still holds in its key-value cache, as llama.cpp keeps it: one text a slot.

A request gets the free slot whose text shares most of its beginning, if that is more than a tenth of it, else the one
longest unused. A text that is pushed out is parked in the machine's memory, as far as that goes.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from fleet.simulator.text import CHARS_PER_TOKEN

_ALIKE: Final = 0.1
"""Share of a prompt that a slot's text must have in common with it to be preferred."""


def common_prefix(one: str, other: str) -> int:
    """How many leading characters two texts share; by halving, since comparing long texts at once is cheap."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class SlotCaches:
    """The texts of one runner's slots, the longest unused first, and those that are parked."""

    def __init__(self, slots: int, parked_tokens: int) -> None:
        self._slots: dict[int, str] = dict.fromkeys(range(slots), "")
        self._busy: set[int] = set()
        self._parked: deque[str] = deque()
        self._room = parked_tokens * CHARS_PER_TOKEN

    def longest(self, prompt: str) -> int:
        """How many leading characters of it some free slot or parked text holds."""
        texts = [text for slot, text in self._slots.items() if slot not in self._busy]
        return max((common_prefix(text, prompt) for text in (*texts, *self._parked)), default=0)

    def take(self, prompt: str) -> tuple[int, int]:
        """The slot for a prompt, and how many leading characters of it need no evaluation there. One must be free."""
        free = {slot: common_prefix(text, prompt) for slot, text in self._slots.items() if slot not in self._busy}
        slot = max(free, key=lambda each: free[each])  # of equals the first, which is unused for longest
        if free[slot] <= _ALIKE * len(prompt):
            slot = next(iter(free))
        known, parked = free[slot], self._best_parked(prompt)
        if parked is not None and common_prefix(parked, prompt) > known:
            known = common_prefix(parked, prompt)
            self._parked.remove(parked)
        if free[slot] < len(self._slots[slot]):  # its end is about to be overwritten
            self._park(self._slots[slot])
        self._busy.add(slot)
        self._write(slot, prompt)
        return slot, known

    def free(self, slot: int, text: str) -> None:
        """The slot's request is over; `text` is what it holds now."""
        self._busy.discard(slot)
        self._write(slot, text)

    def _write(self, slot: int, text: str) -> None:
        self._slots.pop(slot)
        self._slots[slot] = text

    def _best_parked(self, prompt: str) -> str | None:
        return max(self._parked, key=lambda text: common_prefix(text, prompt), default=None)

    @property
    def parked(self) -> int:
        """Characters of all parked texts."""
        return sum(map(len, self._parked))

    def _park(self, text: str) -> None:
        if not text or len(text) > self._room:
            return
        self._parked.append(text)
        while self.parked > self._room:
            self._parked.popleft()
