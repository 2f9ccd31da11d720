"""python -m bench.disturbance.watchers HOST:PORT COUNT: so many who watch the dashboard, and one more who never reads.

Half of them speak Socket.IO over a websocket, half take the plain feed. Prints `ready` once each has heard something,
and after SIGTERM, as its last line, what they have heard as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Message, Ping, Request, TextMessage
from wsproto.utilities import RemoteProtocolError

from bench.processes import say

SOCKET_IO, PLAIN = "/socket.io/?EIO=4&transport=websocket", "/ws"
_UPDATE = '"metrics_update"'
_SMALL = 4096
"""Bytes that the kernel takes in for who never reads."""


class Refused(Exception):
    """There was no websocket."""


@dataclass
class Watcher:
    """One client; `gap` is the longest time in seconds between two updates."""

    path: str
    updates: int = 0
    heard: int = 0
    gap: float = 0.0
    first: trio.Event = field(default_factory=trio.Event)
    lost: str = ""
    _text: list[str] = field(default_factory=list)
    _last: float = 0.0

    async def run(self, host: str, port: int) -> None:
        """Watch until cancelled. Whatever ends it before is noted in `lost`."""
        try:
            async with await trio.open_tcp_stream(host, port) as stream:
                await self._watch(stream, await shake_hands(stream, host, self.path))
            self.lost = "the fleet closed the connection"
        except (OSError, trio.BrokenResourceError, Refused, RemoteProtocolError) as error:
            self.lost = f"{type(error).__name__}: {error}"
        self.first.set()

    async def _watch(self, stream: trio.SocketStream, ws: WSConnection) -> None:
        while True:
            for event in ws.events():
                if isinstance(event, TextMessage):
                    self._text.append(event.data)
                    if event.message_finished:
                        await stream.send_all(self._hear("".join(self._text), ws))
                        self._text.clear()
                elif isinstance(event, Ping):
                    await stream.send_all(ws.send(event.response()))
            data = await stream.receive_some(65536)
            if not data:
                return
            self.heard += len(data)
            ws.receive_data(data)

    def _hear(self, text: str, ws: WSConnection) -> bytes:
        """Take in one message; what to say to it."""
        if _UPDATE in text[:40]:
            now = time.monotonic()
            self.gap = max(self.gap, now - self._last) if self._last else 0.0
            self._last = now
            self.updates += 1
            self.first.set()
        elif self.path == SOCKET_IO:  # Engine.IO's opening and pings
            answer = {"0": "40", "2": "3"}.get(text[0])
            return ws.send(Message(answer)) if answer else b""
        return b""


async def shake_hands(stream: trio.SocketStream, host: str, path: str) -> WSConnection:
    """A websocket on a connection. Raises Refused."""
    ws = WSConnection(ConnectionType.CLIENT)
    await stream.send_all(ws.send(Request(host=host, target=path)))
    while data := await stream.receive_some(65536):
        ws.receive_data(data)
        for event in ws.events():
            if isinstance(event, AcceptConnection):
                return ws
            raise Refused(f"{path}: {event}")
    raise Refused(f"{path}: closed")


async def never_reads(host: str, port: int, path: str, ready: trio.Event) -> None:
    """Connect, say what a client of Socket.IO says, and never read again."""
    with trio.socket.socket() as sock:
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, _SMALL)
        await sock.connect((host, port))
        stream = trio.SocketStream(sock)
        ws = await shake_hands(stream, host, path)
        if path == SOCKET_IO:
            await stream.send_all(ws.send(Message("40")))
        ready.set()
        await trio.sleep_forever()


async def main(host: str, port: int, count: int) -> None:
    watchers = [Watcher((SOCKET_IO, PLAIN)[number % 2]) for number in range(count)]
    deaf = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(never_reads, host, port, PLAIN, deaf)
            for watcher in watchers:
                nursery.start_soon(watcher.run, host, port)
            for watcher in watchers:
                await watcher.first.wait()
            await deaf.wait()
            say("ready")
            async for _ in signals:
                nursery.cancel_scope.cancel()
                break
    say(json.dumps(summary(watchers)))


def summary(watchers: list[Watcher]) -> dict[str, object]:
    """Who was lost, and the least that any has heard."""
    return {
        "lost": [watcher.lost for watcher in watchers if watcher.lost],
        "least": min(watcher.updates for watcher in watchers),
        "updates": sum(watcher.updates for watcher in watchers),
        "bytes": sum(watcher.heard for watcher in watchers),
        "gap": max(watcher.gap for watcher in watchers),
    }


if __name__ == "__main__":
    os.nice(19)  # they share a core with the load generator, whose figures must not be theirs
    where, _, at = sys.argv[1].rpartition(":")
    trio.run(main, where, int(at), int(sys.argv[2]))
