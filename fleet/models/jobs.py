"""Background work on models, as values: kinds, states, whose turn it is, and how far a download has come."""

from __future__ import annotations

import enum
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from fleet.common.ids import ModelName, ServerId

LONGEST_TEXT: Final = 500
"""Characters kept of what a server says."""
MOST_LAYERS: Final = 1000
"""Layers of one model that are counted; real ones have a dozen."""
_MOST_BYTES: Final = 2**50
_LONGEST_ETA: Final = 30 * 24 * 3600.0
_TAU: Final = 5.0
"""Seconds over which the rate is smoothed."""
_GRAIN: Final = 0.5
"""Seconds between two samples of the rate, at least: a burst of records says nothing about speed."""


class JobKind(enum.Enum):
    """What is done with a model. `COPY` is a pull of what another server has: Ollama has no way between servers."""

    PULL = "pull"
    COPY = "copy"
    WARM = "warm"
    UNLOAD = "unload"
    DELETE = "delete"


class JobState(enum.Enum):
    """Where a job is. The last three are ends."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download has come: bytes, percent, bytes per second, seconds left. None: unknown."""

    completed: int | None = None
    total: int | None = None
    percent: float | None = None
    rate: float | None = None
    eta: float | None = None


class WaitingJob(Protocol):
    """What decides whose turn it is."""

    @property
    def server(self) -> ServerId: ...

    @property
    def key(self) -> tuple[ServerId, ModelName]: ...

    @property
    def priority(self) -> int: ...

    @property
    def number(self) -> int: ...


W = TypeVar("W", bound=WaitingJob)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many jobs run at one time: on one server, in the whole fleet."""

    per_server: int
    total: int


def choose(waiting: Iterable[W], running: Collection[WaitingJob], limits: Limits) -> W | None:
    """Whose turn it is: of those there is room for, the highest priority, then the oldest; None: nobody's.

    Two jobs never work on the same model of the same server side by side: a deletion would race a pull.
    """
    if len(running) >= limits.total:
        return None
    busy: dict[ServerId, int] = {}
    for each in running:
        busy[each.server] = busy.get(each.server, 0) + 1
    taken = {each.key for each in running}
    free = (w for w in waiting if busy.get(w.server, 0) < limits.per_server and w.key not in taken)
    return min(free, key=lambda w: (-w.priority, w.number), default=None)


@dataclass(slots=True)
class _Layer:
    total: int
    completed: int


@dataclass(slots=True)
class Download:
    """Adds up the records of one pull. Times are the caller's, in seconds; what a server says is not believed blindly.

    The total is of the layers seen so far: Ollama names them as it comes to them, the biggest first as a rule. What
    was there before this pull (a resumed layer) counts as completed, but not as speed. The rate is an exponentially
    weighted one: what it is wrong about is the first seconds, and a server that writes in long bursts.
    """

    layers: dict[str, _Layer] = field(default_factory=dict)
    moved: int = 0
    """Bytes that came during this pull."""
    rate: float | None = None
    _sampled: float | None = None
    _moved_then: int = 0

    def take(self, record: Mapping[str, object], now: float) -> None:
        """Note one record; those without a digest say nothing about bytes."""
        digest = record.get("digest")
        if not isinstance(digest, str) or not digest:
            return
        total, completed = _whole(record.get("total")), _whole(record.get("completed"))
        layer = self.layers.get(digest)
        if layer is None:
            if len(self.layers) < MOST_LAYERS:
                self.layers[digest] = _Layer(total, min(completed, total))
        else:
            layer.total = max(layer.total, total)
            come = min(max(completed, layer.completed), layer.total)
            self.moved += come - layer.completed
            layer.completed = come
        self._sample(now)

    def finish(self) -> None:
        """The pull has succeeded: everything is there, also what no record told."""
        for layer in self.layers.values():
            layer.completed = layer.total

    @property
    def completed(self) -> int:
        return sum(layer.completed for layer in self.layers.values())

    @property
    def total(self) -> int:
        return sum(layer.total for layer in self.layers.values())

    def progress(self, now: float) -> Progress:
        """As it is at `now`: the longer nothing has come, the lower the rate."""
        if not self.layers:
            return Progress()
        completed, total, rate = self.completed, self.total, self.rate
        if rate is not None and self._sampled is not None:
            rate *= math.exp(-max(0.0, now - self._sampled - _GRAIN) / _TAU)
        return Progress(completed, total, percent_of(completed, total), rate, _eta(total - completed, rate))

    def _sample(self, now: float) -> None:
        if self._sampled is None:
            self._sampled, self._moved_then = now, self.moved
            return
        gap = now - self._sampled
        if gap < _GRAIN:
            return
        seen = (self.moved - self._moved_then) / gap
        weight = 1.0 - math.exp(-gap / _TAU)
        self.rate = seen if self.rate is None else self.rate + weight * (seen - self.rate)
        self._sampled, self._moved_then = now, self.moved


def _eta(left: int, rate: float | None) -> float | None:
    """Seconds; None if nobody can tell, or would live to see it."""
    if not left:
        return 0.0
    eta = left / rate if rate else math.inf
    return eta if eta < _LONGEST_ETA else None


def percent_of(completed: int, total: int) -> float | None:
    """0 to 100, with one decimal, and 100 only when everything is there; None for nothing of nothing."""
    if total <= 0:
        return None
    if completed >= total:
        return 100.0
    return min(99.9, math.floor(1000.0 * completed / total) / 10.0)


def bounded(text: object) -> str:
    """What a server says, short enough to be kept and shown."""
    return str(text)[:LONGEST_TEXT]


def is_embedding(row: Mapping[str, object]) -> bool:
    """Whether a row of /api/tags says (capabilities, or a BERT family) that the model only embeds."""
    capabilities = row.get("capabilities")
    if isinstance(capabilities, list) and capabilities:
        return "embedding" in capabilities and "completion" not in capabilities
    details = row.get("details")
    family = details.get("family") if isinstance(details, dict) else None
    return isinstance(family, str) and "bert" in family


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        return 0
    return min(max(value, 0), _MOST_BYTES)
