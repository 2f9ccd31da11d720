"""The one place that runs Hypercorn: accept, serve, drain, stop.

Stopping has an end: no new connections, idle ones closed, running responses until the drain timeout, then everything
is cancelled, readers that do not read included.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

import trio
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext

from web.asgi.hypercorn_connection import MESSAGE_BYTES, HypercornConnection, hyper_config, wrap
from web.process.bind import Bound, HostUnusable, PortTaken, bind
from web.process.resource_shortage import PAUSE, Shortage, is_shortage

__all__ = ["MESSAGE_BYTES", "Bound", "HostUnusable", "PortTaken", "bind", "serve_apps"]

log = logging.getLogger(__name__)

IDLE: Final = 180.0
"""Seconds an idle connection is kept; more than the 90 s for which Go clients reuse one."""


async def serve_apps(
    listeners: Sequence[Bound],
    app: Any,
    *,
    stop: trio.Event,
    drain_timeout: float,
    header_bytes: int = 1 << 20,
    idle: float = IDLE,
    arriving: trio.MemoryReceiveChannel[socket.socket] | None = None,
    message_bytes: Callable[[], int] = lambda: MESSAGE_BYTES,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve one ASGI app on several addresses until `stop` is set and what was running has ended.

    `arriving` brings connections that come by no listener; it is closed when no more are served.
    `message_bytes` is asked for the largest message of a websocket; its client is told when one is larger.
    Reports the URLs once connections are accepted. After `stop`, responses get `drain_timeout` seconds to end.
    Cancelled: everything ends at once. No client can make it raise.
    """
    config = hyper_config(header_bytes=header_bytes, idle=idle, message_bytes=message_bytes)
    context = WorkerContext(None)
    called = wrap(app)
    lifespan = Lifespan(called, config, {})
    async with trio.open_nursery() as around:
        await around.start(lifespan.handle_lifespan)
        await lifespan.wait_for_startup()

        async def handle(stream: trio.SocketStream) -> None:
            connection = HypercornConnection(called, config, context, {}, stream)  # type: ignore[arg-type]
            await connection.run()

        async with trio.open_nursery() as connections:
            accepting = await connections.start(_accept, listeners, arriving, handle, connections)
            task_status.started([bound.url for bound in listeners])
            await stop.wait()
            accepting.cancel()
            await context.terminated.set()
            connections.cancel_scope.deadline = trio.current_time() + drain_timeout
        await lifespan.wait_for_shutdown()
        around.cancel_scope.cancel()


async def _accept(
    listeners: Sequence[Bound],
    arriving: trio.MemoryReceiveChannel[socket.socket] | None,
    handle: Callable[[trio.SocketStream], Any],
    connections: trio.Nursery,
    task_status: trio.TaskStatus[trio.CancelScope],
) -> None:
    """Accept until cancelled through the scope it reports; its connections live on in `connections`."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            for listener in [each for bound in listeners for each in bound.listeners()]:
                nursery.start_soon(_listen, handle, listener, connections)
            if arriving is not None:
                nursery.start_soon(_take_in, arriving, handle, connections)
            task_status.started(scope)


async def _listen(
    handle: Callable[[trio.SocketStream], Any], listener: trio.SocketListener, connections: trio.Nursery
) -> None:
    """As Trio does, which would log a traceback ten times a second while there are no descriptors left."""
    shortage = Shortage("the app cannot accept connections", log)
    async with listener:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                if not is_shortage(error):
                    raise
                shortage.met(error)
                await trio.sleep(PAUSE)
                continue
            shortage.over()
            connections.start_soon(handle, stream)


async def _take_in(
    arriving: trio.MemoryReceiveChannel[socket.socket],
    handle: Callable[[trio.SocketStream], Any],
    connections: trio.Nursery,
) -> None:
    async with arriving:
        async for sock in arriving:
            connections.start_soon(handle, trio.SocketStream(trio.socket.from_stdlib_socket(sock)))
