"""One connection: requests in, answers out, and an eye on the client while it waits."""

from __future__ import annotations

import contextlib
from typing import Final
from urllib.parse import unquote

import h11
import trio

from web.simulator.engine.exchange import ConnectionOver, SimulatedExchange
from web.simulator.engine.host import SeenRequest, SimHost
from web.simulator.engine.streams import reset
from web.simulator.router import answer, is_inference, reads_body_itself

_HEADERS_LIMIT: Final = 1 << 20
_READ: Final = 65536
_AHEAD: Final = 1 << 20
"""Bytes of pipelined requests read while one is being answered."""
_GONE: Final = (ConnectionOver, trio.BrokenResourceError, trio.ClosedResourceError)


async def serve_connection(host: SimHost, stream: trio.abc.Stream) -> None:
    """Serve one client until it leaves or an answer ends the connection; closes the stream.

    Raises nothing for what clients do wrong. Cancellation closes the stream.
    """
    if host.faults.draw_refusal():
        reset(stream)
        await trio.lowlevel.checkpoint()
        return
    host.open_connections += 1
    host.streams.add(stream)
    try:
        with contextlib.suppress(*_GONE):
            await _Connection(host, stream).run()
    finally:
        host.open_connections -= 1
        host.streams.discard(stream)
        with contextlib.suppress(*_GONE):
            await trio.aclose_forcefully(stream)


class _Connection:
    def __init__(self, host: SimHost, stream: trio.abc.Stream) -> None:
        self._host = host
        self._stream = stream
        self._conn = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEADERS_LIMIT)

    async def run(self) -> None:
        while True:
            try:
                request = await self._next_request()
            except h11.RemoteProtocolError:
                await self._stream.send_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request")
                return
            if request is None or not await self._serve(request):
                return
            self._conn.start_next_cycle()

    async def _next_request(self) -> h11.Request | None:
        while True:
            event = self._conn.next_event()
            if event is h11.NEED_DATA:
                self._conn.receive_data(bytes(await self._stream.receive_some(_READ)))
            else:
                return event if isinstance(event, h11.Request) else None

    async def _serve(self, request: h11.Request) -> bool:
        """Answer one request; True if the connection may be used again."""
        exchange = self._exchange(request)
        if self._host.faults.refusing:
            exchange.break_off()
        counted = is_inference(exchange.path)
        if counted:
            self._host.began()
        try:
            await self._answer(exchange)
        finally:
            if counted:
                self._host.ended()
            exchange.seen.ended_at = self._host.now()
        if self._conn.our_state is h11.DONE and self._conn.their_state is h11.DONE:
            return True
        await self._part(exchange)
        return False

    def _exchange(self, request: h11.Request) -> SimulatedExchange:
        target = request.target.decode("latin-1")
        path = unquote(target.partition("?")[0])
        headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in request.headers]
        seen = SeenRequest(request.method.decode("latin-1"), target, path, headers, self._host.now())
        self._host.requests.append(seen)
        self._host.requests_seen += 1
        plan = self._host.faults.draw(path, inference=is_inference(path))
        return SimulatedExchange(self._host, self._conn, self._stream, request, seen, plan)

    async def _answer(self, exchange: SimulatedExchange) -> None:
        try:
            if reads_body_itself(exchange.method, exchange.path):
                await answer(exchange)
                return
            await exchange.read_all()
        except (*_GONE, h11.RemoteProtocolError):
            exchange.seen.client_left = True
            raise ConnectionOver from None
        await self._answer_watched(exchange)

    async def _answer_watched(self, exchange: SimulatedExchange) -> None:
        over = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, exchange, nursery.cancel_scope)
            try:
                await answer(exchange)
            except ConnectionOver:
                over = True
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                over = exchange.seen.client_left = True
            nursery.cancel_scope.cancel()
        if over or exchange.seen.client_left:
            raise ConnectionOver

    async def _watch(self, exchange: SimulatedExchange, scope: trio.CancelScope) -> None:
        """Cancel the answer when the client leaves; even its closing one direction counts."""
        ahead = 0
        while ahead < _AHEAD:
            try:
                data = await self._stream.receive_some(_READ)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                if not exchange.finished:
                    exchange.seen.client_left = True
                    scope.cancel()
                return
            ahead += len(data)
            self._conn.receive_data(bytes(data))

    async def _part(self, exchange: SimulatedExchange) -> None:
        """Close without losing the answer: a socket closed over unread data would reset it away."""
        if not exchange.drain:
            return
        with trio.move_on_after(0.5), contextlib.suppress(trio.BrokenResourceError):
            if isinstance(self._stream, trio.abc.HalfCloseableStream):
                await self._stream.send_eof()
            while await self._stream.receive_some(_READ):
                pass
