"""The cold lane: every request that is not a hot one, relayed to the Quart app on its private Unix socket, one by one.

A small reverse proxy made of the same parts as the data plane. Bodies are streamed both ways with back-pressure; what
the app sends in whole chunks goes on as it is. Who asked is said in a field that no client can set.
"""

from __future__ import annotations

import logging
import math
import socket
from typing import Final, NamedTuple

import trio

from actors.upstream.connection import Link
from actors.upstream.pool import BackendAddress, Pool, UpstreamRequest, UpstreamResponse
from fleet.common.errors import BackendError, BadRequest, FleetError, Phase
from fleet.protocol.call import Headers
from fleet.protocol.headers import connection_fields, field
from web.edge.request_head import RequestHead
from web.edge.request_reader import Body, Intake
from web.edge.response_writer import EdgeDownstream
from web.edge.websocket_tunnel import tunnel
from web.http.ports import Face
from web.http.request_target import split_absolute
from web.process.private_listener import FACE, PEER, Inner

log = logging.getLogger(__name__)

_OURS: Final = frozenset((b"host", b"content-length", b"expect", PEER, FACE))
_OURS_UPGRADING: Final = _OURS | {b"sec-websocket-extensions"}
"""Compression is not agreed to: a few bytes could become a thousand times as many in the app."""
_IDLE: Final = 128
"""Connections to the app that are kept; as many polls of live clients as the default allows end in one moment."""
_CONNECT: Final = 30.0
_TURN: Final = 0.002
_LENGTH: Final = frozenset((b"content-length",))
_LOST: Final = (FileNotFoundError, NotADirectoryError, PermissionError, ConnectionRefusedError)
"""How a path fails on which nobody listens any more (on the BSDs the last one may also mean a full backlog)."""


class Requester(NamedTuple):
    """Who asks (an address), and on which of our ports."""

    client: str
    face: Face


class AppUnreachable(FleetError):
    """The app behind the edge took no connection, or gave no answer."""

    status, code, reason = 503, "SERVICE_UNAVAILABLE", "APP_UNREACHABLE"


class ColdLane:
    """Relays to one app."""

    def __init__(self, inner: Inner) -> None:
        self._pool = Pool(BackendAddress.parse("http://fleet.internal"), dial=_Dialling(inner), max_idle=_IDLE)
        self._failing = False

    async def serve(self, head: RequestHead, body: Body, down: EdgeDownstream, asks: Requester) -> None:
        """Relay one request and its answer.

        Raises ClientGone, EOFError (the client left within its body), and FleetError before anything was answered.
        """
        request = _request(head, b"" if body.empty else body, body.length, asks)
        await self._relay(await self._open(request), down)

    async def upgrade(
        self, head: RequestHead, intake: Intake, link: Link, down: EdgeDownstream, asks: Requester
    ) -> None:
        """Relay a websocket's handshake and, if the app agrees, all that follows, until either side closes.

        What the client sends before it has seen the 101 waits: frames out of turn are what kills servers.
        """
        down.keep_alive = False  # what the client has sent already is frames, not a request
        request = _request(head, b"", None, asks, upgrade=True)
        response = await self._open(request)
        if response.status != 101:
            await self._relay(response, down)
            return
        inner, begun = response.take_over()
        try:
            await down.switch([pair for pair in response.headers if pair[0] not in _LENGTH])
            if await tunnel(intake, link, inner, begun, down.patience):
                down.part()
        finally:
            inner.abort()

    async def _open(self, request: UpstreamRequest) -> UpstreamResponse:
        """Ask the app. Raises AppUnreachable, and whatever the client's body raises."""
        try:
            response = await self._pool.open(request, connect_timeout=_CONNECT)
        except BackendError as error:
            raise self._unreachable(error) from error
        self._failing = False
        return response

    def _unreachable(self, error: BackendError) -> AppUnreachable:
        """The same in words for clients, who need not know how the app is reached."""
        if not self._failing:  # one line for all requests until it answers again
            log.warning("the app behind the edge gives no answer: %s", error.message)
        self._failing = True
        failed = "cannot be reached" if error.phase is Phase.CONNECT else "gave no answer"
        return AppUnreachable(f"the fleet's own application {failed}, please try again", retry_after=1.0)

    async def _relay(self, response: UpstreamResponse, down: EdgeDownstream) -> None:
        try:
            dropped = _LENGTH if response.status == 204 else frozenset()  # RFC 9110, 8.6: no body, so no length
            await down.start(response.status, _kept(response.headers, dropped))
            if response.framing == "chunked":
                await down.flush()  # a stream may be silent for long
            data = await response.receive()
            while not response.complete:
                await down.write(data, response.raw)
                data = await response.receive()
            await down.finish(data, response.raw)
        except BackendError:  # the app cut its answer, and the client has to see that
            down.cut()
        finally:
            response.release()

    def close(self) -> None:
        """End what is still open."""
        self._pool.close()


class _Dialling:
    """Connections to the app: by its path, or, once that is lost (cleaners of /tmp take it), handed straight over.

    By hand, because a Unix socket whose backlog is full refuses instead of waiting, and Trio takes that for success.
    """

    def __init__(self, inner: Inner) -> None:
        self._inner = inner
        self._waiting = trio.Lock()
        self._lost = False

    async def __call__(self) -> trio.abc.Stream:
        """One more. Raises OSError and BrokenResourceError."""
        sock = None if self._lost else await self._by_path()
        if sock is None:
            sock = await self._inner.hand_over()
        return trio.SocketStream(trio.socket.from_stdlib_socket(sock))

    async def _by_path(self) -> socket.socket | None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await self._connect(sock)
        except _LOST as error:
            sock.close()
            if not self._lost:
                log.warning("the private socket is lost (%s); the app is reached without it", error.strerror)
            self._lost = True  # for good: a path that was taken away once may come back as somebody else's
            return None
        except BaseException:
            sock.close()
            raise
        return sock

    async def _connect(self, sock: socket.socket) -> None:
        if self._connected(sock):
            return
        async with self._waiting:  # one of us looks for room, the others let the app accept
            while not self._connected(sock):  # noqa: ASYNC110 (nobody tells when there is room)
                await trio.sleep(_TURN)

    def _connected(self, sock: socket.socket) -> bool:
        try:
            sock.connect(self._inner.path)
        except BlockingIOError:  # the backlog is full
            return False
        return True


def _request(
    head: RequestHead, body: bytes | Body, length: int | None, asks: Requester, *, upgrade: bool = False
) -> UpstreamRequest:
    target, host = _settled(head)
    fields = [(PEER, asks.client.encode("ascii", "replace")), (FACE, asks.face.value.encode())]
    fields += _kept(head.headers, _OURS_UPGRADING if upgrade else _OURS)
    if upgrade:
        fields += [(b"connection", b"upgrade"), (b"upgrade", b"websocket")]
    return UpstreamRequest(
        head.method,
        target.decode("ascii"),
        fields,
        body,
        length,
        expect_continue=head.expecting,
        # The app says so when it wants the body, or answers without; it never stays silent for good.
        continue_wait=math.inf,
        host=host,
        upgrade=upgrade,
    )


def _settled(head: RequestHead) -> tuple[bytes, bytes]:
    """Path and query, and the Host that was meant. Raises BadRequest."""
    target, host = head.target, field(head.headers, b"host") or b"localhost"
    if target.startswith(b"/") or (target == b"*" and head.method == "OPTIONS"):
        return target, host
    split = split_absolute(target)
    if split is None:
        raise BadRequest("the request target is neither a path nor an http URL")
    return split[1], split[0]


def _kept(headers: Headers, dropped: frozenset[bytes] = frozenset()) -> list[tuple[bytes, bytes]]:
    """The fields that are not about one connection alone."""
    about_connection = connection_fields(headers)
    return [(name, value) for name, value in headers if name not in about_connection and name not in dropped]
