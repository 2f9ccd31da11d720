"""What is added up of finished requests: how many, how many failed, how long they took, how many tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from operator import mul
from typing import Protocol

from fleet.breakers.failure_classes import NO_ERRORS
from fleet.observability.statistics.quantile_sketch import Sketch, bin_of


class CountedRequest(Protocol):
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
    """Some finished requests, as they are added up together: a busy fleet has hundreds in each batch. Milliseconds."""

    __slots__ = ("bins", "count", "errors", "latencies", "output", "prompt", "waited")

    def __init__(self, ended: Sequence[CountedRequest]) -> None:
        """From arrival to end; see `without_wait`."""
        self.count = len(ended)
        self.latencies = [each.total_seconds * 1000 for each in ended]
        self.waited = sum([each.queue_seconds for each in ended]) * 1000
        self.errors = sum([each.outcome not in NO_ERRORS for each in ended])
        self.prompt = sum([each.prompt_tokens or 0 for each in ended])
        self.output = sum([each.output_tokens or 0 for each in ended])
        self.bins = [bin_of(latency) for latency in self.latencies]

    def without_wait(self, ended: Sequence[CountedRequest]) -> Sample:
        """The same requests, without what they waited for a slot; itself if nobody waited."""
        if not self.waited:
            return self
        made = copy(self)
        made.latencies = [max(each.total_seconds - each.queue_seconds, 0.0) * 1000 for each in ended]
        made.bins = [bin_of(latency) for latency in made.latencies]
        return made


class Sums:
    """A bucket of requests. Milliseconds; `least` is infinite while it is empty. Every outcome enters the times."""

    __slots__ = ("count", "errors", "latency", "least", "most", "output", "prompt", "sketch", "squared", "waited")

    def __init__(self, *, wide: bool = False) -> None:
        self.count = self.errors = self.prompt = self.output = 0
        self.latency = self.squared = self.waited = self.most = 0.0
        self.least = math.inf
        self.sketch = Sketch(wide=wide)

    def add(self, sample: Sample) -> None:
        """Count some requests."""
        latencies = sample.latencies
        self.count += sample.count
        self.errors += sample.errors
        self.latency += sum(latencies)
        self.squared += sum(map(mul, latencies, latencies))
        self.waited += sample.waited
        self.least = min(self.least, *latencies)
        self.most = max(self.most, *latencies)
        self.prompt += sample.prompt
        self.output += sample.output
        self.sketch.add(sample.bins)

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
        """Milliseconds, within 5 % (see `statistics.quantile_sketch`) and never beyond what was seen; 0 of nothing."""
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
