"""A connection to the app ends when its other side has closed it, whatever the app does then."""

from __future__ import annotations

import math
import socket
from typing import Any, cast

import trio
import trio.testing
from hypercorn.events import Updated
from hypercorn.trio.worker_context import WorkerContext

from tests.kit.clients.raw import request_bytes
from web.asgi.hypercorn_connection import MESSAGE_BYTES, HypercornConnection, hyper_config, wrap


async def test_an_answer_that_ends_after_its_client_does_not_wait_for_the_next_request() -> None:
    """Hypercorn began to wait for one, after the reader had gone: one descriptor less, for good."""
    config = hyper_config(header_bytes=1000, idle=math.inf, message_bytes=lambda: MESSAGE_BYTES)
    client, ours = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())

    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        await trio.testing.wait_all_tasks_blocked()
        await connection.protocol_send(Updated(idle=True))

    connection = HypercornConnection(wrap(app), config, WorkerContext(None), {}, cast(Any, ours))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        await client.send_all(request_bytes("GET", "/"))
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()
        nursery.cancel_scope.deadline = trio.current_time() + 5
    assert not nursery.cancel_scope.cancelled_caught
