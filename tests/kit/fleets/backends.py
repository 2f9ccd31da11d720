"""Simulated Ollama servers in memory: real HTTP bytes on virtual time, no sockets."""

from __future__ import annotations

import errno
from collections.abc import Iterable

import httpcore
import httpx
import trio

from fleet.simulator import ModelFile, Profile
from tests.kit.fleets.memory import MemoryEnd, memory_pair
from web.simulator.connection import serve_connection
from web.simulator.engine.host import SimHost, make_host
from web.simulator.engine.streams import reset

GIGABYTE = 10**9


class FakeBackend:
    """One simulated server that is dialled in memory; its connections live in `nursery`.

    `backend.host` is the `SimHost` (requests seen, counters, `faults`), `backend.host.server` the pure model.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        models: str | Iterable[ModelFile] = "llama3:8b:4.7GB",
        profile: Profile | None = None,
        *,
        id: str = "sim",
        faults: Iterable[str] = (),
        seed: int = 0,
        capacity: int = 65536,
    ) -> None:
        self.host: SimHost = make_host(models, profile, id=id, faults=faults, seed=seed)
        self.url = f"http://{id}.internal:11434"
        self.dials = 0
        """How often somebody tried to connect, refused attempts included."""
        self.refusing = False
        """Refuse every dial, as a machine without that server does (the fault `refuse` does the same)."""
        self._nursery = nursery
        self._capacity = capacity

    async def dial(self) -> trio.abc.Stream:
        """A connection to the server. Raises `ConnectionRefusedError`."""
        await trio.lowlevel.checkpoint()
        self.dials += 1
        if self.refusing or self.host.faults.refusing:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"{self.host.id} refuses connections")
        ours, theirs = memory_pair(self._capacity)
        self._nursery.start_soon(serve_connection, self.host, theirs)
        return ours

    def kill(self) -> None:
        """The machine dies: every connection is reset, dials are refused until `restart`."""
        self.refusing = True
        self.host.reset_connections()

    def restart(self) -> None:
        """Dials are taken again; nothing is loaded."""
        self.refusing = False
        for runner in tuple(self.host.server.runners.values()):
            self.host.server.crash(runner, trio.current_time())

    @property
    def httpx_transport(self) -> httpx.AsyncBaseTransport:
        """A transport for one httpx client, whatever the host in its URLs; connections are pooled as in real life."""
        transport = httpx.AsyncHTTPTransport(verify=False)  # to read all authorities takes 15 ms, and nobody speaks TLS
        transport._pool = httpcore.AsyncConnectionPool(network_backend=_Network(self))
        return transport

    def client(self) -> httpx.AsyncClient:
        """An httpx client with this server as its base URL."""
        return httpx.AsyncClient(transport=self.httpx_transport, base_url=self.url, timeout=None)


class _Network(httpcore.AsyncNetworkBackend):
    """httpcore's view of the network: one host behind every name."""

    def __init__(self, backend: FakeBackend) -> None:
        self._backend = backend

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            return _NetworkStream(await self._backend.dial())
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error


class _NetworkStream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            with trio.fail_after(float("inf") if timeout is None else timeout):
                return bytes(await self._stream.receive_some(max_bytes))
        except trio.TooSlowError as error:
            raise httpcore.ReadTimeout from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            with trio.fail_after(float("inf") if timeout is None else timeout):
                await self._stream.send_all(buffer)
        except trio.TooSlowError as error:
            raise httpcore.WriteTimeout from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> object:
        if info == "is_readable" and isinstance(self._stream, MemoryEnd):
            return self._stream.readable
        return None


__all__ = ["GIGABYTE", "FakeBackend", "MemoryEnd", "memory_pair", "reset"]
