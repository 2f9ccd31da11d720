"""A simulated server on a TCP port; while it refuses connections it does not listen at all."""

from __future__ import annotations

from functools import partial

import trio

from web.simulator.connection import serve_connection
from web.simulator.engine.host import SimHost


async def serve_sim(
    host: SimHost,
    port: int,
    *,
    address: str = "127.0.0.1",
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; `started()` gives the port (0 = any free one). Raises `OSError` if it is taken."""
    listeners = await trio.open_tcp_listeners(port, host=address, backlog=1024)
    port = int(listeners[0].socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        task_status.started(port)
        while True:
            await _listen_until_refusing(host, listeners, nursery)
            while host.faults.refusing:
                with trio.move_on_at(host.faults.refusing_until):
                    await host.faults.changed.wait()
            listeners = await trio.open_tcp_listeners(port, host=address, backlog=1024)


async def _listen_until_refusing(
    host: SimHost, listeners: list[trio.SocketListener], connections: trio.Nursery
) -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(serve_connection, host)
        nursery.start_soon(partial(trio.serve_listeners, serve, listeners, handler_nursery=connections))
        while not host.faults.refusing:
            await host.faults.changed.wait()
        nursery.cancel_scope.cancel()
