"""The dashboard's port with a feed whose updates the test makes, and raw clients of Engine.IO."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
import trio
from trio_websocket import WebSocketConnection, wrap_client_stream

import actors.observability.alert_monitor
import web.live.routes
from actors.observability.dashboard.feed import Feed, Subscriber, Transport, Update
from actors.security.api_keys import ApiKeys
from actors.system import System
from fleet.common.errors import TooManyClients
from fleet.config import Config
from fleet.observability.alerting.rules import BY_NAME
from tests.kit.fleets.served import Served, served
from web.live.engine_io import POLLING, EnginePacket, Timing
from web.live.session import End, Session
from web.live.sessions import Sessions

QUICK = Timing(ping=0.1, pong=0.3, connect=0.3, upgrade=0.2, drain=0.5, look=0.02)
"""Seconds in which a test can see every limit."""
FORGIVING = replace(QUICK, pong=60.0, connect=60.0)
"""As quick to ask, but no client of a test is too slow for it."""
CALM = Timing()


class FakeViewer:
    """Sends what the test tells; notes what its client wished."""

    def __init__(self, feed: FakeFeed, address: str, transport: Transport) -> None:
        self.feed = feed
        self.address = address
        self.transport = transport
        self.wishes = 0
        self.rate: float | None = None
        self.waiting: deque[Update] = deque()
        self.taken = 0
        self.left = False
        self._parked = trio.lowlevel.ParkingLot()

    async def next(self) -> Update:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self.left:
            if self.waiting:
                self.taken += 1
                return self.waiting.popleft()
            await self._parked.park()
        raise trio.ClosedResourceError

    def leave(self) -> None:
        self.left = True
        self.feed.viewers.pop(self, None)
        self._parked.unpark_all()

    def request_update(self) -> None:
        self.wishes += 1
        self.tell(metrics(self.wishes))

    def set_rate(self, hz: float) -> None:
        self.rate = hz

    def tell(self, update: Update) -> None:
        self.waiting.append(update)
        self._parked.unpark_all()


class FakeFeed:
    """Takes `most` viewers."""

    def __init__(self, most: int = 100) -> None:
        self.most = most
        self.viewers: dict[FakeViewer, None] = {}
        self.joined = 0

    def join(self, address: str, transport: Transport = "websocket") -> Subscriber:
        if len(self.viewers) >= self.most:
            raise TooManyClients("too many", retry_after=1.0)
        viewer = FakeViewer(self, address, transport)
        self.viewers[viewer] = None
        self.joined += 1
        return cast(Subscriber, viewer)

    @property
    def clients(self) -> Counter[str]:
        return Counter(viewer.transport for viewer in self.viewers)

    @property
    def only(self) -> FakeViewer:
        (viewer,) = self.viewers
        return viewer

    def tell(self, *updates: Update) -> None:
        for viewer in self.viewers:
            for update in updates:
                viewer.tell(update)

    async def until(self, number: int, within: float = 60.0) -> None:
        """Wait until so many watch."""
        with trio.fail_after(within):
            while len(self.viewers) != number:
                await trio.sleep(0.005)


def update(event: str, **payload: Any) -> Update:
    return Update(event, json.dumps(payload, separators=(",", ":")).encode())


def metrics(seq: int) -> Update:
    return update("metrics_update", seq=seq)


THREE = (metrics(0), update("ai_status_update", text="all is well"), update("system_alert", rule="ServerDown"))
"""One of each event there is."""


class Dashboard:
    """The port of a running product. `sessions` are its own."""

    def __init__(self, fleet: Served, feed: FakeFeed, sessions: Sessions) -> None:
        self.fleet = fleet
        self.feed = feed
        self.sessions = sessions
        self.url = fleet.dashboard_url
        self.port = int(self.url.rpartition(":")[2])

    def client(self, **headers: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=60.0, headers=headers)

    async def until_polled(self, client: Poller) -> None:
        """Wait until a poll of this client is open at the server."""
        with trio.fail_after(60):
            while not self.sessions.find(client.sid).polling:
                await trio.sleep(0.001)

    @asynccontextmanager
    async def polling(self, **headers: str) -> AsyncIterator[Poller]:
        """A session by polling, not connected yet."""
        async with self.client(**headers) as http:
            yield await Poller.begin(http)

    @asynccontextmanager
    async def websocket(self, sid: str = "", headers: Any = None) -> AsyncIterator[WebSocketConnection]:
        """A websocket, of a new session or of an old one."""
        asked = "EIO=4&transport=websocket" + (f"&sid={sid}" if sid else "")
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with stream, trio.open_nursery() as nursery:
            host = f"127.0.0.1:{self.port}"
            path = f"/socket.io/?{asked}"
            yield await wrap_client_stream(nursery, stream, host, path, extra_headers=headers)
            nursery.cancel_scope.cancel()


class Poller:
    """One session by polling: `poll` gives packets, `post` says some."""

    def __init__(self, http: httpx.AsyncClient, opened: dict[str, Any]) -> None:
        self.http = http
        self.opened = opened
        self.sid = opened["sid"]
        self._packets: deque[str] = deque()

    @classmethod
    async def begin(cls, http: httpx.AsyncClient) -> Poller:
        answer = await http.get("/socket.io/?EIO=4&transport=polling")
        assert answer.status_code == 200, answer.text
        assert answer.text[0] == "0"
        return cls(http, json.loads(answer.text[1:]))

    @property
    def path(self) -> str:
        return f"/socket.io/?EIO=4&transport=polling&sid={self.sid}"

    async def post(self, *packets: str) -> httpx.Response:
        return await self.http.post(self.path, content="\x1e".join(packets).encode())

    async def poll(self) -> list[str]:
        """The packets of one answer."""
        answer = await self.http.get(self.path)
        assert answer.status_code == 200, answer.text
        return answer.text.split("\x1e")

    async def next(self) -> str:
        """The next packet."""
        while not self._packets:
            self._packets.extend(await self.poll())
        return self._packets.popleft()

    async def connect(self, packet: str = "40") -> str:
        """Connect; the answer to that."""
        answer = await self.post(packet)
        assert (answer.status_code, answer.text) == (200, "ok")
        while (said := await self.next()) == "2":  # whoever is slow is asked whether it is there before
            await self.post("3")
        return said


async def message(socket: WebSocketConnection) -> str:
    """The next text of a websocket."""
    with trio.fail_after(60):
        return str(await socket.get_message())


@asynccontextmanager
async def dashboard(
    monkeypatch: pytest.MonkeyPatch, timing: Timing = CALM, port: int = 0, feed: FakeFeed | None = None, **config: Any
) -> AsyncIterator[Dashboard]:
    """A running product without servers, whose feed is a fake one."""
    made: list[Sessions] = []

    def remembered(system: Any) -> Sessions:
        made.append(Sessions(system, timing))
        return made[-1]

    monkeypatch.setattr(web.live.routes, "Sessions", remembered)
    server = {"dashboard_port": port, **config.pop("server", {})}
    async with served(server=server, **config) as fleet:
        told = feed or FakeFeed()
        monkeypatch.setattr(fleet.system, "feed", cast(Feed, told))
        yield Dashboard(fleet, told, made[-1])


quick = partial(dashboard, timing=QUICK)


@asynccontextmanager
async def fleet_with_alerts(monkeypatch: pytest.MonkeyPatch, *servers: str) -> AsyncIterator[Served]:
    """A real fleet with its real feed, which takes a server for down as soon as it is, and says so at once."""
    monkeypatch.setattr(actors.observability.alert_monitor, "INTERVAL", 0.1)
    health = {"interval": 0.2, "jitter": 0.0, "failures": 1, "max_backoff": 0.2}
    async with served(*servers, health=health, dashboard={"interval": 0.2}) as fleet:
        fleet.system.monitor.alerts.rules = (replace(BY_NAME["FleetServerDown"], hold=0.0, keep_firing=0.0),)
        yield fleet


def house(feed: FakeFeed | None = None, **config: Any) -> Sessions:
    system = SimpleNamespace(config=Config.model_validate(config), keys=ApiKeys(), feed=feed or FakeFeed())
    return Sessions(cast(System, system))


def feed_of(sessions: Sessions) -> FakeFeed:
    return cast(FakeFeed, sessions.system.feed)


def opened(sessions: Sessions, address: str = "10.0.0.1") -> Session:
    return sessions.open(address, (), POLLING)


def say(session: Session, *texts: str) -> None:
    for text in texts:
        session.hear(EnginePacket("4", text))


def end_of(session: Session) -> End | None:
    return session.end


async def told(session: Session) -> list[str]:
    session.poll(begins=True)
    try:
        return [packet.decode() for packet in await session.take()]
    finally:
        session.poll(begins=False)


async def connected(sessions: Sessions, auth: str = "") -> Session:
    session = opened(sessions)
    say(session, "0" + auth)
    (welcome,) = await told(session)
    assert welcome.startswith('40{"sid":"')
    return session
