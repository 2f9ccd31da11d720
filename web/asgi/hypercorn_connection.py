"""One accepted connection: Hypercorn's HTTP/1.1, with what it lacks to be left alone with the internet.

Differences from `hypercorn.trio.tcp_server`: no exception of one connection reaches another; a send may be cancelled
and has a deadline (the connection is closed then: half a chunk cannot be taken back); only HTTP/1 is spoken.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from socket import AF_UNIX
from typing import Any, Final, cast

import h11
import trio
from hypercorn.config import Config as HyperConfig
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Response
from hypercorn.protocol.h11 import H11Protocol, H11WSConnection
from hypercorn.protocol.ws_stream import FrameTooLargeError, WebsocketBuffer, WSStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr
from wsproto.events import Message

from web.asgi.bad_frames import FrameStream
from web.http.ports import KEY, Face
from web.process import raw_connection
from web.process.private_listener import FACE, PEER
from web.security.request_gate import new_request_id

log = logging.getLogger(__name__)

WRITE_TIMEOUT: Final = 120.0
"""Seconds one write may wait for a client that does not read; the exchange usually gives up long before."""
FRAME_BYTES: Final = 4096
"""Of a websocket that are looked at before others have their turn."""
MESSAGE_BYTES: Final = 2**20
"""The largest message of a websocket that is gathered, where nobody says anything else; views may want less."""
GOODBYE: Final = 1.0
"""Seconds for a client whose message was longer than that to close the connection itself."""

_WORDS: Final = {
    405: "this is not a forward proxy",
    431: "the request head is larger than limits.header_bytes allows",
    505: "only HTTP/1.1 is spoken here",
}


class _NotSpoken(Exception):
    """The client speaks a protocol that we do not; it has been told."""


class Http1Only(H11Protocol):
    """Hypercorn's HTTP/1 state machine without its doors to HTTP/2, and with websockets that wait for their turn.

    An `Upgrade: h2c` is ignored, as the standard allows; a client that starts with HTTP/2 outright gets a 505.
    `expecting`: the client of the running request waits for `100 Continue`, which `invite` says.
    """

    expecting = False

    async def _create_stream(self, request: h11.Request) -> None:
        self.expecting = self.connection.they_are_waiting_for_100_continue
        if isinstance(self.connection, h11.Connection):
            # or Hypercorn would invite the body at once, although the answer may be known without it
            self.connection.client_is_waiting_for_100_continue = False
        await super()._create_stream(request)
        if isinstance(self.stream, WSStream):
            self.stream.__class__ = FrameStream  # Hypercorn has no place to say so; it adds no state
            self.stream.buffer = Gathered(cast(HypercornSettings, self.config).message_bytes())

    async def handle(self, event: Event) -> None:
        """As Hypercorn does; but it would wait for ever for a client that does not answer its close frame."""
        if isinstance(event, RawData) and isinstance(self.stream, WSStream):
            await self._in_pieces(event.data)
        else:
            await super().handle(event)
        if isinstance(self.stream, WSStream) and isinstance(self.stream.buffer, Gathered) and self.stream.buffer.over:
            await self._close_stream()
            self.task_group.spawn(self._part)

    async def _in_pieces(self, data: bytes) -> None:
        """Frames of a websocket; between two pieces the others have their turn.

        One read may bring ten thousand frames that nobody waits for (pongs, empty fragments), a tenth of a second.
        """
        for start in range(0, len(data), FRAME_BYTES):
            await super().handle(RawData(data[start : start + FRAME_BYTES]))
            await trio.lowlevel.checkpoint()

    async def _part(self) -> None:
        """Leave a client the time to read why, and to say goodbye; what it says is thrown away."""
        await trio.sleep(GOODBYE)
        await self.send(Closed())

    async def invite(self) -> None:
        """Say `100 Continue` if it is waited for and not too late."""
        if self.expecting and self.connection.our_state is h11.SEND_RESPONSE:
            self.expecting = False
            # the reader may be cancelled just now, by an answer that came early; a cut send would end the connection
            with trio.CancelScope(shield=True):
                await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))

    async def stream_send(self, event: StreamEvent) -> None:
        """As Hypercorn does, and every answer has a reason phrase (clients print it) and a request id."""
        if not isinstance(event, Response) or event.status_code < 200:
            await super().stream_send(event)
            return
        headers = [*event.headers, *self.config.response_headers("h11")]
        if not any(name == b"x-request-id" for name, _ in headers):
            headers.append(_new_request_id())
        if isinstance(self.connection, H11WSConnection):
            headers.append((b"connection", b"close"))  # a refused handshake is this connection's last request
        status = event.status_code
        await self._send_h11_event(h11.Response(status_code=status, headers=headers, reason=_reason(status)))

    async def _check_protocol(self, event: h11.Request) -> None:
        if not event.http_version.startswith(b"1."):
            await self._refuse(505, "HTTP/2")
        if event.method == b"CONNECT":
            await self._refuse(405, "to a forward proxy")
        upgrades = [value.strip().lower() for name, value in event.headers if name == b"upgrade"]
        if self.connection.trailing_data[0] and b"websocket" in upgrades:
            # frames before our 101 are against the standard, and what Hypercorn makes of them is an exception
            await self._refuse(400, "websocket out of turn")

    async def _send_error_response(self, status_code: int) -> None:
        """Never with an empty body: Ollama's own client would take that for success."""
        words = _WORDS.get(status_code, "the request is not valid HTTP/1.1")
        body = b'{"error":"%s"}' % words.encode()
        headers = [
            (b"content-type", b"application/json; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            _new_request_id(),
            *self.config.response_headers("h11"),
        ]
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers, reason=_reason(status_code)))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())

    async def _refuse(self, status: int, what: str) -> None:
        await self._send_error_response(status)
        await self.send(Closed())
        raise _NotSpoken(what)


class Gathered(WebsocketBuffer):
    """The pieces of one message. Hypercorn would gather on and on after it has told a client that this is too much."""

    over = False
    """Whether it was too much."""

    def extend(self, event: Message[Any]) -> None:
        """One piece more. Raises FrameTooLargeError, from then on always."""
        if self.length + len(event.data) > self.max_length:
            self.value, self.length, self.over = None, self.max_length + 1, True
            raise FrameTooLargeError
        super().extend(event)


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


def _new_request_id() -> tuple[bytes, bytes]:
    return b"x-request-id", new_request_id().encode()


class HypercornConnection(TCPServer):
    """One client connection, from accept to close; to the application it is the `raw_connection.Wire` in the scope."""

    write_timeout = WRITE_TIMEOUT
    _http: Http1Only
    _hung_up = False

    @property
    def expecting(self) -> bool:
        """Whether the running request's client holds its body back until it is invited."""
        return self._http.expecting

    async def invite(self) -> None:
        """Say `100 Continue` if the client waits for it."""
        await self._http.invite()

    def left(self) -> bool:
        """Whether the client has closed or reset the connection; reads nothing."""
        return raw_connection.hung_up(self.stream.socket)

    async def _call(self, scope: Any, receive: Any, send: Any, sync_spawn: Any, call_soon: Any) -> None:
        if self.stream.socket.family == AF_UNIX:
            _believe(scope)
        if scope["type"] == "http":
            scope["extensions"][raw_connection.KEY] = self
        await self.app(scope, receive, send, sync_spawn, call_soon)

    async def run(self) -> None:
        """Serve until either side closes. Raises nothing but Cancelled."""
        try:
            await self._serve()
        except* _NotSpoken as why:
            log.info("refused a client that spoke %s", why.exceptions[0])
        except* Exception as crash:
            log.warning("connection closed after an error in it: %r", crash.exceptions, exc_info=crash)
        finally:
            await trio.aclose_forcefully(self.stream)

    async def _serve(self) -> None:
        socket = self.stream.socket
        try:
            client = parse_socket_addr(socket.family, socket.getpeername())
            server = parse_socket_addr(socket.family, socket.getsockname())
        except OSError:
            return  # gone between accept and now
        async with TaskGroup() as group:
            self._task_group = group
            self.protocol = self._http = Http1Only(  # type: ignore[assignment]
                self._call,
                self.config,
                self.context,
                group,
                ConnectionState(self.state.copy()),
                False,
                client,
                server,
                self.protocol_send,
            )
            await self.protocol.initiate()
            await self.idle_task.restart(group, self._idle_timeout)
            await self._read_data()
            self._hung_up = True
            await self.idle_task.stop()  # else a connection that the client has closed lives on until it times out
        await self._close()

    async def protocol_send(self, event: Event) -> None:
        """Carry out what the protocol wants done; bytes within `write_timeout`, else the connection is closed."""
        if isinstance(event, Updated) and self._hung_up:
            return  # it would wait for the next request of a client that is gone, and for ever
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            if not await self._write(event.data):
                await self.protocol.handle(Closed())

    async def _write(self, data: bytes) -> bool:
        sent = False
        try:
            with trio.move_on_after(self.write_timeout):
                await self.stream.send_all(data)
                sent = True
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            return False  # busy: the reader is about to close, because the client has left
        finally:
            if not sent:
                # Hypercorn shields its sends and so waits for ever for a client that stopped reading
                await trio.aclose_forcefully(self.stream)
        return sent


def _believe(scope: Any) -> None:
    """Only the edge can reach a private socket; it says who asks, and where, in fields that it takes from clients."""
    said = {name: value for name, value in reversed(scope["headers"]) if name in _SAID}
    scope["headers"] = [(name, value) for name, value in scope["headers"] if name not in _SAID]
    scope["client"] = (said[PEER].decode("ascii"), 0) if PEER in said else None
    scope[KEY] = Face.of_setting(said[FACE].decode("ascii")) if FACE in said else Face.PROXY


_SAID: Final = frozenset((PEER, FACE))


Asgi = Callable[..., Awaitable[None]]


class HypercornSettings(HyperConfig):
    """Hypercorn's, and what we ask besides."""

    message_bytes: Callable[[], int] = staticmethod(lambda: MESSAGE_BYTES)


def hyper_config(*, header_bytes: int, idle: float, message_bytes: Callable[[], int]) -> HyperConfig:
    """Hypercorn's settings for a proxy of long answers. Its own read timeout would cut clients that wait quietly."""
    config = HypercornSettings()
    config.message_bytes = message_bytes
    config.h11_max_incomplete_size = max(header_bytes, 16 * 1024)
    config.keep_alive_timeout = idle
    config.keep_alive_max_requests = 2**62
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = log
    config.read_timeout = None
    config.alpn_protocols = ["http/1.1"]
    return config


def wrap(app: Any) -> Any:
    """An ASGI callable in Hypercorn's own calling convention."""

    async def call(scope: Any, receive: Any, send: Any, _spawn: Any = None, _soon: Any = None) -> None:
        await app(scope, receive, send)

    return call
