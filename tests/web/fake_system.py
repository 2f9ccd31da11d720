"""A System without actors: what the front end asks of it, scripted by the test."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, cast

import trio

from actors.kit.clock import Clock
from actors.security.api_keys import ApiKeys
from actors.state.config_ref import ConfigRef
from actors.state.queue_views import QueueView
from actors.state.request_log import RequestLog
from actors.state.request_statistics import RequestStatistics
from actors.state.totals import Totals
from actors.storage.journal import Journal
from actors.system import System
from fleet.common.errors import NoServer, ShuttingDown
from fleet.common.ids import ModelName, ServerId
from fleet.config import Config, ServerSpec
from fleet.models.merged_catalog import ServerCatalog
from fleet.observability.health_summary.summary import HealthSummary, Level
from fleet.protocol.call import Call, Downstream, Headers
from fleet.scheduling.choice.expected_completion import ExpectedCompletion
from fleet.scheduling.server_state import Health, ServerState
from tests.kit.clients.lanes import QUART, UNIX, current
from tests.kit.suite.unlimited import unlimited
from tests.web.edge.raw import Served, running, served
from web.admin.kit.context import AppContext
from web.admin.route_table import TOPICS
from web.app import create_app
from web.asgi.quart_connection import TERMS_KEY
from web.edge.acceptor import Edge, serve_edge
from web.process.bind import bind
from web.process.private_listener import private_socket

Answering = Callable[[Call, Downstream], Awaitable[None]]


async def say_hi(call: Call, down: Downstream) -> None:
    """A whole small answer."""
    await down.start(200, [(b"content-type", b"application/json"), (b"content-length", b"2")])
    await down.write(b"hi")
    await down.finish()


class _Signed:
    """Puts the request id on the answer, as the exchange does."""

    def __init__(self, call: Call, down: Downstream) -> None:
        self._call = call
        self._down = down

    async def start(self, status: int, headers: Headers) -> None:
        await self._down.start(status, [(b"x-request-id", self._call.request_id.encode()), *headers])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._down, name)


class FakeClient:
    """The control plane to one server; notes what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.reply: tuple[int, bytes] = (200, b"")
        self.records: Sequence[Mapping[str, object]] = ()
        self.hang = False
        self.pulls = 0
        self.pulled: list[Mapping[str, object]] = []

    async def copy(self, source: str, destination: str) -> tuple[int, bytes]:
        return self._tell("copy", source, destination)

    async def delete(self, model: str) -> tuple[int, bytes]:
        return self._tell("delete", model)

    async def unload(self, model: str, *, embedding: bool = False) -> tuple[int, bytes]:
        return self._tell("unload", model, embedding)

    def _tell(self, *what: Any) -> tuple[int, bytes]:
        self.told.append(what)
        return self.reply

    @asynccontextmanager
    async def pull(self, body: Mapping[str, object]) -> AsyncIterator[AsyncIterator[Mapping[str, object]]]:
        self._tell("pull", body["model"])
        self.pulled.append(body)
        self.pulls += 1
        try:
            yield _Told(self.records, self.hang)
        finally:
            self.pulls -= 1


class _Told:
    """Some records, and then the end, or silence."""

    def __init__(self, records: Sequence[Mapping[str, object]], hang: bool) -> None:
        self._records = iter(records)
        self._hang = hang

    def __aiter__(self) -> _Told:
        return self

    async def __anext__(self) -> Mapping[str, object]:
        await trio.lowlevel.checkpoint()
        for record in self._records:
            return record
        if self._hang:
            await trio.sleep_forever()
        raise StopAsyncIteration


QUIET: Final = HealthSummary(Level.OK, "healthy", "all is well", "all is well", 0.0)


class FakeSystem:
    """Everything in memory. `answering` is what an exchange or a relay does; `calls` what it was asked."""

    def __init__(self, servers: Sequence[str] = ("a", "b"), models: Sequence[str] = ("m:latest",), **config: Any):
        self.config = Config.model_validate(unlimited(config))
        self.config_ref = ConfigRef(self.config)
        self.draining = False
        self.keys = ApiKeys()
        self.uptime = 12.5
        self.answering: Answering = say_hi
        self.calls: list[Call] = []
        self.relayed: list[tuple[str, Call]] = []
        self.refreshed: list[str] = []
        self.probed: list[str] = []
        self.on_probe: Callable[[ServerId], None] = lambda server: None
        self.open = 0
        self.ended = trio.Event()
        self.clients: dict[str, FakeClient] = {}
        self.servers: dict[ServerId, Any] = {}
        self.breakers = SimpleNamespace(describe=lambda now=None: [], states=list)
        self.scheduler = SimpleNamespace(expectations=ExpectedCompletion())
        self.monitor = SimpleNamespace(verdict=QUIET)
        self.host = SimpleNamespace(latest=None)
        self.status_writer = SimpleNamespace(latest=None)
        self.feed = SimpleNamespace(clients={}, skipped=0)
        self.paused = False
        self.removed: list[tuple[str, bool]] = []
        self.membership = SimpleNamespace(own_urls=[], keep_out=lambda urls: None)
        self.journal = Journal()
        self.history = None
        self.statistics = RequestStatistics(RequestLog(), Totals(trio.current_time, time.time, Journal()))
        self.clock = Clock(now=trio.current_time)
        for name in servers:
            self.join(ServerSpec(id=ServerId(name), url=f"http://{name}.internal:11434"), models)

    @property
    def handle(self) -> System:
        """This, as far as the type checker is concerned."""
        return cast(System, self)

    @property
    def queries(self) -> FakeSystem:
        """Whom to ask about the fleet."""
        return self

    def join(self, spec: ServerSpec, models: Sequence[str] = ()) -> Any:
        state = ServerState(spec, Health.HEALTHY, why="answers", version="0.33.0", last_response=0.008)
        for model in models:
            row: dict[str, object] = {"name": model, "model": model, "digest": "d" * 64}
            state.models[ModelName(model)] = row | {"modified_at": "2026-01-01T00:00:00Z"}
        cell = SimpleNamespace(state=state, leases={})
        self.servers[spec.id] = cell
        self.clients[spec.id] = FakeClient()
        return cell

    async def exchange(self, call: Call, down: Downstream) -> None:
        self.calls.append(call)
        await self._run(call, down)

    def pulling(self, server: ServerId, body: Mapping[str, object]) -> Any:
        return self.clients[server].pull(body)

    async def relay_to(self, server: ServerId, call: Call, down: Downstream) -> None:
        self.relayed.append((server, call))
        await self._run(call, down)

    async def _run(self, call: Call, down: Downstream) -> None:
        self.open += 1
        try:
            await self.answering(call, cast(Downstream, _Signed(call, down)))
        finally:
            self.open -= 1
            self.ended.set()

    def catalogs(self) -> list[ServerCatalog]:
        return [
            ServerCatalog(state.id, state.health is Health.HEALTHY, list(state.models.values()), (), state.version)
            for state in (cell.state for cell in self.servers.values())
        ]

    def holders(self, model: ModelName) -> list[ServerId]:
        return [name for name, cell in self.servers.items() if cell.state.usable and model in cell.state.models]

    def reachable_holders(self, model: ModelName) -> list[ServerId]:
        return [name for name in self._listing(model) if self.servers[name].state.health is Health.HEALTHY]

    def unreachable_holders(self, model: ModelName) -> list[ServerId]:
        return [name for name in self._listing(model) if self.servers[name].state.health is not Health.HEALTHY]

    def _listing(self, model: ModelName) -> list[ServerId]:
        return [name for name, cell in self.servers.items() if model in cell.state.models]

    async def find(self, model: ModelName) -> bool:
        return self.known(model)

    def known(self, model: ModelName) -> bool:
        return any(model in cell.state.models for cell in self.servers.values())

    def placement(self, model: ModelName, copies: int) -> list[ServerId]:
        usable = [name for name, cell in self.servers.items() if cell.state.usable]
        if not usable:
            raise NoServer("no server is usable now", retry_after=5.0)
        return usable[:copies]

    def builder(self) -> ServerId:
        return self.placement(ModelName(""), 1)[0]

    any_server = builder

    async def watch(self) -> None:
        await trio.sleep_forever()

    def check_open(self) -> None:
        if self.draining:
            raise ShuttingDown("the fleet is shutting down", retry_after=2.0)

    @contextmanager
    def watched(self, server: ServerId) -> Iterator[SimpleNamespace]:
        """Nothing is watched here; the real one is tested with the actors."""
        self.check_open()
        yield SimpleNamespace(alive=lambda: None)

    def client(self, server: ServerId) -> FakeClient:
        return self.clients[server]

    def refresh(self, server: ServerId) -> None:
        self.refreshed.append(server)

    async def probe(self, server: ServerId, within: float) -> None:
        self.probed.append(server)
        await trio.lowlevel.checkpoint()
        self.on_probe(server)

    def add_server(self, spec: ServerSpec) -> Any:
        return self.join(spec)

    async def remove_server(self, server: ServerId, *, drain: bool = True) -> None:
        self.removed.append((server, drain))
        await trio.lowlevel.checkpoint()
        del self.servers[server]

    def pause(self, paused: bool) -> None:
        self.paused = paused

    @property
    def in_flight(self) -> int:
        return self.open

    def queue_view(self, most: int = 200) -> QueueView:
        return QueueView(
            waiting=2,
            max_size=1000,
            processing=3,
            paused=self.paused,
            avg_wait=0.45,
            oldest=1_700_000_000.0,
            total_queued=9,
            total_dropped=1,
            by_model={"m:latest": 2},
            by_priority={0: 2},
            items=(),
        )


@asynccontextmanager
async def fleet(system: FakeSystem) -> AsyncIterator[Served]:
    """The front end over a fake system, on a real socket: the edge before the app, or the app alone."""
    house = AppContext.of(system.handle, TOPICS)
    app = create_app(system.handle, house)
    with private_socket(time.time()) as inner:
        async with served(app, [inner.bound], UNIX + inner.path, arriving=inner.arriving) as behind:
            if current() == QUART:
                yield behind
                return
            bound = bind("127.0.0.1", 0, "test")
            edge = Edge(system.handle, house.gate, inner, app.config[TERMS_KEY], None)
            async with running(partial(serve_edge, [bound], edge), bound.url) as server:
                server.edge = edge
                yield server
