"""Accepting connections and looking after them: in batches, within the limit, until told to stop."""

from __future__ import annotations

import logging
import math
import socket
import ssl
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import trio

from actors.system import System
from fleet.config import Config
from fleet.security.client_address import TrustedProxies
from web.edge import disconnect_watch, error_responses
from web.edge.app_proxy import ColdLane
from web.edge.connection import Connection
from web.edge.inference_lane import HotLane
from web.edge.request_head import Heads
from web.edge.response_writer import DateLine
from web.http.body_limits import BodyTerms
from web.http.ports import Face
from web.process.bind import Bound
from web.process.file_limits import most_clients
from web.process.private_listener import Inner
from web.process.resource_shortage import PAUSE, Shortage, is_shortage
from web.security.request_gate import RequestGate

log = logging.getLogger(__name__)

_BATCH: Final = 64
"""Connections accepted before the event loop gets a turn: one at a time would starve thousands that come at once, and
all of them at once would starve everybody else."""
_SWEEP: Final = 1.0
_TURNING_AWAY: Final = 256
"""Refused clients that get the time to read why; those over it are closed at once."""


class Edge:
    """What all connections share. `closing`: no further request on any connection.

    `most` is how many clients the process can have, whatever `limits.connections` says.
    """

    def __init__(
        self,
        system: System,
        gate: RequestGate,
        inner: Inner,
        terms: BodyTerms,
        tls: ssl.SSLContext | None,
        most: float = math.inf,
    ) -> None:
        self._system = system
        self.terms = terms
        self.tls = tls
        self.hot = HotLane(system, gate)
        self.cold = ColdLane(inner)
        self.heads = Heads(system.config.limits.headers)
        self.proxies = TrustedProxies(system.config.server.trusted_proxies)
        self.date = DateLine(system.clock.wall)
        self.leaving = disconnect_watch.make()
        self.closing = False
        self.connections: set[Connection] = set()
        self.most = most
        self._turned_away = 0

    @property
    def config(self) -> Config:
        return self._system.config

    def follow(self, before: Config, config: Config) -> None:
        """Go on by another configuration, as far as it is not asked for each time."""
        self.terms.budget.limit = config.limits.buffered_bytes
        self.terms = replace(self.terms, idle=config.timeouts.body_idle, total=config.total_timeout)
        if self.most != math.inf and config.limits.connections != before.limits.connections:
            self.most = most_clients(config)
        self.heads.allow(config.limits.headers)
        self.proxies = TrustedProxies(config.server.trusted_proxies)

    def renew_certificate(self, tls: ssl.SSLContext | None) -> None:
        """For connections that come from here on."""
        self.tls = tls

    @property
    def draining(self) -> bool:
        return self._system.draining or self.closing

    def enter(self, sock: socket.socket, address: object, nursery: trio.Nursery, face: Face = Face.PROXY) -> None:
        """Serve one client, or tell it that there is no room."""
        if len(self.connections) < min(self.config.limits.connections, self.most):
            peer = address[0] if isinstance(address, tuple) else ""
            connection = Connection(self, sock, peer, face)
            self.connections.add(connection)
            nursery.start_soon(self._serve, connection, name="client")
        elif self._turned_away < _TURNING_AWAY:
            self._turned_away += 1  # here: a whole batch may come before the first of these tasks runs
            nursery.start_soon(self._turn_away, sock, face, name="refused client")
        else:
            sock.close()

    async def _serve(self, connection: Connection) -> None:
        try:
            await connection.run()
        finally:
            self.connections.discard(connection)

    async def _turn_away(self, sock: socket.socket, face: Face) -> None:
        """Say so without reading more than it takes for the client to see it."""
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        try:
            with trio.move_on_after(1):
                if self.tls is None:
                    await stream.send_all(error_responses.too_many(self.date, face))
                await stream.send_eof()
                while await stream.receive_some(65536):
                    pass
        except trio.BrokenResourceError:
            pass
        finally:
            self._turned_away -= 1
            await trio.aclose_forcefully(stream)

    async def sweep(self) -> None:
        """Close connections that have been idle for too long: one look a second at all, no timer for each."""
        while True:
            await trio.sleep(_SWEEP)
            oldest = trio.current_time() - self.config.timeouts.keep_alive
            for connection in [each for each in self.connections if each.idle and each.since <= oldest]:
                connection.hang_up()

    def close(self) -> None:
        """No further request: idle connections end now, the others after their answer."""
        self.closing = True
        for connection in list(self.connections):
            if connection.idle:
                connection.hang_up()


async def serve_edge(
    listeners: Sequence[Bound],
    edge: Edge,
    *,
    stop: trio.Event,
    drain_timeout: float,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve on several addresses until `stop` is set and what was running has ended.

    Reports the URLs once connections are accepted. After `stop`, answers get `drain_timeout` seconds to end.
    Cancelled: everything ends at once. No client can make it raise.
    """
    sockets = [(sock, Face.of_setting(bound.setting)) for bound in listeners for sock in bound.sockets]
    try:
        async with trio.open_nursery() as around:
            around.start_soon(edge.leaving.run)
            around.start_soon(edge.sweep)
            async with trio.open_nursery() as connections:
                accepting = trio.CancelScope()
                connections.start_soon(_accept_all, edge, sockets, accepting, connections)
                task_status.started([bound.url for bound in listeners])
                await stop.wait()
                accepting.cancel()
                edge.close()
                connections.cancel_scope.deadline = trio.current_time() + drain_timeout
            around.cancel_scope.cancel()
    finally:
        edge.cold.close()


async def _accept_all(
    edge: Edge, sockets: Sequence[tuple[socket.socket, Face]], scope: trio.CancelScope, connections: trio.Nursery
) -> None:
    try:
        with scope:
            async with trio.open_nursery() as nursery:
                for sock, face in sockets:
                    nursery.start_soon(_accept, edge, sock, face, connections)
    finally:
        for sock, _ in sockets:  # at once: who comes now is refused, and need not wait for our end
            sock.close()


async def _accept(edge: Edge, listener: socket.socket, face: Face, connections: trio.Nursery) -> None:
    shortage = Shortage("cannot accept connections", log)
    while True:
        await trio.lowlevel.wait_readable(listener)
        exhausted = _accept_batch(edge, listener, face, connections)
        if exhausted is None:
            shortage.over()
            continue
        shortage.met(exhausted)
        await trio.sleep(PAUSE)


def _accept_batch(edge: Edge, listener: socket.socket, face: Face, connections: trio.Nursery) -> OSError | None:
    """Accept who waits, up to a batch; the error if this process cannot have any more."""
    for _ in range(_BATCH):
        try:
            sock, address = listener.accept()
        except BlockingIOError:
            break
        except OSError as error:
            if is_shortage(error):
                return error
            continue  # that client is gone already
        if _tuned(sock):
            edge.enter(sock, address, connections, face)
    return None


def _tuned(sock: socket.socket) -> bool:
    """Whether the connection is fit to be served; it is closed otherwise."""
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except OSError:  # that client is gone already
        sock.close()
        return False
    return True
