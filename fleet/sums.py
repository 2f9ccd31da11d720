"""What is added up of finished requests: how many, how many failed, how long they took, how many tokens."""

from __future__ import annotations

import math
from typing import Final, Protocol

from fleet.sketch import Sketch, bin_of

HARMLESS: Final = frozenset({"completed", "incomplete", "client_left", "client_stalled"})
"""Outcomes that are no errors (see `fleet.outcomes.kind`).

A stream without a final record is normal for Ollama, and a client may leave; everything else has failed its client:
refusals of the fleet and of the backends (whoever is to blame), timeouts, broken streams, what we revoked.
"""


class Ended(Protocol):
    """What a finished request says of itself. Seconds; `server` is empty when none was found for it."""

    server: str
    model: str
    outcome: str
    queue_seconds: float
    first_byte_seconds: float | None
    total_seconds: float
    chunks: int
    prompt_tokens: int | None
    output_tokens: int | None
    stream: bool


class Sample:
    """One finished request, as it is added up. Milliseconds."""

    __slots__ = ("bin", "error", "latency", "output", "prompt", "waited")

    def __init__(self, ended: Ended, *, without_wait: bool) -> None:
        total, waited = ended.total_seconds * 1000, ended.queue_seconds * 1000
        self.latency = max(total - waited, 0.0) if without_wait else total
        self.waited = waited
        self.error = ended.outcome not in HARMLESS
        self.prompt = ended.prompt_tokens or 0
        self.output = ended.output_tokens or 0
        self.bin = bin_of(self.latency)


class Sums:
    """A bucket of requests. Milliseconds; `least` is infinite while it is empty. Every outcome enters the times."""

    __slots__ = ("count", "errors", "latency", "least", "most", "output", "prompt", "sketch", "squared", "waited")

    def __init__(self, *, wide: bool = False) -> None:
        self.count = self.errors = self.prompt = self.output = 0
        self.latency = self.squared = self.waited = self.most = 0.0
        self.least = math.inf
        self.sketch = Sketch(wide=wide)

    def add(self, sample: Sample) -> None:
        """Count one request."""
        latency = sample.latency
        self.count += 1
        self.errors += sample.error
        self.latency += latency
        self.squared += latency * latency
        self.waited += sample.waited
        if latency < self.least:
            self.least = latency
        if latency > self.most:
            self.most = latency
        self.prompt += sample.prompt
        self.output += sample.output
        self.sketch.add(sample.bin)

    def merge(self, other: Sums) -> None:
        """Add all that another has counted."""
        self.count += other.count
        self.errors += other.errors
        self.latency += other.latency
        self.squared += other.squared
        self.waited += other.waited
        self.least = min(self.least, other.least)
        self.most = max(self.most, other.most)
        self.prompt += other.prompt
        self.output += other.output
        self.sketch.merge(other.sketch)

    def copy(self) -> Sums:
        """The same sums, which then go their own way."""
        made = Sums(wide=True)
        made.merge(self)
        return made

    @property
    def tokens(self) -> int:
        """Of prompts and answers."""
        return self.prompt + self.output

    @property
    def average(self) -> float:
        """Milliseconds; 0 of nothing."""
        return self.latency / self.count if self.count else 0.0

    @property
    def error_rate(self) -> float:
        """0 to 1; 0 of nothing."""
        return self.errors / self.count if self.count else 0.0

    def percentile(self, share: float) -> float:
        """Milliseconds, within 5 % (see `fleet.sketch`) and never beyond what was seen; 0 of nothing."""
        if not self.count:
            return 0.0
        return min(max(self.sketch.percentile(share), self.least), self.most)


class Count:
    """A bucket that only counts."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0

    def merge(self, other: Count) -> None:
        """Add what another has counted."""
        self.number += other.number

    def copy(self) -> Count:
        """The same number."""
        made = Count()
        made.number = self.number
        return made
