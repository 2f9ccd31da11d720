"""From a snapshot to what Prometheus reads, by prometheus-client's own exposition. Runs in a worker thread.

The library writes every series once, when it is new; what it wrote is kept, and later only the numbers are put in anew:
a large fleet has ten thousand lines, and their names and labels are most of the work.

A thread that computes keeps the event loop from running for as long as the interpreter's switch interval, five
milliseconds by default, each time the loop wants to go on. So this one lets go every few hundred lines by itself.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client import generate_latest as as_text
from prometheus_client.core import Metric as MetricFamily
from prometheus_client.openmetrics.exposition import ALLOWUTF8
from prometheus_client.openmetrics.exposition import generate_latest as as_openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Sample
from prometheus_client.utils import floatToGoString

from fleet.observability.metrics.definitions import BUCKETS, Metric
from fleet.observability.metrics.instruments import Buckets, Example
from fleet.observability.metrics.snapshot import Family, Labels

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_NAP: Final = 0.00005
_NEW: Final = 150
_KNOWN: Final = 700
"""Lines between two naps, new ones and such as were written before: less than a millisecond."""
_LEVEL: Final = 4
_END: Final = "# EOF\n"
_LONGEST_ID: Final = 128 - len("request_id")
"""OpenMetrics allows 128 characters in an exemplar's labels."""


@dataclass(slots=True, eq=False)
class _Series:
    """What was written of one series. `starts` are its lines, each up to its number."""

    starts: Sequence[str]
    value: float | Buckets | None = None
    text: str = ""


Key = tuple[str, "Labels"]


@dataclass(slots=True, eq=False)
class Writer:
    """Writes in one format, for one reader at a time. Remembers the series of the latest snapshot, and no others."""

    content_type: str
    _series: dict[Key, _Series] = field(default_factory=dict)
    _heads: dict[str, str] = field(default_factory=dict)
    _tails: dict[Example, str] = field(default_factory=dict)

    def written(self, families: Sequence[Family]) -> bytes:
        """The whole exposition."""
        self._learn(families)
        before, self._series = self._series, {}
        naps, numbers = _Naps(_KNOWN), _Numbers()
        parts: list[str] = []
        for family in families:
            name = family.metric.name
            parts.append(self._heads[name])
            for labels, value in family.points or family.spreads:
                key = name, labels
                series = self._series[key] = before[key]
                if series.value == value:
                    naps.count()
                else:
                    series.value = value
                    series.text = _put(series.starts, value, numbers, self._tails)
                    naps.count(len(series.starts))
                parts.append(series.text)
        return "".join(parts).encode() + self._process()

    def _learn(self, families: Sequence[Family]) -> None:
        """Have the library write what is new, with a number that is none."""
        found: list[tuple[Metric, list[Key]]] = []
        naps = _Naps(_KNOWN)
        for family in families:
            name = family.metric.name
            keys = [(name, labels) for labels, _ in family.points or family.spreads]
            new = [key for key in keys if key not in self._series]
            if new or name not in self._heads:
                found.append((family.metric, new))
            naps.count(len(keys))
        lines = iter(self._lines(_Blank(found)))
        for metric, new in found:
            self._heads[metric.name] = f"{next(lines)}\n{next(lines)}\n"
            size = len(BUCKETS[metric.name]) + 3 if metric.kind == "histogram" else 1
            for key in new:
                self._series[key] = _Series([next(lines).rpartition(" ")[0] for _ in range(size)])
        if self.content_type == OPENMETRICS:
            self._learn_tails({each: None for family in families for each in _examples(family)})

    def _learn_tails(self, examples: Iterable[Example]) -> None:
        known, new = self._tails, [each for each in examples if each not in self._tails]
        shown = [each for each in new if len(each.request_id) <= _LONGEST_ID]
        lines = self._lines(_Exemplars(shown)) if shown else []
        added = dict.fromkeys(new, "") | {
            each: line.partition(" 0.0")[2] for each, line in zip(shown, lines[2:], strict=False)
        }
        self._tails = {each: known[each] if each in known else added[each] for each in examples}

    def _lines(self, collector: Collector) -> list[str]:
        registry = CollectorRegistry()
        registry.register(collector)
        return self._latest(registry).decode().removesuffix(_END).split("\n")

    def _process(self) -> bytes:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        return self._latest(registry)

    def _latest(self, registry: CollectorRegistry) -> bytes:
        """All our names are plain: to have each of their letters looked at takes half as long again."""
        if self.content_type == OPENMETRICS:
            return cast(bytes, as_openmetrics(registry, escaping=ALLOWUTF8))  # type: ignore[no-untyped-call]
        return as_text(registry)


def written(families: Sequence[Family], content_type: str) -> bytes:
    """The whole exposition, by a writer who has never seen any of it."""
    return Writer(content_type).written(families)


def compressed(text: bytes) -> bytes:
    """The same for those who take gzip."""
    return gzip.compress(text, _LEVEL, mtime=0)


class _Numbers(dict[float, str]):
    """Numbers as the library writes them: most of a scrape's are the same few."""

    def __missing__(self, number: float) -> str:
        text = self[number] = str(floatToGoString(number))  # type: ignore[no-untyped-call]
        return text


def _put(starts: Sequence[str], value: float | Buckets, numbers: _Numbers, tails: dict[Example, str]) -> str:
    if not isinstance(value, tuple):
        return f"{starts[0]} {numbers[value]}\n"
    counts, total, examples = value
    ends = [numbers[count] for count in (*counts, counts[-1])] + [numbers[total]]
    if tails:
        for place, each in enumerate(examples):
            if each is not None:
                ends[place] += tails[each]
    return "".join([f"{start} {end}\n" for start, end in zip(starts, ends, strict=True)])


def _examples(family: Family) -> Iterator[Example]:
    return (each for _, (_, _, examples) in family.spreads for each in examples if each is not None)


class _Naps:
    """Lets go of the interpreter now and then."""

    def __init__(self, between: int) -> None:
        self._between = between
        self._left = between

    def count(self, lines: int = 1) -> None:
        """So many more were written."""
        self._left -= lines
        if self._left <= 0:
            self._left = self._between
            time.sleep(_NAP)


class _Blank(Collector):
    """Series without numbers, as a registry collects them; once."""

    def __init__(self, found: Iterable[tuple[Metric, Sequence[Key]]]) -> None:
        self._found = found

    def collect(self) -> Iterator[MetricFamily]:
        naps = _Naps(_NEW)
        for metric, keys in self._found:
            made = MetricFamily(metric.name.removesuffix("_total").removesuffix("_info"), metric.help, metric.kind)
            made.samples = _samples(metric, keys, naps)  # type: ignore[assignment]  # read once, so no list is made
            yield made


def _samples(metric: Metric, keys: Iterable[Key], naps: _Naps) -> Iterator[Sample]:
    name = metric.name
    bounds = [*map(floatToGoString, BUCKETS.get(name, ())), "+Inf"]
    for _, values in keys:
        labels = dict(zip(metric.labels, values, strict=True))
        if metric.kind != "histogram":
            yield Sample(name, labels, 0.0)
        else:
            for bound in bounds:
                yield Sample(f"{name}_bucket", {**labels, "le": bound}, 0.0)
                naps.count()
            yield Sample(f"{name}_count", labels, 0.0)
            yield Sample(f"{name}_sum", labels, 0.0)
        naps.count()


class _Exemplars(Collector):
    """Exemplars on lines of nobody's, as a registry collects them."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples

    def collect(self) -> Iterator[MetricFamily]:
        made, naps = MetricFamily("x", "x", "histogram"), _Naps(_NEW)
        made.samples = _exemplars(self._examples, naps)  # type: ignore[assignment]
        yield made


def _exemplars(examples: Iterable[Example], naps: _Naps) -> Iterator[Sample]:
    for each in examples:
        shown = Exemplar({"request_id": each.request_id}, each.value, round(float(each.at), 3))
        yield Sample("x_bucket", {"le": "+Inf"}, 0.0, None, shown)
        naps.count()
