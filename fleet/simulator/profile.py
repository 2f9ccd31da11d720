"""How strong a simulated server is, and which of Ollama's habits it shows."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """How strong and how configured the server is. Durations are seconds, rates tokens per second and slot.

    What stands below `pull_seconds` is off unless somebody asks for it: then the server is as Ollama is in that
    respect too, at the price of being harder to reckon with by hand.
    """

    vram: int = 24 * 10**9
    slots: int = 1
    max_loaded: int = 3
    max_queue: int = 512
    load_seconds: float = 2.0
    tokens_per_second: float = 50.0
    prefill_per_second: float = 2000.0
    jitter: float = 0.1
    keep_alive: float = 300.0
    num_ctx: int = 4096
    version: str = "0.33.0"
    pull_seconds: float = 0.5

    load_rate: float = math.inf
    """Bytes per second read on top of `load_seconds`."""
    cold_load_factor: float = 1.0
    """How many times as long a load takes whose file is no longer in the page cache."""
    page_cache_seconds: float = 1800.0
    """How long a file that was in memory stays in the page cache."""
    failing_loads: float = 0.0
    """Share of loads that end for want of memory, after their whole time."""
    batch_cost: float = 0.0
    """What each further stream of a runner adds to the time of a token, as a share of that of one alone."""
    slot_caches: bool = False
    """Whether each slot remembers its own last text, instead of a runner all that it has lately seen."""
    parked_tokens: int = 0
    """Tokens of texts pushed out of their slots that a runner keeps in the machine's memory (with `slot_caches`)."""
    bytes_per_token: int = 0
    """Memory that a token of context takes, in each slot; where it is short, a context nobody named shrinks."""
    poison: str = ""
    """A prompt with this text in it kills its runner once it is evaluated."""

    def crowding(self, streams: int) -> float:
        """How many times as long as alone a token takes among so many streams of a runner."""
        return 1.0 + self.batch_cost * (streams - 1)
