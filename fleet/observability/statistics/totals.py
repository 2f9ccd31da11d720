"""Figures of finished requests: per server and model, and of the whole fleet; windows (a week), and totals for ever.

Latency: of the fleet's figures, from arrival to end, as clients see it; of a pair's, without the wait for a slot, which
is nobody's fault there. What it is wrong about: a request counts when it ends, and where its last attempt ran; a
request that no server was found for is in the fleet's figures only.

Bounded: the pairs, and the models, that were asked for last; see `MOST_PAIRS` and `MOST_MODELS`. Models that nobody
serves have a table of their own, so that invented names push out nothing but each other. Windows are gone with the
process; totals are for the store (`Total.document`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from fleet.common.ids import ModelName, Pair, ServerId
from fleet.common.lru_table import LruTable
from fleet.observability.statistics.aggregates import Count, CountedRequest, Sample, Sums
from fleet.observability.statistics.request_batch import RequestBatch, RequestGroup
from fleet.observability.statistics.time_windows import Series

MOST_PAIRS: Final = 1024
MOST_MODELS: Final = 1024
MOST_STRANGERS: Final = 256
"""Models that were asked for and are served by nobody."""
RECENT: Final = 32
"""Streams of a pair that are remembered one by one."""


@dataclass(slots=True)
class Total:
    """Since the first start. Epoch seconds; `last_used` is None if never."""

    since: float
    requests: int = 0
    errors: int = 0
    prompt: int = 0
    output: int = 0
    last_used: float | None = None

    def add(self, sample: Sample, at: float) -> None:
        self.requests += sample.count
        self.errors += sample.errors
        self.prompt += sample.prompt
        self.output += sample.output
        self.last_used = at

    @property
    def tokens(self) -> int:
        """Of prompts and answers."""
        return self.prompt + self.output

    def document(self) -> dict[str, Any]:
        """As it is kept: plain JSON."""
        counts = {"requests": self.requests, "errors": self.errors, "prompt": self.prompt, "output": self.output}
        return {"since": self.since, **counts, "last_used": self.last_used}

    @classmethod
    def read(cls, document: Mapping[str, Any], now: float) -> Total:
        """What was kept (`now`: epoch seconds). Raises KeyError, TypeError and ValueError for what makes no sense."""
        counts = {name: _count(document[name]) for name in ("requests", "errors", "prompt", "output")}
        used = document["last_used"]
        last_used = None if used is None else _past(used, now)
        return cls(_past(document["since"], now), **counts, last_used=last_used)


class Streamed(NamedTuple):
    """One streamed answer. Milliseconds."""

    first_byte: float
    duration: float
    chunks: int


@dataclass(slots=True, eq=False)
class PairTotals:
    """What is known of one pair, or of the fleet."""

    total: Total
    series: Series[Sums] = field(default_factory=lambda: Series(Sums))
    streams: deque[Streamed] = field(default_factory=lambda: deque(maxlen=RECENT))
    """The last streamed answers, oldest first."""


class Tally:
    """All figures. `now` is the caller's clock, `at` is epoch seconds; neither runs back."""

    def __init__(self, now: float, at: float) -> None:
        self.began = now
        """Nothing is known from before."""
        self.fleet = PairTotals(Total(at))
        self.pairs: LruTable[Pair, PairTotals] = LruTable(MOST_PAIRS)
        self._models: LruTable[ModelName, Series[Count]] = LruTable(MOST_MODELS)
        self._strangers: LruTable[ModelName, Series[Count]] = LruTable(MOST_STRANGERS)

    def note(self, ended: RequestBatch[CountedRequest], now: float, at: float) -> tuple[set[Pair], set[Pair]]:
        """Count requests that have just finished; returns the pairs that were counted, and those forgotten for them."""
        seen: set[Pair] = set()
        gone: set[Pair] = set()
        samples = [Sample(group) for group in ended.groups]
        for group, sample in zip(ended.groups, samples, strict=True):
            self._asked(ModelName(group.model), bool(group.server)).bucket(now).number += sample.count
            if group.server:
                pair = Pair(ServerId(group.server), ModelName(group.model))
                seen.add(pair)
                gone |= self._note_pair(pair, sample.without_wait(group.requests), group, now, at)
        if samples:
            whole = Sample.joined(samples)
            self.fleet.series.bucket(now).add(whole)
            self.fleet.total.add(whole, at)
        return seen, gone

    def _note_pair(
        self, pair: Pair, own: Sample, group: RequestGroup[CountedRequest], now: float, at: float
    ) -> set[Pair]:
        line = self.pairs.get(pair) or PairTotals(Total(at))
        gone = self.pairs.put(pair, line)
        line.series.bucket(now).add(own)
        line.total.add(own, at)
        line.streams.extend(map(_streamed, group.began[-RECENT:]))
        return set() if gone is None else {gone}

    def restore(self, pair: Pair | None, total: Total) -> None:
        """Take the total of a pair, or of the fleet, from the store; for the least recently used pair first."""
        if pair is None:
            self.fleet.total = total
        else:
            self.pairs.use(pair, lambda: PairTotals(total))

    def window(self, now: float, span: float, pair: Pair | None = None) -> tuple[float, Sums]:
        """The last `span` seconds of a pair, or of the fleet: where they begin, and the sums."""
        ((start, sums),) = self.windows(now, (span,), pair)
        return start, sums

    def windows(self, now: float, spans: tuple[float, ...], pair: Pair | None = None) -> list[tuple[float, Sums]]:
        """The same for several spans, the shortest first."""
        line = self.fleet if pair is None else self.pairs.get(pair)
        if line is None:
            return [(max(now - span, self.began), Sums()) for span in spans]
        found = line.series.windows(now, spans, Sums(wide=True))
        return [(max(start, self.began), sums) for start, sums in found]

    def requests(self, model: ModelName, now: float, span: float) -> int:
        """How many requests for a model have ended in the last `span` seconds, fleet-wide, served or refused."""
        found = Count()
        for table in (self._models, self._strangers):
            if (series := table.get(model)) is not None:
                counted = Count()
                series.window(now, span, counted)
                found.merge(counted)
        return found.number

    def _asked(self, model: ModelName, served: bool) -> Series[Count]:
        known = served or model in self._models
        return (self._models if known else self._strangers).use(model, lambda: Series(Count))


def _streamed(ended: CountedRequest) -> Streamed:
    first, queued = ended.first_byte_seconds or 0.0, ended.queue_seconds
    return Streamed(max(first - queued, 0.0) * 1000, max(ended.total_seconds - first, 0.0) * 1000, ended.chunks)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise ValueError("not a count")
    return value


def _past(value: object, now: float) -> float:
    """A moment that has been, epoch seconds; a clock that was set back meanwhile makes it the present one."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise ValueError("not a moment")
    return float(min(value, now))
