"""A whole fleet in memory: real actors, simulated servers, virtual time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
import trio

from actors.observability.tracing import Tracer
from actors.state.request_log import Listener
from actors.storage.history.queries import History
from actors.storage.journal import Journal
from actors.system import System, open_system
from actors.upstream.control_client import OllamaClient
from actors.upstream.pool import BackendAddress, Pool
from fleet.common.errors import FleetError
from fleet.common.ids import RequestId, ServerId
from fleet.common.model_names import canonical
from fleet.config import Config, ServerSpec
from fleet.protocol.call import Call, ClientGone, Headers
from fleet.protocol.dialects import NATIVE
from fleet.simulator import Profile
from tests.kit.fleets.backends import FakeBackend

QUICK = Profile(load_seconds=2.0, slots=4, tokens_per_second=50.0)


class MemoryBackends:
    """Reaches simulated servers by id, without sockets."""

    def __init__(self, backends: Mapping[str, FakeBackend]) -> None:
        self.backends = backends
        self.pools: dict[str, Pool] = {}
        self.dialled: Counter[str] = Counter()
        """Connections tried for requests, by server; those of probes are not among them."""

    def pool(self, spec: ServerSpec, on_connect: Callable[[], None]) -> Pool:
        async def dial() -> trio.abc.Stream:
            self.dialled[spec.id] += 1
            return await self.backends[spec.id].dial()

        pool = Pool(BackendAddress.parse(spec.url), dial=dial, on_connect=on_connect)
        self.pools[spec.id] = pool
        return pool

    def client(self, spec: ServerSpec, on_connect: Callable[[], None]) -> OllamaClient:
        async def dial() -> trio.abc.Stream:
            return await self.backends[spec.id].dial()

        return OllamaClient(spec, dial=dial, on_connect=on_connect)


class Fleet:
    """The running system, its simulated servers, and what tests ask of both."""

    def __init__(self, system: System, memory: MemoryBackends) -> None:
        self.system = system
        self.memory = memory

    def __getitem__(self, server: str) -> FakeBackend:
        return self.memory.backends[server]

    def cell(self, server: str) -> Any:
        return self.system.servers[ServerId(server)]

    async def until_healthy(self) -> None:
        """Let the first round of probes end."""
        for server in list(self.system.servers):
            await self.system.probe(server, 10.0)

    def assert_nothing_left(self) -> None:
        """In-flight = open leases = 0: no slot, ticket, lease or busy connection is left over."""
        fleet = self.system
        assert self.system.in_flight == 0
        assert fleet.scheduler.memory.total.in_use == 0
        assert not fleet.scheduler.tickets
        for cell in fleet.servers.values():
            assert cell.state.in_use == 0, cell.state.id
            assert cell.pool.open_count == 0, cell.state.id


@asynccontextmanager
async def open_fleet(
    *servers: str | tuple[str, Profile],
    models: str = "m:latest:1GB,n:latest:1GB",
    slots: int | str = 4,
    seed: int = 1,
    journal: Journal | None = None,
    tracer: Tracer | None = None,
    listeners: Sequence[Listener] = (),
    history: History | None = None,
    **config: Any,
) -> AsyncIterator[Fleet]:
    """A fleet over in-memory servers, probed once. `config` holds sections, as in the YAML file."""
    async with trio.open_nursery() as nursery:
        backends = {}
        for entry in servers:
            name, profile = entry if isinstance(entry, tuple) else (entry, QUICK)
            backends[name] = FakeBackend(nursery, models, profile, id=name, seed=seed)
        specs = [{"id": name, "url": b.url, "max_concurrency": slots} for name, b in backends.items()]
        memory = MemoryBackends(backends)
        full = Config.model_validate({"servers": specs, **config})
        async with open_system(
            full, backends=memory, seed=seed, journal=journal, tracer=tracer, listeners=listeners, history=history
        ) as system:
            fleet = Fleet(system, memory)
            await fleet.until_healthy()
            yield fleet
        nursery.cancel_scope.cancel()


class Client:
    """A Downstream that keeps what it is told. `stop_reading` makes every further write block, as TCP would."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.finished = False
        self.aborted = False
        self.gone = False
        self.started = False
        self.first = trio.Event()
        self._reading = trio.Event()
        self._reading.set()

    def stop_reading(self) -> None:
        self._reading = trio.Event()

    def leave(self) -> None:
        """The next write finds the connection closed."""
        self.gone = True

    async def start(self, status: int, headers: Headers) -> None:
        await trio.lowlevel.checkpoint()
        self.started = True
        self.status = status
        self.headers = {name.decode(): value.decode() for name, value in headers}

    async def write(self, data: bytes, raw: bytes = b"") -> None:
        await self._reading.wait()
        if self.gone:
            raise ClientGone
        self.body += data
        self.first.set()

    async def finish(self, last: bytes = b"", raw: bytes = b"", patience: float = math.inf) -> None:
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(patience):
            if last:
                await self.write(last)
            self.finished = True
            return
        self.aborted = True

    def cut(self) -> None:
        """As a connection that is closed: who waits for us to read, wakes up."""
        self.aborted = self.gone = True
        self._reading.set()

    @property
    def records(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.body.splitlines()]

    @property
    def complete(self) -> bool:
        """A clean end with Ollama's final record."""
        return self.finished and bool(self.body) and self.records[-1].get("done") is True


_numbers = iter(range(1, 1_000_000))


def chat(
    model: str = "m",
    *,
    stream: bool = True,
    tokens: int = 5,
    priority: int = 0,
    pinned: str | None = None,
    text: str = "hello",
) -> Call:
    """A native chat call."""
    options = {"num_predict": tokens}
    body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream, "options": options}
    return Call(
        request_id=RequestId(f"r{next(_numbers)}"),
        dialect=NATIVE,
        method="POST",
        target="/api/chat",
        headers=[(b"content-type", b"application/json")],
        body=orjson.dumps(body),
        endpoint="/api/chat",
        model=canonical(model),
        asked_model=model,
        stream=stream,
        priority=priority,
        pinned=ServerId(pinned) if pinned else None,
    )


async def error_of(fleet: Fleet, call: Call, client: Client | None = None) -> str:
    """How the exchange ends: the name of its error, or nothing."""
    try:
        await fleet.system.exchange(call, client or Client())
    except FleetError as error:
        return type(error).__name__
    return ""
