"""What is added up of finished requests: how many, how many failed, how long they took, how many tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from itertools import chain
from operator import mul
from typing import Protocol

from fleet.observability.statistics.quantile_sketch import Sketch, bin_of
from fleet.observability.statistics.request_batch import GroupedRequest, RequestGroup


class CountedRequest(GroupedRequest, Protocol):
    """What a finished request says of itself. Seconds."""

    queue_seconds: float
    total_seconds: float
    chunks: int


class Sample:
    """Some finished requests, as they are added up together: a busy fleet has hundreds in each batch. Milliseconds."""

    __slots__ = ("bins", "count", "errors", "latencies", "output", "prompt", "waited")

    def __init__(self, group: RequestGroup[CountedRequest]) -> None:
        """From arrival to end; see `without_wait`."""
        ended = group.requests
        self.count = len(ended)
        self.latencies = [each.total_seconds * 1000 for each in ended]
        self.waited = sum([each.queue_seconds for each in ended]) * 1000
        self.errors = group.errors
        self.prompt = group.prompt
        self.output = group.output
        self.bins = [bin_of(latency) for latency in self.latencies]

    def without_wait(self, ended: Sequence[CountedRequest]) -> Sample:
        """The same requests, without what they waited for a slot; itself if nobody waited."""
        if not self.waited:
            return self
        made = copy(self)
        made.latencies = [max(each.total_seconds - each.queue_seconds, 0.0) * 1000 for each in ended]
        made.bins = [bin_of(latency) for latency in made.latencies]
        return made

    @staticmethod
    def joined(samples: Sequence[Sample]) -> Sample:
        """Several together; at least one."""
        if len(samples) == 1:
            return samples[0]
        made = copy(samples[0])
        for name in ("count", "waited", "errors", "prompt", "output"):
            setattr(made, name, sum([getattr(each, name) for each in samples]))
        made.latencies = list(chain.from_iterable([each.latencies for each in samples]))
        made.bins = list(chain.from_iterable([each.bins for each in samples]))
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
