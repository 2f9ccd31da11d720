"""One client of Socket.IO, whatever carries its packets: what it says, what it is sent, and when it has to go.

Everything but `take` and `pace` is synchronous. There is no task per session: whoever carries its packets (an open
poll, or a websocket) waits in `take` for what comes next, and so a client that does not read only stops its own viewer.
"""

from __future__ import annotations

import enum
import logging
import math
from collections import deque
from typing import Final, Protocol

import trio

from actors.observability.dashboard.feed import Subscriber, Transport, Update
from actors.system import System
from fleet.common.errors import FleetError
from web.live import engine_io, socketio
from web.live.admission import Credentials
from web.live.engine_io import BadPacket, Timing
from web.live.events import answered
from web.live.ping_pace import PingPace

log = logging.getLogger("fleet.live")

MOST_WAITING: Final = 64
"""Packets besides the feed's that wait for one client (answers, mostly)."""
MOST_UNACKED: Final = 2
"""Updates that a client which confirms them may have unconfirmed."""
_CONFIRMED: Final = "metrics_update"
"""The event that is confirmed."""
_WIRE: Final = "socket.io"


class End(enum.Enum):
    """Why a session has ended, and the code with which its websocket is closed."""

    LEFT = 1000
    SILENT = 1001
    BAD_PACKET = 1002
    UNWANTED = 1008
    TOO_BIG = 1009
    CRASHED = 1011
    RESTART = 1012
    TRY_LATER = 1013


class Over(Exception):
    """The session has ended, and there is nothing more to send."""


class Home(Protocol):
    """What a session needs of the collection it belongs to."""

    timing: Timing
    system: System

    def forget(self, session: Session) -> None: ...


class Session:
    """`end` is None as long as it lives. `transport` carries its packets; `upgrading` says whether that changes now.

    `posting` and `polling` say that a request of that kind is open: there may be one of each. `life` is the scope of
    the websocket's task, which has a moment to end by itself before it is cancelled.
    """

    def __init__(self, home: Home, sid: str, name: str, address: str, shown: Credentials, transport: Transport) -> None:
        now = trio.current_time()
        self.sid = sid
        self.address = address
        self.transport = transport
        self.upgrading = self.polling = self.posting = False
        self.viewer: Subscriber | None = None
        self.end: End | None = None
        self.life = trio.CancelScope()
        self._home = home
        self._name = name
        self._shown = shown
        self._pace = PingPace(now)
        self._outbox: deque[bytes] = deque()
        self._rest = trio.CancelScope()
        self._pending: socketio.SocketPacket | None = None
        """An event whose attachments are still coming."""
        self._missing = 0
        self._acks = False
        self._unacked: dict[int, float] = {}
        self._asked = 0
        self._connect_by = now + home.timing.connect
        self._ping_at = now + home.timing.ping
        self._pong_by = math.inf
        self._polled = now

    # ---- towards the client

    async def take(self) -> list[bytes]:
        """What to send next, as soon as there is something. Raises Over. Cancelled: nothing is lost."""
        while True:
            self.look()
            if self._outbox:
                return self.leftover()
            if self.end is not None:
                raise Over
            if self.upgrading:
                return [engine_io.NOOP.encode()]
            due = min(self._connect_by, self._pong_by, self._ping_at, self._confirm_by)
            with trio.CancelScope(deadline=due) as self._rest:
                if (update := await self._next()) is not None:
                    return [*self.leftover(), self._worded(update)]

    def leftover(self) -> list[bytes]:
        """What waits, which is then no longer waiting."""
        packets = list(self._outbox)
        self._outbox.clear()
        return packets

    def send(self, packet: bytes) -> None:
        """Put a packet before the feed's."""
        if len(self._outbox) >= MOST_WAITING:
            self.close(End.TRY_LATER)
            return
        self._outbox.append(packet)
        self._rest.cancel()

    def close(self, end: End) -> None:
        """End it, at once and for good; only the first reason counts. Clients come back by themselves."""
        if self.end is not None:
            return
        self.end = end
        self._leave()
        self._home.forget(self)
        self._rest.cancel()
        self.life.deadline = min(self.life.deadline, trio.current_time() + engine_io.LAST_WORDS)

    def look(self) -> None:
        """Do what is due: ask whether the client is there, or end what has no future."""
        now = trio.current_time()
        if self.end is not None:
            return
        if now >= min(self._connect_by, self._pong_by, self._poll_by):
            self.close(End.SILENT)
        elif now >= self._confirm_by:
            self.close(End.TRY_LATER)
        elif self.viewer is not None and self._shown.refusal() is not None:  # its key was revoked
            self.send(socketio.parting())
            self.close(End.UNWANTED)
        elif now >= self._ping_at:
            self._ping_at, self._pong_by = math.inf, now + self._home.timing.pong
            self.send(engine_io.PING.encode())

    # ---- from the client

    async def pace(self) -> None:
        """Wait until the client may say one thing more."""
        if wait := self._pace.wait(trio.current_time()):
            await trio.sleep(wait)

    def hear(self, packet: engine_io.EnginePacket) -> None:
        """Take in one packet. Raises BadPacket; the session has to be closed then."""
        if self.end is not None:
            return
        match packet.kind:
            case engine_io.MESSAGE:
                self._message(packet.data)
            case engine_io.PONG:
                if self._pong_by < math.inf:  # one that nobody asked for says nothing: it may have waited for its turn
                    self._ping_at, self._pong_by = trio.current_time() + self._home.timing.ping, math.inf
            case engine_io.CLOSE:
                self.close(End.LEFT)
            case engine_io.UPGRADE | engine_io.NOOP:
                pass
            case _:
                raise BadPacket("this is for servers to say")

    def poll(self, *, begins: bool) -> None:
        """A poll begins or ends."""
        self.polling = begins
        self._polled = trio.current_time()

    def begin_upgrade(self) -> None:
        """A websocket has answered for this session: an open poll has to end."""
        self.upgrading = True
        self._rest.cancel()

    def finish_upgrade(self, *, done: bool) -> None:
        """The websocket carries everything from here on, or it has failed and polling goes on."""
        self.upgrading = False
        if done:
            self.transport = engine_io.WEBSOCKET
            if self.viewer is not None:
                self.viewer.transport = engine_io.WEBSOCKET

    # ---- within

    @property
    def _poll_by(self) -> float:
        """A client may answer pings that it has never read; for one that does not poll, this is the end."""
        if self.transport != engine_io.POLLING or self.polling:
            return math.inf
        return self._polled + self._home.timing.ping + self._home.timing.pong

    @property
    def _confirm_by(self) -> float:
        return min(self._unacked.values(), default=math.inf) + self._home.timing.drain

    async def _next(self) -> Update | None:
        viewer = self.viewer
        if viewer is None or len(self._unacked) >= MOST_UNACKED:
            await trio.sleep_forever()
        try:
            return await viewer.next()
        except trio.ClosedResourceError:
            if viewer is self.viewer:  # it was not us who let it go
                self.close(End.TRY_LATER)
            return None

    def _worded(self, update: Update) -> bytes:
        packet = update.wire.get(_WIRE)
        if packet is None:
            packet = update.wire[_WIRE] = socketio.event(update.event, update.data)
        if not self._acks or update.event != _CONFIRMED:
            return packet
        self._asked += 1
        self._unacked[self._asked] = trio.current_time()
        return socketio.asking(packet, self._asked)

    def _message(self, data: str | bytes) -> None:
        if isinstance(data, bytes):
            self._attached()
            return
        if self._missing:
            raise BadPacket("a text among attachments")
        packet = socketio.decoded(data)
        if packet.kind == socketio.CONNECT:
            self._connect(packet)
        elif packet.namespace != socketio.MAIN or self.viewer is None:
            raise BadPacket("not connected to this namespace")
        elif packet.kind == socketio.DISCONNECT:
            self._leave()
            self._connect_by = trio.current_time() + self._home.timing.connect
        elif packet.attachments:
            self._pending, self._missing = packet, packet.attachments
        else:
            self._handle(packet)

    def _attached(self) -> None:
        """One attachment more. Nothing that we understand has any, so their bytes are let go."""
        if not self._missing:
            raise BadPacket("an attachment to nothing")
        self._missing -= 1
        if not self._missing and self._pending is not None:
            packet, self._pending = self._pending, None
            self._handle(packet)

    def _handle(self, packet: socketio.SocketPacket) -> None:
        if packet.is_ack:
            if packet.id is not None and self._unacked.pop(packet.id, None) is not None:
                self._rest.cancel()
            return
        name, *values = packet.data
        if name == "disconnect":  # a name that clients may not use; but somebody who uses it means it
            self.close(End.LEFT)
        elif self.viewer is not None:
            answer = answered(self.viewer, name, values)
            if answer is not None and packet.id is not None:
                self.send(socketio.acked(packet.id, answer))

    def _connect(self, packet: socketio.SocketPacket) -> None:
        if packet.namespace != socketio.MAIN:
            self.send(socketio.refused(packet.namespace, "Invalid namespace"))
            return
        if self.viewer is not None:
            raise BadPacket("connected already")
        auth = packet.data or {}
        self._shown.show(auth.get("token"))
        if (error := self._shown.refusal()) is not None:
            reason = {"reason": error.reason, "status": error.status, "client": self.address, "rule": "/socket.io/"}
            log.info("request refused", extra=reason)
            about = {"code": error.code, "reason": error.reason, "details": error.details}
            self.send(socketio.refused(socketio.MAIN, error.message, about))
            return
        try:
            self.viewer = self._home.system.feed.join(self.address, self.transport)
        except FleetError:  # a refusal would keep the client away for good, a lost connection does not
            self.close(End.TRY_LATER)
            return
        self._acks = auth.get("acks") is True
        self._connect_by = math.inf
        self.send(socketio.connected(self._name))

    def _leave(self) -> None:
        viewer, self.viewer = self.viewer, None
        self._unacked.clear()
        self._pending, self._missing = None, 0
        if viewer is not None:
            viewer.leave()
