"""All clients of Socket.IO: let in, found again by their session's id, looked after, and sent away at the end."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from typing import Final

import trio

from actors.observability.dashboard.feed import Transport
from actors.system import System
from fleet.common.errors import ShuttingDown, TooManyClients
from fleet.protocol.call import Headers
from web.live import engine_io
from web.live.admission import Credentials
from web.live.engine_io import Timing
from web.live.session import End, Session
from web.security.session_cookies import Shown

log = logging.getLogger("fleet.live")

KEY: Final = "FLEET_LIVE_SESSIONS"
"""Where the app's configuration has them."""
LEAST_PENDING: Final = 64
"""Sessions of clients that have not connected yet, if `dashboard.max_clients` is not more. One more, and one has to
make room."""
_SID_BYTES: Final = 16
_FULL_FOR: Final = 5.0
_RESTART_FOR: Final = 2.0


class Sessions:
    """The only place that knows a session by its id. Everything but `run` is synchronous."""

    def __init__(self, system: System, timing: Timing | None = None) -> None:
        self.system = system
        self.timing = timing or Timing()
        self._open: dict[str, Session] = {}
        self._stopping = False

    def __len__(self) -> int:
        return len(self._open)

    async def run(self, stop: trio.Event) -> None:
        """Look after sessions that ask for nothing, until `stop`; then end all, so that clients come back elsewhere."""
        while not stop.is_set():
            self.look()
            with trio.move_on_after(self.timing.look):
                await stop.wait()
        self._stopping = True
        for session in list(self._open.values()):
            session.close(End.RESTART)

    def look(self) -> None:
        """Do what is due in any session. A crash in one ends that one."""
        for session in list(self._open.values()):
            try:
                session.look()
            except Exception:
                log.exception("a live client's session has crashed")
                session.close(End.CRASHED)

    def open(self, address: str, headers: Headers, transport: Transport, held: Shown | None = None) -> Session:
        """A new session, which has a moment to connect; `held` is the pass it came with.

        Raises ShuttingDown and TooManyClients.
        """
        self._check_room(address)
        self._make_room()
        sid, name = secrets.token_urlsafe(_SID_BYTES), secrets.token_urlsafe(_SID_BYTES)
        session = Session(self, sid, name, address, Credentials(headers, self.system, held), transport)
        self._open[sid] = session
        return session

    def find(self, sid: str) -> Session:
        """The session of an id. Raises `engine.Refused`."""
        session = self._open.get(sid)
        if session is None:
            raise engine_io.unknown_session()
        return session

    def forget(self, session: Session) -> None:
        """It has ended."""
        self._open.pop(session.sid, None)

    def _check_room(self, address: str) -> None:
        """Here rather than when it connects: a client that is refused here tries again by itself."""
        if self._stopping:
            raise ShuttingDown("the fleet is shutting down", retry_after=_RESTART_FOR)
        limits = self.system.config.dashboard
        mine = sum(session.viewer is not None and session.address == address for session in self._open.values())
        if mine >= limits.max_clients_per_address:
            raise TooManyClients(f"{mine} clients of this address watch already", retry_after=_FULL_FOR)
        if sum(self.system.feed.clients.values()) >= limits.max_clients:
            raise TooManyClients(f"{limits.max_clients} clients watch already", retry_after=_FULL_FOR)

    def _make_room(self) -> None:
        """The oldest of the address that has most: who opens them by the hundred shuts nobody out but itself."""
        pending = [session for session in self._open.values() if session.viewer is None]
        if len(pending) >= max(LEAST_PENDING, self.system.config.dashboard.max_clients):
            ((crowd, _),) = Counter(session.address for session in pending).most_common(1)
            next(session for session in pending if session.address == crowd).close(End.TRY_LATER)
