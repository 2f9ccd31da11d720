"""Simulated Ollama servers on real sockets, that can be killed and started again on the same port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import trio

from fleet.simulator import ModelFile, Profile
from web.simulator.engine.host import SimHost, make_host
from web.simulator.tcp import serve_sim


class TcpSim:
    """One server on one port. `host` survives `kill` and `restart`, with its record of requests."""

    def __init__(self, host: SimHost, nursery: trio.Nursery) -> None:
        self.host = host
        self.port = 0
        self._nursery = nursery
        self._life = trio.CancelScope()
        self._gone = trio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen; on the same port as before, if there was one."""
        self._life, self._gone = trio.CancelScope(), trio.Event()
        self.port = await self._nursery.start(self._live)

    async def _live(self, task_status: trio.TaskStatus[int]) -> None:
        try:
            with self._life:
                await serve_sim(self.host, self.port, task_status=task_status)
        finally:
            self._gone.set()

    async def kill(self) -> None:
        """Reset every connection and stop listening: the next connect is refused."""
        self.host.reset_connections()
        self._life.cancel()
        await self._gone.wait()

    async def restart(self) -> None:
        """Listen again on the same port; nothing is loaded any more."""
        for runner in tuple(self.host.server.runners.values()):
            self.host.server.crash(runner, trio.current_time())
        await self.start()


@asynccontextmanager
async def sim_server(
    models: str | Iterable[ModelFile] = "llama3:8b:4.7GB",
    profile: Profile | None = None,
    *,
    id: str = "sim",
    faults: Iterable[str] = (),
    seed: int = 0,
) -> AsyncIterator[TcpSim]:
    """A simulated server on a free port of 127.0.0.1 for the length of the block."""
    host = make_host(models, profile, id=id, faults=faults, seed=seed)
    async with trio.open_nursery() as nursery:
        sim = TcpSim(host, nursery)
        await sim.start()
        yield sim
        nursery.cancel_scope.cancel()
