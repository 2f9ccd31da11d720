"""Engine.IO over plain requests: the handshake, polls, and posts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio
from quart import Response, request

from fleet.common.errors import FleetError, TooLarge
from web.asgi import quart_request
from web.http import responses
from web.live import engine_io
from web.live.engine_io import POLLING, BadPacket, EngineRefusal
from web.live.session import End, Over, Session
from web.live.sessions import Sessions
from web.security import api_key_auth

_TEXT: Final = "text/plain; charset=UTF-8"


async def serve_request(sessions: Sessions) -> Response:
    """Answer one request that is no websocket. Raises FleetError."""
    try:
        return await _served(sessions)
    except EngineRefusal as refused:
        return refusal(refused)


def refusal(refused: EngineRefusal) -> Response:
    """In the protocol's own form."""
    return responses.raw(refused.body, "application/json", 400)


def handshake(sessions: Sessions, session: Session) -> bytes:
    """The first packet of a session."""
    upgrades = [engine_io.WEBSOCKET] if session.transport == POLLING else []
    most = sessions.system.config.dashboard.message_bytes
    return engine_io.opening(session.sid, upgrades, sessions.timing, most)


async def _served(sessions: Sessions) -> Response:
    transport, sid = request.args.get("transport"), request.args.get("sid")
    if transport not in (POLLING, engine_io.WEBSOCKET):
        raise engine_io.unknown_transport()
    if sid:
        return await _continued(sessions.find(sid), transport, sessions)
    if request.method != "GET":
        raise engine_io.bad_method()
    if transport != POLLING:
        raise engine_io.bad_request("a websocket begins with an upgrade")
    if request.args.get("EIO") != engine_io.VERSION:
        raise engine_io.bad_version()
    here = quart_request.scope()
    session = sessions.open(quart_request.client(), here["headers"], POLLING, api_key_auth.pass_of(here))
    return _answer(handshake(sessions, session))


async def _continued(session: Session, transport: str, sessions: Sessions) -> Response:
    if session.transport != POLLING or transport != POLLING:
        raise engine_io.bad_request("the session uses another transport")
    if request.method == "GET":
        return _answer(await _poll(session))
    if request.method == "POST":
        return await _post(session, sessions.system.config.dashboard.message_bytes)
    raise engine_io.bad_request("sessions know GET and POST")


async def _poll(session: Session) -> bytes:
    """Wait for something to send. A poll that is given up ends the session, as a lost socket would. Raises Refused.

    At its end a CLOSE would be more polite, but after one python-socketio's client does not come back; after an error
    all clients do.
    """
    if session.polling:
        session.close(End.BAD_PACKET)  # whoever polls twice at once would get half of everything in each
        raise engine_io.bad_request("one poll at a time")
    session.poll(begins=True)
    try:
        return engine_io.packed(await session.take())
    except Over:
        if session.end is End.LEFT:
            return engine_io.NOOP.encode()
        raise engine_io.unknown_session() from None
    except trio.Cancelled:
        if session.transport == POLLING:
            session.close(End.LEFT)
        raise
    finally:
        session.poll(begins=False)


async def _post(session: Session, most: int) -> Response:
    """Take in the packets of one body. Raises Refused, TooLarge; the session has ended then."""
    try:
        with _alone(session):
            for packet in engine_io.unpacked(await _body(most)):
                await session.pace()
                session.hear(packet)
    except BadPacket as bad:
        session.close(End.BAD_PACKET)
        raise engine_io.bad_request(str(bad)) from None
    except FleetError:
        session.close(End.BAD_PACKET)
        raise
    return _answer(b"ok")


@contextmanager
def _alone(session: Session) -> Iterator[None]:
    """One post at a time, or their packets would mix. Raises BadPacket."""
    if session.posting:
        raise BadPacket("one post at a time")
    session.posting = True
    try:
        yield
    finally:
        session.posting = False


async def _body(most: int) -> bytes:
    """The whole body. Raises TooLarge, as soon as that is certain, and RequestTimeout."""
    if (request.content_length or 0) > most:
        raise TooLarge("the message is larger than dashboard.message_bytes allows")
    pieces, size = [], 0
    async for piece in request.body:
        size += len(piece)
        if size > most:
            raise TooLarge("the message is larger than dashboard.message_bytes allows")
        pieces.append(piece)
    return b"".join(pieces)


def _answer(body: bytes) -> Response:
    response = responses.raw(body, _TEXT)
    response.headers["Cache-Control"] = "no-store"
    return response
