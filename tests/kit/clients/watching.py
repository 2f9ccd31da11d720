"""What a client of the live feed does: put snapshots and deltas together, and notice when one is missing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import trio

from actors.kit.supervisor import keep_up
from actors.observability.dashboard.feed import Feed, Subscriber, Update
from fleet.observability.dashboard.delta import apply
from fleet.observability.dashboard.snapshot import FleetSnapshot, read
from tests.kit.fleets.fleet import Fleet, open_fleet


class Replica:
    """The state as a client has it. `lost` counts deltas that did not follow on what was there."""

    def __init__(self) -> None:
        self.state: FleetSnapshot | None = None
        self.epoch = ""
        self.seq = 0
        self.kinds: list[str] = []
        self.lost = 0

    def take(self, message: Any) -> None:
        """Digest one `metrics_update`."""
        self.kinds.append(message["kind"])
        if message["kind"] == "snapshot":
            self.state = read(message)
        elif self.state is None or (message["epoch"], message["seq"]) != (self.epoch, self.seq + 1):
            self.lost += 1
            return
        else:
            self.state = apply(self.state, message)
        self.epoch, self.seq = message["epoch"], message["seq"]


class Watcher:
    """A viewer with a task that reads everything at once. `got` are all updates, with the moments when they came."""

    def __init__(self, viewer: Subscriber) -> None:
        self.viewer = viewer
        self.replica = Replica()
        self.got: list[tuple[float, str, Any]] = []
        self.updates: list[Update] = []

    async def run(self) -> None:
        """Read until it has left."""
        try:
            while True:
                self.note(await self.viewer.next())
        except trio.ClosedResourceError:
            pass

    def note(self, update: Update) -> None:
        """Take one update in."""
        message = orjson.loads(update.data)
        self.updates.append(update)
        self.got.append((trio.current_time(), update.event, message))
        if update.event == "metrics_update":
            self.replica.take(message)

    def of(self, event: str) -> list[Any]:
        """The payloads of one event."""
        return [message for _, name, message in self.got if name == event]

    def times(self, event: str = "metrics_update") -> list[float]:
        """When those came."""
        return [round(at, 3) for at, name, _ in self.got if name == event]


class Watched:
    """A fleet whose feed runs, on a wall clock that goes with the virtual one."""

    def __init__(self, fleet: Fleet, nursery: trio.Nursery) -> None:
        self.fleet = fleet
        self.system = fleet.system
        self.nursery = nursery

    @property
    def feed(self) -> Feed:
        return self.system.feed

    def watch(self, address: str = "10.0.0.1") -> Watcher:
        """Somebody who reads."""
        watcher = Watcher(self.feed.join(address, "plain"))
        self.nursery.start_soon(watcher.run)
        return watcher


@asynccontextmanager
async def watched(*servers: str, **config: Any) -> AsyncIterator[Watched]:
    """A fleet in memory with its feed."""
    async with open_fleet(*servers, **config) as fleet, trio.open_nursery() as nursery:
        began = trio.current_time()
        fleet.system.clock.wall = lambda: 1.7e9 + trio.current_time() - began
        nursery.start_soon(keep_up, "feed", fleet.system.feed.run)
        yield Watched(fleet, nursery)
        nursery.cancel_scope.cancel()
