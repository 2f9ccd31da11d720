"""The live feed: one snapshot or delta per tick, made and serialised once for all who watch."""

from __future__ import annotations

import math
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import trio

from actors.observability.dashboard.alert_ring import AlertRing
from actors.observability.dashboard.collector import Collector
from actors.observability.dashboard.events import News, alert_update
from actors.observability.dashboard.rate_group import RateGroup, stride_of
from actors.observability.dashboard.subscriber import TRANSPORTS, Subscriber, Transport, Update
from fleet.common.errors import TooManyClients

if TYPE_CHECKING:
    from actors.observability.dashboard.sources import FeedSources
    from fleet.observability.alerting.alert import Alert
    from fleet.observability.dashboard.snapshot import FleetSnapshot

__all__ = ["Feed", "Subscriber", "Transport", "Update"]

_AT_ONCE: Final = 4
"""Viewers that are roused in one turn."""
_GROUPS: Final = 50
_GAP: Final = 0.01
"""Seconds between two groups of them; all together take half an interval at the most."""
_FULL_FOR: Final = 5.0
"""Seconds after which somebody who was refused may try again."""


_LOOK: Final = 1.0
"""Seconds after which, however rare the figures are, there is a look at the configuration and at what else is new."""


class Feed:
    """The cell and the loop. Viewers outlive a crash of the loop; it costs nothing while nobody watches.

    Everything but the loop is synchronous. Nobody here waits for a viewer: see `dashboard.subscriber`.
    """

    def __init__(self, sources: FeedSources) -> None:
        self.epoch = secrets.token_hex(4)
        self.skipped = 0
        """Updates that slow viewers were spared."""
        self.updated: float | None = None
        """When somebody was last told something new, epoch seconds."""
        self._fleet = sources.fleet
        self._collector = Collector(sources)
        self._viewers: dict[Subscriber, None] = {}
        self._lanes: dict[int, RateGroup] = {}
        self._news = News(sources)
        self._alerts = AlertRing()
        self._wanted = trio.lowlevel.ParkingLot()
        self._number = 0
        self._last = -math.inf
        """When the last regular tick was."""
        sources.monitor.alerts.subscribe(self._on_alert)

    # ---- for the transports

    def join(self, address: str, transport: Transport = "websocket") -> Subscriber:
        """Watch from now on; whoever joins leaves (`Subscriber.leave`). Raises TooManyClients."""
        self._check_room(address)
        self._spread()  # or what has changed since the last tick would be told to the newcomer twice
        viewer = Subscriber(self, address, transport, self._alerts.end)
        self._viewers[viewer] = None
        self._place(viewer)
        self._news.greet(viewer)
        return viewer

    @property
    def clients(self) -> Mapping[str, int]:
        """How many watch, by transport."""
        return {**dict.fromkeys(TRANSPORTS, 0), **Counter(viewer.transport for viewer in self._viewers)}

    async def snapshot(self) -> FleetSnapshot:
        """The state of now, or of a moment ago, for somebody who does not stay."""
        try:
            return await self._collector.collect()
        finally:
            if not self._viewers:
                self._collector.rest()

    # ---- for viewers

    def now(self) -> float:
        """The clock of wishes, in seconds."""
        return self._fleet.clock.now()

    def gone(self, viewer: Subscriber) -> None:
        """A viewer has left."""
        self._viewers.pop(viewer, None)
        self._unplace(viewer)

    def wants(self, viewer: Subscriber) -> None:
        """A viewer asked for the whole state: it gets the last one, unless that is too old."""
        lane = viewer.lane
        if lane is not None and lane.is_fresh(self.now(), self._interval):
            lane.catch_up(viewer)
            viewer.rouse()
        elif lane is not None:
            lane.wanted = True
            self._wanted.unpark_all()

    def alert_after(self, place: int) -> tuple[int, Update | None]:
        """The next alert for a viewer, and where it goes on."""
        return self._alerts.after(place)

    # ---- the loop

    async def run(self) -> None:
        """Tick until cancelled; at rest while nobody watches. After a crash everybody gets the whole state first."""
        self._begin_anew()
        while True:
            if not self._viewers:
                self._collector.rest()
                self._news.rest()
                await self._wanted.park()
            await self._tick(self._on_time())
            if any(lane.wanted for lane in self._lanes.values()):
                continue  # somebody came meanwhile; the tick has been a checkpoint
            with trio.move_on_at(min(self._last + self._interval, self.now() + _LOOK)):
                await self._wanted.park()

    def _begin_anew(self) -> None:
        """Trust nothing that a crash may have left half done: some may have been told a step, and others not."""
        self._collector.rest()
        for viewer in self._viewers:
            self._unplace(viewer)

    def _on_time(self) -> bool:
        """Whether a regular tick is due; if not, somebody may have come who knows nothing yet."""
        now = self.now()
        if now < self._last + self._interval:
            return False
        self._last = now
        self._number += 1
        return True

    async def _tick(self, regular: bool) -> None:
        for viewer in list(self._viewers):
            self._place(viewer)
        due = [lane for lane in self._lanes.values() if lane.wanted or (regular and self._is_due(lane))]
        if due:
            state = await self._collector.collect()
            now = self.now()
            self.skipped += sum(lane.advance(state, now) for lane in due if lane.viewers)
            self.updated = self._fleet.clock.wall()
            await self._rouse([viewer for lane in due for viewer in lane.viewers])
        self._spread()

    async def _rouse(self, viewers: Sequence[Subscriber]) -> None:
        """Let them send, a few at a time: a hundred in one turn would hold up every stream until all have sent."""
        size = max(_AT_ONCE, math.ceil(len(viewers) / _GROUPS))
        gap = min(_GAP, self._interval / 2 / _GROUPS)
        for first in range(0, len(viewers), size):
            if first:
                await trio.sleep(gap)
            for viewer in viewers[first : first + size]:
                viewer.rouse()

    def _spread(self) -> None:
        """Tell what is new beside the figures."""
        for key, update in self._news.changes(self.now()):
            for viewer in self._viewers:
                viewer.replace(key, update)

    def _is_due(self, lane: RateGroup) -> bool:
        return self._number % lane.stride == 0

    # ---- within

    def _on_alert(self, alert: Alert) -> None:
        if self._viewers:
            self._alerts.add(alert_update(alert))
            for viewer in self._viewers:
                viewer.rouse()

    @property
    def _interval(self) -> float:
        return self._fleet.config.current.dashboard.interval

    def _check_room(self, address: str) -> None:
        limits = self._fleet.config.current.dashboard
        if len(self._viewers) >= limits.max_clients:
            raise TooManyClients(f"{limits.max_clients} clients watch already", retry_after=_FULL_FOR)
        if sum(viewer.address == address for viewer in self._viewers) >= limits.max_clients_per_address:
            most = limits.max_clients_per_address
            raise TooManyClients(f"{most} clients of this address watch already", retry_after=_FULL_FOR)

    def _place(self, viewer: Subscriber) -> None:
        """Put a viewer with those of its pace."""
        stride = stride_of(viewer.hz, self._interval, viewer.slow)
        if viewer.lane is not None and viewer.lane.stride == stride:
            return
        self._unplace(viewer)
        lane = self._lanes.setdefault(stride, RateGroup(stride, self.epoch))
        lane.viewers[viewer] = None
        viewer.lane = lane
        viewer.outdate()
        self.wants(viewer)

    def _unplace(self, viewer: Subscriber) -> None:
        lane, viewer.lane = viewer.lane, None
        if lane is not None:
            lane.viewers.pop(viewer, None)
            if not lane.viewers:
                self._lanes.pop(lane.stride, None)
