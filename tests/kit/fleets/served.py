"""The whole product over real sockets: simulated servers, the fleet, the front end, all on free ports.

Its URLs are those of the lane that the test has chosen (`tests.kit.clients.lanes`).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import httpx
import trio

from actors.observability.tracing import Tracer
from actors.storage.history.queries import History
from actors.system import System, open_system
from fleet.common.ids import ServerId
from fleet.config import Config
from fleet.protocol.call import Call, Downstream
from fleet.simulator import Profile
from tests.kit.cases.metrics import noted
from tests.kit.clients.lanes import EDGE, QUART, UNIX, base_url, current, socket_path
from tests.kit.fleets.tcp import TcpSim, sim_server
from tests.kit.suite.unlimited import unlimited
from web.process.private_listener import private_socket
from web.serve import serve

MODELS = "llama3:8b:4.7GB,tiny:latest:1GB,nomic-embed-text:latest:274MB"
QUICK = Profile(load_seconds=0.05, slots=4, tokens_per_second=400.0, prefill_per_second=20_000.0)


class Served:
    """URLs and handles of a running product. `lanes` are the URLs of both lanes, whichever the test has chosen."""

    def __init__(self, url: str, orchestrator_url: str, system: System, sims: dict[str, TcpSim]) -> None:
        self.url = url
        self.orchestrator_url = orchestrator_url
        self.system = system
        self.sims = sims
        self.stop = trio.Event()
        self.lanes: dict[str, str] = {}
        self.dashboard_url = self.metrics_url = url
        """Whatever lane the test has chosen, these are the edge's."""
        self.exchanges = 0
        """Requests whose record is not noted yet. A lease, the other thing that is open, is gone some turns earlier."""
        self._count_exchanges()

    def _count_exchanges(self) -> None:
        exchange = self.system.exchange

        async def counted(call: Call, down: Downstream) -> None:
            self.exchanges += 1
            try:
                await exchange(call, down)
            finally:
                self.exchanges -= 1

        self.system.exchange = counted  # type: ignore[method-assign]

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.partition("://")[2].split(":")
        return host, int(port)

    def client(self, **headers: str) -> httpx.AsyncClient:
        # To read all authorities that TLS trusts takes 15 ms, and this is plain HTTP.
        transport = httpx.AsyncHTTPTransport(uds=socket_path(self.url), verify=False)
        where = base_url(self.url)
        return httpx.AsyncClient(base_url=where, transport=transport, trust_env=False, timeout=20.0, headers=headers)

    async def until_idle(self, within: float = 60.0) -> None:
        """Wait until no inference request is open, here or at a server, and all that were have been noted.

        One that the fleet has not read yet is none: see `until_noted`. Fails when it takes longer.
        """
        with trio.fail_after(within):
            while (
                self.exchanges or self.system.in_flight or any(sim.host.active_requests for sim in self.sims.values())
            ):
                await trio.sleep(0.005)

    async def until_noted(self, requests: int, within: float = 60.0) -> None:
        """Wait until so many requests to Ollama's routes were counted since the start, whatever became of them.

        The fleet counts a request some turns after its client has got the answer, or has left.
        """
        with trio.fail_after(within):
            while noted(self.system) < requests:
                await trio.sleep(0.005)

    def assert_nothing_left(self) -> None:
        assert self.system.in_flight == 0
        assert self.system.scheduler.memory.total.in_use == 0
        assert not self.system.scheduler.tickets
        for cell in self.system.servers.values():
            assert cell.state.in_use == 0
            assert cell.pool.open_count == 0


@asynccontextmanager
async def front_end(config: Config, system: System, sims: dict[str, TcpSim]) -> AsyncIterator[Served]:
    """The front end of a running system, with both its lanes."""
    with private_socket(time.time()) as inner:
        async with trio.open_nursery() as nursery:
            stop = trio.Event()
            urls = await nursery.start(partial(serve, config, system=system, stop=stop, inner=inner))
            lanes = {EDGE: urls[0], QUART: UNIX + inner.path}
            chosen = urls if current() == EDGE else [lanes[QUART]] * 2
            handle = Served(chosen[0], chosen[1], system, sims)
            handle.dashboard_url, handle.metrics_url = urls[2], urls[3]
            handle.stop, handle.lanes = stop, lanes
            yield handle
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def served(
    *servers: str,
    models: str = MODELS,
    profile: Profile = QUICK,
    slots: int | str = 4,
    tracer: Tracer | None = None,
    history: History | None = None,
    **config: Any,
) -> AsyncIterator[Served]:
    """A running product with one simulated server per name, probed once."""
    async with AsyncExitStack() as stack:
        sims = {name: await stack.enter_async_context(sim_server(models, profile, id=name)) for name in servers}
        specs = [{"id": name, "url": sim.url, "max_concurrency": slots} for name, sim in sims.items()]
        ports = {
            "proxy_port": 0,
            "orchestrator_port": 0,
            "dashboard_port": 0,
            "metrics_port": 0,
            **config.pop("server", {}),
        }
        full = Config.model_validate({"servers": specs, "server": ports, **unlimited(config)})
        async with (
            open_system(full, seed=1, tracer=tracer, history=history) as system,
            front_end(full, system, sims) as handle,
        ):
            for name in servers:
                await system.probe(ServerId(name), 5.0)
            yield handle
