"""Clients of Socket.IO that break off anywhere, in every way a connection can end."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import trio

from tests.kit.clients.edge import reset
from tests.kit.clients.raw import request_bytes
from tests.web.edge.test_websocket_tunnel import frame, upgrade

_PATH = "/socket.io/?EIO=4&transport="
_WORDS = (b"40", b"40", b"41", b"3", b"1", b'421["request_update"]', b'42["set_rate",2]', b"abc", b"2probe", b"5")


class _Away(Exception):
    """It has had enough."""


class Leaver:
    """One client; any step may be its last."""

    def __init__(self, port: int, random: Random) -> None:
        self._port = port
        self._random = random
        self._streams: list[trio.SocketStream] = []

    async def live(self) -> None:
        try:
            if self._random.random() < 0.4:
                await self._by_websocket()
            else:
                await self._by_polling()
        except (_Away, trio.BrokenResourceError):
            pass
        finally:
            with trio.CancelScope(shield=True):
                for stream in self._streams:
                    with suppress(trio.BrokenResourceError, OSError):
                        await self._leave(stream)

    async def _by_websocket(self) -> None:
        stream = await self._open(upgrade(f"{_PATH}websocket"))
        await self._heard(stream, b"pingInterval")
        await stream.send_all(frame(b"40"))
        await self._talk(stream)

    async def _by_polling(self) -> None:
        stream = await self._open(request_bytes("GET", f"{_PATH}polling"))
        sid = (await self._heard(stream, b"pingInterval")).split(b'"sid":"')[1].split(b'"')[0].decode()
        path = f"polling&sid={sid}"
        await self._say(stream, request_bytes("POST", f"{_PATH}{path}", b"40"))
        await self._heard(stream, b"ok")
        await self._say(stream, request_bytes("GET", f"{_PATH}{path}"))
        taking_over = await self._open(upgrade(f"{_PATH}websocket&sid={sid}"))
        await self._say(taking_over, frame(b"2probe"))
        await self._heard(taking_over, b"3probe")
        await self._say(taking_over, frame(b"5"))
        if self._random.random() < 0.3:
            await self._say(stream, request_bytes("GET", f"{_PATH}{path}"))
        await self._talk(taking_over)

    async def _talk(self, stream: trio.SocketStream) -> None:
        for _ in range(self._random.randrange(6)):
            await self._say(stream, frame(self._random.choice(_WORDS), self._random.choice((1, 1, 1, 1, 2, 9, 10))))

    async def _open(self, first: bytes) -> trio.SocketStream:
        self._streams.append(await trio.open_tcp_stream("127.0.0.1", self._port))
        await self._say(self._streams[-1], first)
        return self._streams[-1]

    async def _say(self, stream: trio.SocketStream, data: bytes) -> None:
        if self._random.random() < 0.03:
            await stream.send_all(data[: len(data) // 2])
            raise _Away
        await stream.send_all(data)
        self._or_leave()

    async def _heard(self, stream: trio.SocketStream, wanted: bytes) -> bytes:
        heard = b""
        while wanted not in heard:
            if not (more := await stream.receive_some(65536)) or b"HTTP/1.1 4" in more:
                raise _Away  # too late: the session is over
            heard += more
        self._or_leave()
        return heard

    def _or_leave(self) -> None:
        if self._random.random() < 0.08:
            raise _Away

    async def _leave(self, stream: trio.SocketStream) -> None:
        way = self._random.choice(("close", "reset", "half", "late"))
        if way == "reset":
            reset(stream)
        elif way == "half":
            await stream.send_eof()
        if way in ("half", "late"):
            await trio.sleep(self._random.random() * 0.1)
        await trio.aclose_forcefully(stream)


async def broken_off(port: int, random: Random) -> None:
    """One client from its beginning to its sudden end."""
    await Leaver(port, random).live()
