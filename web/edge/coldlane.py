"""The cold lane: every request that is not a hot one, relayed to the Quart app on its private Unix socket, one by one.

A small reverse proxy made of the same parts as the data plane. Bodies are streamed both ways with back-pressure; what
the app sends in whole chunks goes on as it is. Who asked is said in a field that no client can set.
"""

from __future__ import annotations

import math
import socket
from typing import TYPE_CHECKING, Final

import trio

from actors.transport import Endpoint, Pool, UpstreamRequest, UpstreamResponse
from fleet.errors import BackendError, BadRequest
from fleet.headers import connection_fields, field
from web.edge.tunnel import tunnel
from web.inner import PEER, Inner
from web.target import split_absolute

if TYPE_CHECKING:
    from actors.link import Link
    from fleet.call import Headers
    from web.edge.downstream import EdgeDownstream
    from web.edge.head import RequestHead
    from web.edge.intake import Body, Intake

_OURS: Final = frozenset((b"host", b"content-length", b"expect", PEER))
_CONNECT: Final = 30.0
_TURN: Final = 0.002


class ColdLane:
    """Relays to one app."""

    def __init__(self, inner: Inner) -> None:
        self._pool = Pool(Endpoint.parse("http://fleet.internal"), dial=_Dialling(inner.path), max_idle=32)

    async def serve(self, head: RequestHead, body: Body, down: EdgeDownstream, client: str) -> None:
        """Relay one request and its answer.

        Raises ClientGone, EOFError (the client left within its body), and FleetError before anything was answered.
        """
        request = _request(head, b"" if body.empty else body, body.length, client)
        await self._relay(await self._pool.open(request, connect_timeout=_CONNECT), down)

    async def upgrade(self, head: RequestHead, intake: Intake, link: Link, down: EdgeDownstream, client: str) -> None:
        """Relay a websocket's handshake and, if the app agrees, all that follows, until either side closes.

        What the client sends before it has seen the 101 waits: frames out of turn are what kills servers.
        """
        down.keep_alive = False  # what the client has sent already is frames, not a request
        request = _request(head, b"", None, client, upgrade=True)
        response = await self._pool.open(request, connect_timeout=_CONNECT)
        if response.status != 101:
            await self._relay(response, down)
            return
        inner, begun = response.take_over()
        try:
            await down.switch(response.headers)
            await tunnel(intake, link, inner, begun)
        finally:
            inner.abort()

    async def _relay(self, response: UpstreamResponse, down: EdgeDownstream) -> None:
        try:
            await down.start(response.status, _kept(response.headers))
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
    """Connections to the app.

    By hand, because a Unix socket whose backlog is full refuses instead of waiting, and Trio takes that for success.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._waiting = trio.Lock()

    async def __call__(self) -> trio.abc.Stream:
        """One more. Raises OSError."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            if not self._connected(sock):
                async with self._waiting:  # one of us looks for room, the others let the app accept
                    while not self._connected(sock):  # noqa: ASYNC110 (nobody tells when there is room)
                        await trio.sleep(_TURN)
            return trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        except BaseException:
            sock.close()
            raise

    def _connected(self, sock: socket.socket) -> bool:
        try:
            sock.connect(self._path)
        except (BlockingIOError, ConnectionRefusedError):  # how Linux and the BSDs say that the backlog is full
            return False
        return True


def _request(
    head: RequestHead, body: bytes | Body, length: int | None, client: str, *, upgrade: bool = False
) -> UpstreamRequest:
    target, host = _settled(head)
    fields = [(PEER, client.encode("ascii", "replace")), *_kept(head.headers, _OURS)]
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
