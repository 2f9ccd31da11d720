"""Engine.IO over a websocket: from the start, or taken over from polling."""

from __future__ import annotations

from typing import Any, Final

import quart.wrappers.base
import trio
from quart import Response, websocket

from web.live import engine_io
from web.live.engine_http import handshake, refusal
from web.live.engine_io import WEBSOCKET, BadPacket, EngineRefusal
from web.live.session import End, Over, Session
from web.live.sessions import Sessions
from web.security import api_key_auth

_gone = getattr(quart.wrappers.base, "ClientDisconnectedError", None)
_GONE: Final[tuple[type[Exception], ...]] = (_gone,) if _gone else ()
"""What Quart 0.23 raises when the client has gone; before, it cancelled the view."""


async def serve_websocket(sessions: Sessions) -> Response | None:
    """Serve one websocket to its end; a response refuses its handshake. Raises FleetError."""
    try:
        session, fresh = _session(sessions)
    except EngineRefusal as refused:
        return refusal(refused)
    try:
        if fresh or await _taken_over(session, sessions.timing.upgrade):
            await _served(sessions, session, fresh)
    except _GONE:
        pass
    return None


def _session(sessions: Sessions) -> tuple[Session, bool]:
    """Whose websocket this is, and whether the session begins with it. Raises Refused, FleetError."""
    args = websocket.args
    sid = args.get("sid")
    if args.get("transport") != WEBSOCKET:
        raise engine_io.unknown_transport()
    if not sid:
        if args.get("EIO") != engine_io.VERSION:
            raise engine_io.bad_version()
        scope: Any = websocket.scope
        address = (scope.get("client") or ("",))[0]
        return sessions.open(address, scope["headers"], WEBSOCKET, api_key_auth.pass_of(scope)), True
    session = sessions.find(sid)
    if session.transport == WEBSOCKET or session.upgrading:
        raise engine_io.bad_request("the session has a websocket already")
    return session, False


async def _taken_over(session: Session, within: float) -> bool:
    """Whether this websocket carries the session from here on; if not, polling goes on."""
    await websocket.accept()
    with trio.move_on_after(within):
        if await websocket.receive() != engine_io.PROBE or session.upgrading or session.transport == WEBSOCKET:
            return False
        session.begin_upgrade()
        done = False
        try:
            await websocket.send(engine_io.PROBED)
            done = await websocket.receive() == engine_io.UPGRADE
        finally:
            session.finish_upgrade(done=done)
        return done
    return False


async def _served(sessions: Sessions, session: Session, fresh: bool) -> None:
    try:
        if fresh:
            await websocket.accept()
            await websocket.send(handshake(sessions, session).decode())
        with session.life:
            async with trio.open_nursery() as nursery:  # both directions, until the session ends
                nursery.start_soon(_write, session, sessions.timing.drain, nursery.cancel_scope)
                await _read(session, sessions)
    finally:
        session.close(End.LEFT)
    with trio.move_on_after(engine_io.LAST_WORDS):
        for packet in session.leftover():
            await websocket.send(packet.decode())
        await websocket.close((session.end or End.LEFT).value, "")


async def _write(session: Session, patience: float, done: trio.CancelScope) -> None:
    """Send what there is to send. A client that takes nothing for `patience` seconds is let go."""
    try:
        while True:
            for packet in await session.take():
                with trio.move_on_after(patience) as waiting:
                    await websocket.send(packet.decode())
                if waiting.cancelled_caught:
                    session.close(End.TRY_LATER)
                    break
    except Over:
        done.cancel()


async def _read(session: Session, sessions: Sessions) -> None:
    while True:
        try:
            message: str | bytes | None = await websocket.receive()
        except _GONE:
            session.close(End.LEFT)
            return
        if message is None:  # Quart's word for no bytes
            message = b""
        if len(message) > sessions.system.config.dashboard.message_bytes:
            session.close(End.TOO_BIG)
        await session.pace()
        try:
            session.hear(engine_io.decoded(message))
        except BadPacket:
            session.close(End.BAD_PACKET)
