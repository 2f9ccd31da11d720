"""What the referee asks of a router, and tells it: nothing that a proxy in front of Ollama servers could not see.

A router that wants a request to stay in line just does not send it. It is told of everything that moves, and may send
then; if it wants to be asked at a certain time as well, it says so with `wake_at`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from bench.regret.demand import VisibleRequest
from fleet.breakers.outcomes import End
from fleet.simulator import Stats


class Send(NamedTuple):
    """Pass this request on to that server now."""

    number: int
    server: str


class Refuse(NamedTuple):
    """Tell the client that there is nothing for it here."""

    number: int
    why: str


Order = Send | Refuse


@dataclass(frozen=True, slots=True)
class Ending:
    """An attempt is over. `stats` are Ollama's own figures, there if it was answered to the end; times in seconds."""

    number: int
    server: str
    end: End
    started: float
    began: float | None
    """When the first chunk came."""
    stats: Stats | None
    final: bool
    """Whether the request is over with it; else it comes again, with this server excluded."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a round of probes tells of a server: the context of each loaded model, as `/api/ps` has it."""

    server: str
    reachable: bool
    resident: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class KnownServer:
    """What the operator says of a server. `slots`: its `max_concurrency`; None where he says `auto`."""

    id: str
    models: tuple[str, ...]
    slots: int | None
    sizes: tuple[int, ...] = ()
    """Bytes of each model's file, as `/api/tags` has them."""


class Router(Protocol):
    """One policy with all that it remembers. Whatever it is told, it may answer with orders."""

    name: str
    wake_at: float
    queues: bool
    """Whether a request that a busy server turns away goes back to the router, as if it had not been sent."""

    def arrived(self, request: VisibleRequest, now: float) -> Sequence[Order]:
        """A request has come, or has come back from a server that failed it."""
        ...

    def began(self, number: int, now: float) -> Sequence[Order]:
        """Its first chunk has come."""
        ...

    def ended(self, ending: Ending, now: float) -> Sequence[Order]:
        """An attempt is over, with these figures."""
        ...

    def left(self, number: int, now: float) -> None:
        """The client of a request that was not sent yet is gone."""
        ...

    def probed(self, sighting: Sighting, now: float) -> Sequence[Order]:
        """A server was probed."""
        ...

    def woken(self, now: float) -> Sequence[Order]:
        """It is `wake_at`."""
        ...
