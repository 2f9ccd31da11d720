"""The feed over a plain websocket: each message is one JSON text, `{"event": ..., "data": ...}`, both ways.

For clients without Socket.IO. There is no handshake beyond HTTP's, no answer to what is asked for, and no transport but
this. Close codes: 1003 bytes instead of text, 1008 the key is no longer good, 1009 too long, 1012 the fleet stops.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
import trio
from quart import websocket
from quart_trio import QuartTrio

from actors.observability.dashboard.feed import Subscriber
from actors.system import System
from web.admin.kit.context import AppContext
from web.admin.role_enforcement import WEBSOCKET, grant
from web.live.admission import NEEDED, Credentials
from web.live.events import answered
from web.live.ping_pace import PingPace
from web.live.quart_compat import GONE
from web.security import api_key_auth

PATH: Final = "/ws"
KEY: Final = "fleet.talks"
"""Where an application keeps its `Talks`."""
DRAIN: Final = 30.0
"""Seconds that one message may wait for a client which does not read; then its connection is closed."""
NOT_TEXT: Final = 1003
UNWANTED: Final = 1008
TOO_LONG: Final = 1009
STOPPING: Final = 1012
_LAST_WORDS: Final = 1.0
_SHOWN: Final = 60
"""Characters of an unknown event's name that are repeated to who sent it."""


class Talks:
    """All of them."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._viewers: set[Subscriber] = set()

    async def run(self, closing: trio.Event) -> None:
        """Wait until the fleet stops; then let everybody go."""
        await closing.wait()
        for viewer in list(self._viewers):
            viewer.leave()

    async def serve(self) -> None:
        """One connection, from the handshake to its end. Raises TooManyClients before anything was agreed."""
        scope: Any = websocket.scope
        viewer = self._system.feed.join((scope.get("client") or ("",))[0], "plain")
        self._viewers.add(viewer)
        try:
            await websocket.accept()
            await _Talk(
                self._system, viewer, Credentials(scope["headers"], self._system, api_key_auth.pass_of(scope))
            ).run()
        finally:
            self._viewers.discard(viewer)
            viewer.leave()


def add_plain(app: QuartTrio, context: AppContext) -> None:
    """Add the route, for operators: the feed names servers and models."""
    talks = app.config[KEY] = Talks(context.system)
    app.add_websocket(PATH, "plain", talks.serve)
    grant(app, WEBSOCKET, PATH, NEEDED)


class _Talk:
    """One connection. It ends when the client leaves (the view is cancelled then), or with a close code of ours."""

    def __init__(self, system: System, viewer: Subscriber, shown: Credentials) -> None:
        self._system = system
        self._viewer = viewer
        self._shown = shown
        self._sending = trio.Lock()
        self._over = trio.CancelScope()
        self._closed = False

    async def run(self) -> None:
        """Both directions, until the end; whoever runs this lets the viewer leave."""
        with self._over:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._hear)
                    await self._tell()
            except* GONE:
                pass

    async def _tell(self) -> None:
        while self._shown.refusal() is None:
            try:
                update = await self._viewer.next()
            except trio.ClosedResourceError:
                await self._close(STOPPING, "the fleet stops")
                return
            await self._send(update.event, update.data)
        await self._close(UNWANTED, "the key is no longer good")

    async def _hear(self) -> None:
        pace = PingPace(trio.current_time())
        while True:
            if wait := pace.wait(trio.current_time()):
                await trio.sleep(wait)
            message = await websocket.receive()
            if not isinstance(message, str):
                await self._close(NOT_TEXT, "messages are JSON texts")
            elif _is_longer(message, self._system.config.dashboard.message_bytes):
                await self._close(TOO_LONG, "the message is longer than dashboard.message_bytes")
            elif (problem := _do(self._viewer, message)) is not None:
                await self._send("error", orjson.dumps({"code": "INVALID_REQUEST", "message": problem}))

    async def _send(self, event: str, data: bytes) -> None:
        """Send one message. The connection is over when the client does not take it in time."""
        text = f'{{"event":"{event}","data":{data.decode()}}}'
        with trio.move_on_after(DRAIN):
            async with self._sending:
                if not self._closed:
                    await websocket.send(text)
            return
        self._over.cancel()
        await trio.lowlevel.checkpoint()

    async def _close(self, code: int, why: str) -> None:
        with trio.move_on_after(_LAST_WORDS):
            async with self._sending:
                if not self._closed:
                    self._closed = True
                    await websocket.close(code, why)
        self._over.cancel()
        await trio.lowlevel.checkpoint()


def _do(viewer: Subscriber, message: str) -> str | None:
    """Do what a message asks for; else what is wrong with it, in words."""
    try:
        said = orjson.loads(message)
    except orjson.JSONDecodeError:
        return "the message is not valid JSON"
    name = said.get("event") if isinstance(said, dict) else None
    if not isinstance(name, str):
        return 'a message is an object such as {"event": "request_update"}'
    answer = answered(viewer, name, (said["data"],) if "data" in said else ())
    if answer is None:
        return f"there is no event {name[:_SHOWN]!r}"
    return None if answer.get("ok") is True else str(answer.get("error"))


def _is_longer(message: str, most: int) -> bool:
    return len(message) > most or (not message.isascii() and len(message.encode(errors="replace")) > most)
