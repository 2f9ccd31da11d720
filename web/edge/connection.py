"""One client connection, from accept to close: request after request, each on its lane, in one task.

Nothing here is done per chunk. The client's leaving is noticed from outside (`disconnect_watch`) and cancels the task
wherever it is; a half-closed connection has left, except that a harmless GET may still be answered.
"""

from __future__ import annotations

import enum
import logging
import socket
from typing import TYPE_CHECKING, Final

import trio

from actors.upstream.transport_errors import BROKEN
from fleet.common.errors import FleetError
from fleet.protocol.call import ClientGone
from fleet.protocol.headers import request_id_of
from web.edge import error_responses
from web.edge.app_proxy import Requester
from web.edge.request_head import BadHead, RequestHead
from web.edge.request_reader import LINGER, Body, Intake
from web.edge.response_writer import EdgeDownstream
from web.edge.tls_link import ClientLink, PlainLink, shake_hands
from web.http import errors
from web.http.ports import Face
from web.security.request_gate import new_request_id

if TYPE_CHECKING:
    from web.edge.acceptor import Edge

log = logging.getLogger(__name__)

_GRACE: Final = 1.0
"""Seconds in which a client that has closed its sending side may still get the answer to a GET."""
_HARMLESS: Final = frozenset(("GET", "HEAD", "OPTIONS"))


class _Stage(enum.Enum):
    """What a connection does, and hence what it means that the client closes its side."""

    READING = "reading"
    HARMLESS = "harmless"
    SERVING = "serving"


class Connection:
    """`life` cancels all of it, from outside; `since` is when the last request ended."""

    __slots__ = (
        "_edge",
        "_face",
        "_gone",
        "_intake",
        "_link",
        "_peer",
        "_socket",
        "_stage",
        "_unread",
        "life",
        "since",
    )

    def __init__(self, edge: Edge, sock: socket.socket, peer: str, face: Face = Face.PROXY) -> None:
        self._edge = edge
        self._socket = sock
        self._peer = peer
        self._face = face
        self._link: ClientLink | None = None
        self._intake: Intake | None = None
        self._gone = False
        self._stage = _Stage.READING
        self._unread = False
        self.life = trio.CancelScope()
        self.since = trio.current_time()

    @property
    def idle(self) -> bool:
        return self._intake is not None and not self._intake.busy

    async def run(self) -> None:
        """Serve until either side closes. Raises nothing but Cancelled."""
        try:
            self._edge.leaving.watch(self._socket, self._left)
        except (OSError, ValueError) as error:
            log.warning("cannot watch over one more connection: %s", error)
            self._socket.close()
            return
        try:
            with self.life:
                await self._serve()
        except ClientGone:
            if self._link is not None:
                self._link.reset()
        except (*BROKEN, EOFError):
            pass
        except Exception as crash:
            log.error("connection closed after an error in it", exc_info=crash)
        finally:
            if self._link is not None:
                self._link.abort()
            else:
                self._edge.leaving.forget(self._socket)
                self._socket.close()

    def hang_up(self) -> None:
        """Close an idle connection. A request that has just come in was not read, and so can be sent again."""
        if self._link is not None:
            self._link.abort()

    def _left(self, reset: bool) -> None:
        """The client has closed its side, or all of the connection; while nothing runs, reading shows it too."""
        self._gone = True
        if reset or self._stage is _Stage.SERVING:
            self.life.cancel()
        elif self._stage is _Stage.HARMLESS:
            self.life.deadline = trio.current_time() + _GRACE

    async def _serve(self) -> None:
        edge, config = self._edge, self._edge.config
        if edge.tls is None:
            link: ClientLink = PlainLink(self._socket, edge.leaving)
        else:
            link = await shake_hands(self._socket, edge.tls, config.timeouts.head, edge.leaving)
        self._link = link
        intake = self._intake = Intake(link, edge.heads, config.limits.header_bytes, config.timeouts.head)
        while not edge.closing:
            try:
                got = await intake.head()
            except BadHead as bad:
                with trio.move_on_after(LINGER):
                    await link.send_all(error_responses.answer(bad, edge.date, self._face))
                self._unread = True
                break
            if got is None:
                return
            if not await self._one(link, intake, *got):
                break
            self.since = trio.current_time()
        with trio.move_on_after(LINGER):
            await self._close(link)

    # Whether another request may follow is said three times, and only the last time counts. The head of the request
    # asks for it, the head of the answer promises it, and then, when both messages have ended or not, it is decided
    # here. Before that it may only become less likely: once `connection: close` has been sent, a client may send
    # nothing more, and once it has not, we may still close, for which clients of HTTP/1.1 are prepared.
    #
    # What goes wrong otherwise: with a body that has not been read to its end, what follows would be read as a request
    # (that is how requests are smuggled), so an unread rest is thrown away or the connection is closed, and never
    # skipped. With an answer that is not whole, the client takes the next one for its missing end. And where the end of
    # an answer is the end of the connection, only a reset tells a client that something is missing: it has to come
    # before anybody closes in the ordinary way. The bytes of a body are given back before the wait for its rest, which
    # holds none; and the stage is READING in it, because a client may close its side then and still read the answer.
    async def _one(self, link: ClientLink, intake: Intake, head: RequestHead, length: int | None) -> bool:
        """One request; whether another may follow on this connection."""
        body = Body(intake, head, length, self._edge.terms)
        down = EdgeDownstream(link, head, body, self._edge.date)
        if self._edge.draining:
            down.keep_alive = False
        try:
            await self._answer(link, intake, head, body, down)
        finally:
            body.release()
            self._stage = _Stage.READING
            if down.ends_by_close and not down.whole:  # a plain close would look like the end of the answer
                link.reset()
        going_on = down.keep_alive and down.whole and (body.complete or await body.discard())
        self._unread = not body.complete or head.upgrade  # its answer to a farewell, for one
        return going_on

    async def _answer(
        self, link: ClientLink, intake: Intake, head: RequestHead, body: Body, down: EdgeDownstream
    ) -> None:
        edge = self._edge
        known = edge.hot.prepared(head) if self._face.infers else None
        if known is not None and self._face is Face.DASHBOARD and known.by_cookie(head):
            known = None
        harmless = known is None and head.method in _HARMLESS
        self._stage = _Stage.HARMLESS if harmless else _Stage.SERVING
        if self._gone:  # it left with its last byte, and nobody will tell us again
            if not harmless:
                return
            self.life.deadline = min(self.life.deadline, trio.current_time() + _GRACE)
        if known is not None:
            await edge.hot.serve(known, body, down, self._client(head), self._face)
            return
        down.patience = edge.config.timeouts.write
        try:
            if head.upgrade:
                await edge.cold.upgrade(head, intake, link, down, self._asking(head))
            else:
                await edge.cold.serve(head, body, down, self._asking(head))
        except FleetError as error:
            await self._refuse(error, head, down)

    async def _refuse(self, error: FleetError, head: RequestHead, down: EdgeDownstream) -> None:
        """What went wrong on the way to the app, in the words of the path's dialect."""
        request_id = request_id_of(head.headers, new_request_id())
        path = head.target.partition(b"?")[0].decode("ascii")
        down.fields = ((b"x-request-id", request_id.encode()),)
        asker = errors.asker(
            path, request_id, self._edge.config.compat.native_errors, head.headers, self._edge.date.wall, self._face
        )
        await errors.make_good(error, asker, down)

    def _client(self, head: RequestHead) -> str:
        return self._edge.proxies.client_in(self._peer, head.headers)

    def _asking(self, head: RequestHead) -> Requester:
        return Requester(self._client(head), self._face)

    async def _close(self, link: ClientLink) -> None:
        """Close so that the client gets to read the last answer: bytes that nobody reads would reset the connection."""
        if link.closed:
            return
        if self._unread or link.stale():
            self._socket.shutdown(socket.SHUT_WR)
            while await link.receive():
                pass
        else:
            await link.end()
