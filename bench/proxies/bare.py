"""The floor under every proxy on Trio: bytes passed on between one client and one server, nothing parsed or decided.

`python -m bench.proxies.bare PORT URL`
"""

from __future__ import annotations

import contextlib
import socket
import sys
from urllib.parse import urlsplit

import trio
from trio.lowlevel import wait_readable

SIZE = 65_536


async def relay(client: socket.socket, server: socket.socket) -> None:
    """Pass on requests and answers until somebody closes."""
    with client, server, contextlib.suppress(OSError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, client, server, nursery.cancel_scope)
            await pump(server, client, nursery.cancel_scope)


async def pump(source: socket.socket, sink: socket.socket, done: trio.CancelScope) -> None:
    with contextlib.suppress(OSError):
        while True:
            await wait_readable(source)
            data = source.recv(SIZE)
            if not data:
                break
            while data:
                try:
                    data = data[sink.send(data) :]
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(sink)
    done.cancel()


async def main(port: int, url: str) -> None:
    where = urlsplit(url).hostname, urlsplit(url).port
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    listener.setblocking(False)
    async with trio.open_nursery() as nursery:
        while True:
            await wait_readable(listener)
            with contextlib.suppress(BlockingIOError):
                while True:
                    client = listener.accept()[0]
                    server = socket.create_connection(where)
                    for sock in (client, server):
                        sock.setblocking(False)
                        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    nursery.start_soon(relay, client, server)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), sys.argv[2])
