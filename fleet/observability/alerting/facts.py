"""What the monitor saw at one moment: all that rules and the verdict judge by, and nothing else.

Moments are on the caller's clock, in seconds; `Facts.epoch` makes times of day of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from fleet.common.ids import Pair
from fleet.observability.host_sample import HostSample


class ServerFact(NamedTuple):
    """One server. `state` is `ok`, `down`, `unknown`, `draining`, `drained` or `maintenance`, `since` when that began.

    `why` is why it is in that state; `rounds` are the probes in a row that failed.
    """

    id: str
    state: str
    since: float
    why: str = ""
    rounds: int = 0


class CapFact(NamedTuple):
    """A server whose number of requests at one time (`cap`) is not what it was seen to serve at once (`serves`)."""

    server: str
    cap: int
    serves: int


class QueueFact(NamedTuple):
    """The waiting lines. `oldest` is since when the oldest request waits; `model` what most of them want.

    `taken` of the `slots` of the servers with that model are in use.
    """

    waiting: int = 0
    capacity: int = 0
    oldest: float | None = None
    paused: bool = False
    paused_since: float | None = None
    paused_by: str = ""
    model: str = ""
    taken: int = 0
    slots: int = 0


class ModelFact(NamedTuple):
    """A model that is asked for and has no route: how many servers hold it, how many of those are down."""

    model: str
    holders: int
    down: int


class BreakerFact(NamedTuple):
    """A breaker that is not closed, since it last was."""

    pair: Pair
    since: float
    forced: bool = False


class FleetTrouble(NamedTuple):
    """Something about the fleet itself: since when, and in what words (which may name files and servers)."""

    since: float
    text: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True)
class Share:
    """Requests that ended in a window, and how many of them failed."""

    count: int = 0
    failed: int = 0

    @property
    def ratio(self) -> float:
        """0 to 1; 0 of nothing."""
        return self.failed / self.count if self.count else 0.0


class Culprit(NamedTuple):
    """Where most failures come from; `number` of them.

    `server` is empty when no server was found, or when it is one model on several; `model` when it is no single one.
    """

    server: str
    outcome: str
    number: int
    model: str = ""


@dataclass(frozen=True, slots=True)
class FirstTokenTimes:
    """First-token times: so many, the 95th percentile and the median in seconds."""

    count: int = 0
    p95: float = 0.0
    p50: float = 0.0


NO_REQUESTS: Final = Share()
NO_TOKENS: Final = FirstTokenTimes()
NO_QUEUE: Final = QueueFact()


@dataclass(frozen=True, slots=True)
class Traffic:
    """What requests told lately. It is added up every few seconds, so it may be that old; `first` is of the last look.

    Whoever shows the fleet's first-token time shows `first`: page, live feed, metrics, alerts, verdict, AI status.
    `minutes5`, `minutes30`, `hour` and `hours6` are windows, `lately` those of less than five minutes, the shortest
    first: they tell whether a fault is over. `first` is the fleet's first-token time over 5 minutes,
    `servers` each server's over 15. `rejected`: by the queue, in 5 minutes. `streams` and `stalls` are of 15 minutes,
    `flaps` (moves of a breaker) and `loads` (of a model) of 30; only those with any are there.
    """

    minutes5: Share = NO_REQUESTS
    minutes30: Share = NO_REQUESTS
    hour: Share = NO_REQUESTS
    hours6: Share = NO_REQUESTS
    lately: tuple[Share, ...] = ()
    culprit: Culprit | None = None
    per_second: float = 0.0
    rejected: int = 0
    first: FirstTokenTimes = NO_TOKENS
    servers: Mapping[str, FirstTokenTimes] = field(default_factory=dict)
    streams: int = 0
    stalls: int = 0
    flaps: Mapping[Pair, int] = field(default_factory=dict)
    loads: Mapping[Pair, int] = field(default_factory=dict)


NO_TRAFFIC: Final = Traffic()


@dataclass(frozen=True, slots=True)
class Facts:
    """One look at the fleet. `now` is the caller's clock, `at` the same moment in epoch seconds."""

    now: float
    at: float
    servers: tuple[ServerFact, ...] = ()
    queue: QueueFact = NO_QUEUE
    unservable: tuple[ModelFact, ...] = ()
    breakers: tuple[BreakerFact, ...] = ()
    traffic: Traffic = NO_TRAFFIC
    draining: bool = False
    open_requests: int = 0
    reload: FleetTrouble | None = None
    store: FleetTrouble | None = None
    dropped: FleetTrouble | None = None
    aside: FleetTrouble | None = None
    """Servers that were kept and cannot be used."""
    host: HostSample | None = None
    caps: tuple[CapFact, ...] = ()
    """Servers that serve another number of requests at once than an operator has said."""
    probe_failures: int = 3
    """Failed probes in a row after which a server is down."""

    def epoch(self, moment: float) -> float:
        """Seconds since 1970 of a moment on the caller's clock."""
        return self.at - (self.now - moment)
