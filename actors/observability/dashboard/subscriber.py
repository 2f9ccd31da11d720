"""One who watches the live feed: what waits to be sent, never more than a little, whoever stops reading."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, Protocol

import orjson
import trio

from fleet.common.lru_table import LruTable

if TYPE_CHECKING:
    from actors.observability.dashboard.rate_group import RateGroup

Transport = Literal["polling", "websocket", "plain"]
TRANSPORTS: Final[tuple[Transport, ...]] = ("polling", "websocket", "plain")
MOST_HELD: Final = 2
"""Updates of the figures that wait for one viewer."""
MOST_LATEST: Final = 64
"""Things of which only the latest matters (jobs, mostly) that wait for one viewer; the oldest make room."""
RECOVERS_AFTER: Final = 10
"""Updates taken in time until a slow viewer gets its full rate again."""
BURST: Final = 3
"""Wishes of a viewer that are granted at once; then one per second."""
LEAST_HZ: Final = 0.1
MOST_HZ: Final = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """One event for those who watch: its name, and its payload as JSON.

    `wire` is for the transports: each keeps here, under its own name, what it makes of the payload, so that this
    happens once for all viewers.
    """

    event: str
    data: bytes
    wire: dict[str, bytes] = field(default_factory=dict)


def encoded(payload: object) -> bytes:
    """As JSON. Names and errors come from outside: half a surrogate pair in one of them must not silence the feed."""
    try:
        return orjson.dumps(payload)
    except orjson.JSONEncodeError:
        return json.dumps(payload).encode()


class Wishes:
    """One wish per second, three at once after a rest; more are ignored. `now` is the caller's clock, in seconds."""

    __slots__ = ("_at", "_left")

    def __init__(self) -> None:
        self._left = float(BURST)
        self._at = -math.inf

    def grant(self, now: float) -> bool:
        """Whether this one is granted."""
        self._left = min(BURST, self._left + max(0.0, now - self._at))
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class SubscriberFeed(Protocol):
    """What a viewer needs of the feed."""

    def now(self) -> float: ...

    def gone(self, viewer: Subscriber) -> None: ...

    def wants(self, viewer: Subscriber) -> None: ...

    def alert_after(self, place: int) -> tuple[int, Update | None]: ...


class Subscriber:
    """One live client. Whoever joined calls `next` again and again, and `leave` in the end, whatever happens.

    `transport` may be changed (a client that went from polling to a websocket). All methods but `next` are synchronous
    and safe to call from any task.
    """

    def __init__(self, feed: SubscriberFeed, address: str, transport: Transport, place: int) -> None:
        self.address = address
        self.transport = transport
        self.hz = math.inf
        self.slow = False
        self.lane: RateGroup | None = None
        self._feed = feed
        self._place = place
        """The alert that comes next for this viewer."""
        self._stale = True
        """Whether what it knows is too old for a delta, so that it needs a snapshot."""
        self._new = True
        """Whether it has not seen any figures yet: then they come before the alerts that fire."""
        self._good = 0
        self._held: deque[Update] = deque()
        self._first: deque[Callable[[], Update]] = deque()
        self._latest: LruTable[str, Update] = LruTable(MOST_LATEST)
        self._parked = trio.lowlevel.ParkingLot()
        self._left = False
        self._wishes = Wishes()
        self._settings = Wishes()

    # ---- for the transport

    async def next(self) -> Update:
        """The next thing to send. Raises ClosedResourceError once it has left. Cancelled: nothing is lost."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._left:
            if (update := self._take()) is not None:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return update
            await self._parked.park()
        raise trio.ClosedResourceError("this viewer has left")

    def leave(self) -> None:
        """Watch no more; as often as you like."""
        if not self._left:
            self._left = True
            self._held.clear()
            self._first.clear()
            self._latest.clear()
            self._feed.gone(self)
            self._parked.unpark_all()

    def request_update(self) -> None:
        """A snapshot, please: once per second, three at once; more are ignored."""
        if not self._left and self._wishes.grant(self._feed.now()):
            self._stale = True
            self._held.clear()
            self._feed.wants(self)

    def set_rate(self, hz: float) -> None:
        """At most so many updates per second (0.1 to 2; beyond that: the nearest); ignored when asked too often."""
        if not self._left and not math.isnan(hz) and self._settings.grant(self._feed.now()):
            self.hz = min(max(hz, LEAST_HZ), MOST_HZ)

    # ---- for the feed

    @property
    def idle(self) -> bool:
        """Whether it waits for something to send, and everything before has been taken."""
        return bool(self._parked) and not self._held

    @property
    def stale(self) -> bool:
        """Whether it needs a snapshot before any delta."""
        return self._stale

    def outdate(self) -> None:
        """Deltas do not fit any more: a snapshot is needed first."""
        self._stale = True
        self._held.clear()

    def greet(self, makers: Iterable[Callable[[], Update]]) -> None:
        """Send these first; each is made when it is its turn."""
        self._first.extend(makers)
        self.rouse()

    def show(self, snapshot: Update) -> None:
        """The whole state; what comes next builds upon it. It is sent once the viewer is roused."""
        if self.idle:
            self._count_good()
        self._held.clear()
        self._held.append(snapshot)
        self._stale = False

    def offer(self, delta: Update) -> int:
        """The next step, sent once it is roused; returns how many updates this viewer will miss because it is slow."""
        if len(self._held) < MOST_HELD:
            if not self._held:
                self._count_good()
            self._held.append(delta)
            return 0
        missed = len(self._held) + 1
        self._held.clear()
        self._stale = self.slow = True
        self._good = 0
        return missed

    def replace(self, key: str, update: Update) -> None:
        """Something of which only the latest matters."""
        self._latest.put(key, update)
        self.rouse()

    def rouse(self) -> None:
        """There is something to send: an alert, or what it was given."""
        self._parked.unpark()

    # ---- within

    def _take(self) -> Update | None:
        if self._new and self._held:
            return self._pop()
        if self._first:
            return self._first.popleft()()
        self._place, alert = self._feed.alert_after(self._place)
        if alert is not None:
            return alert
        if self._held:
            return self._pop()
        if self._latest:
            return self._latest.popitem(last=False)[1]
        return None

    def _pop(self) -> Update:
        self._new = False
        return self._held.popleft()

    def _count_good(self) -> None:
        self._good += 1
        if self._good > RECOVERS_AFTER:
            self.slow = False
