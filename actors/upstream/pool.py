"""The data plane's HTTP/1.1 client: one `Pool` of connections per backend. Nothing else carries inference bytes.

The relay loop costs one readiness wait and one system call per piece: no task, no cancel scope, no queue in between, so
back-pressure is TCP's. Every foreign exception ends here; what leaves is a `BackendError` that names host and port and
never quotes what was sent.

Its neighbours: `send_request` sends a request and awaits the head, `connection` moves the bytes, `transport_errors` has
the words for what goes wrong, `address` reads URLs; the wire format is `fleet.http1`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final, Protocol

import trio

from actors.upstream.address import BackendAddress
from actors.upstream.connection import Dial, Link, adopt, connect
from actors.upstream.send_request import Attempt, UpstreamRequest
from actors.upstream.transport_errors import BROKEN, NO_CONNECTION, broke, unreachable
from fleet.common.errors import BackendBroke, BackendUnreachable, ConnectTimeout, Phase
from fleet.http1.body_framing import Kind, WireError
from fleet.http1.response_head import Found, content_length

__all__ = ["BackendAddress", "Pool", "UpstreamRequest", "UpstreamResponse"]

# A server that closes an idle connection just as we use it does so at once. One that dies later may have started to
# work, and asking again would double the work.
_REDIAL_WITHIN: Final = 0.25


class Abortable(Protocol):
    """Something under way that can be given up, from any task."""

    def abort(self) -> None: ...


class Holder(Protocol):
    """Who may give up a request from another task: by aborting `connection`, which is what stands at the moment."""

    connection: Abortable | None

    @property
    def given_up(self) -> bool: ...


class _Dialling:
    """A connection that does not stand yet."""

    __slots__ = ("_scope",)

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope

    def abort(self) -> None:
        self._scope.cancel()


class Pool:
    """Connections to one backend: most recently used first, at most `max_idle` kept, none older than `idle_seconds`.

    `dial` replaces the way to the backend (a Unix socket, an in-memory stream); it returns a stream ready for HTTP,
    TLS included. `ssl_context` replaces the default verification for https endpoints. There is no limit on
    connections in use: leases are the limit.
    """

    def __init__(
        self,
        endpoint: BackendAddress,
        *,
        dial: Dial | None = None,
        max_idle: int = 64,
        idle_seconds: float = 60.0,
        ssl_context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = trio.current_time,
        on_connect: Callable[[], None] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._on_connect = on_connect
        self._dial_with = dial
        self._max_idle = max_idle
        self._idle_seconds = idle_seconds
        self._ssl_context = ssl_context
        self._clock = clock
        self._idle: list[tuple[Link, float]] = []
        self._open: set[Link] = set()
        self._closed = False

    @property
    def idle(self) -> int:
        """Connections waiting for a request."""
        return len(self._idle)

    @property
    def open_count(self) -> int:
        """Connections in use."""
        return len(self._open)

    # A kept connection may be dead without our knowing: `stale` sees a close that has arrived, not one on its way. So a
    # request that fails on one is sent again, once, and each condition for that is there because of what would happen
    # otherwise. The body must be at hand, whole: a stream cannot be read twice. The server must not have sent a byte:
    # after one, it has taken the request, and is working. It must have failed at once (`_REDIAL_WITHIN`): a server that
    # closes idle connections does that without looking, one that fails later may have died of this very request, and
    # would do the work twice. The holder must want it still: a revoked lease is cut by aborting the connection, which
    # looks like a server that broke, and the slot is somebody else's by now. And it goes out on a fresh connection,
    # never on the next idle one, which is as old and probably as dead; a failure there is the server's.
    #
    # What comes back to be kept must have nothing of its last answer left in it, nor of its last request unsent (see
    # `release`): the next request would get the rest of somebody else's answer for its own.
    async def open(
        self,
        request: UpstreamRequest,
        *,
        connect_timeout: float,
        holder: Holder | None = None,
    ) -> UpstreamResponse:
        """Send `request`, wait for the response's head.

        `connect_timeout` (seconds, may be infinite) covers lookup, TCP and TLS; what comes after is limited by the
        caller. A request whose body can be sent again may use an idle connection, and if that turns out to be dead it
        is sent once more on a fresh one; streamed bodies always get a fresh one.

        Raises `BackendUnreachable`, `ConnectTimeout`, `BackendBroke` (phase SEND or HEADERS), `OutOfDescriptors`,
        `BadRequest` for a request that cannot be written down, and whatever an iterable body raises. Cancelled: the
        connection is closed. `holder` is kept informed of what to `abort` to the same effect; what is raised then is
        one of the above. Nothing is sent for a holder that has given up already.
        """
        opening = request.head(self.endpoint)
        since = self._clock()
        self._check_wanted(holder)
        if request.replayable and (link := self._reuse(since)) is not None:
            attempt = Attempt(link, request, self.endpoint.address)
            if holder is not None:
                holder.connection = link
            try:
                return await self._ask(link, attempt, opening, request.method)
            except BackendBroke:
                if (
                    (holder is not None and holder.given_up)
                    or attempt.answered
                    or self._closed
                    or self._clock() - since > _REDIAL_WITHIN
                ):
                    raise
        link = await self._dial(connect_timeout, holder)
        attempt = Attempt(link, request, self.endpoint.address)
        return await self._ask(link, attempt, opening, request.method)

    def close(self) -> None:
        """Close every connection now, idle or in use; whoever reads from one gets `BackendBroke`. Final, idempotent."""
        self._closed = True
        for link in [*self._open, *(link for link, _ in self._idle)]:
            link.abort()
        self._open.clear()
        self._idle.clear()

    def retire(self) -> None:
        """No new requests are coming: idle connections close now, those in use when their requests end."""
        self._max_idle = 0
        while self._idle:
            self._idle.pop()[0].abort()

    def sweep(self) -> None:
        """Close what has been idle for too long. Happens with every request; a quiet pool may be swept by its owner."""
        self._sweep(self._clock())

    def _sweep(self, now: float) -> None:
        oldest = now - self._idle_seconds
        while self._idle and self._idle[0][1] <= oldest:
            self._idle.pop(0)[0].abort()

    async def _ask(self, link: Link, attempt: Attempt, opening: bytes, method: str) -> UpstreamResponse:
        self._open.add(link)
        try:
            found = await attempt.head(opening)
            return UpstreamResponse(self, link, found, method, reusable=attempt.sent)
        except WireError as error:
            self._drop(link)
            raise broke(self.endpoint.address, Phase.HEADERS, error) from error
        except BaseException:
            self._drop(link)
            raise

    async def _dial(self, connect_timeout: float, holder: Holder | None) -> Link:
        if self._closed:
            raise self._gone()
        try:
            with trio.move_on_after(connect_timeout) as dialling:
                if holder is not None:
                    holder.connection = _Dialling(dialling)
                return self._admit(await self._connect(), holder)
        except NO_CONNECTION as error:
            raise unreachable(self.endpoint.address, error) from error
        raise ConnectTimeout(f"{self.endpoint.address} took no connection in {connect_timeout:g} s.", Phase.CONNECT)

    async def _connect(self) -> Link:
        if self._dial_with is not None:
            return adopt(await self._dial_with())
        if self.endpoint.tls and self._ssl_context is None:
            # Made on first need, kept: reading the system's certificates takes tens of milliseconds.
            self._ssl_context = ssl.create_default_context()
        return await connect(self.endpoint, self._ssl_context if self.endpoint.tls else None)

    def _admit(self, link: Link, holder: Holder | None) -> Link:
        """While we dialled the pool may have been closed, or the holder given up: too late for a scope to tell."""
        try:
            if self._closed:
                raise self._gone()
            self._check_wanted(holder)
        except BackendUnreachable:
            link.abort()
            raise
        if holder is not None:
            holder.connection = link
        if self._on_connect is not None:
            self._on_connect()
        return link

    def _check_wanted(self, holder: Holder | None) -> None:
        if holder is not None and holder.given_up:
            raise BackendUnreachable(f"{self.endpoint.address} is no longer wanted.", Phase.CONNECT)

    def _gone(self) -> BackendUnreachable:
        return BackendUnreachable(f"{self.endpoint.address} is no longer in use.", Phase.CONNECT)

    def _reuse(self, now: float) -> Link | None:
        self._sweep(now)
        while self._idle:
            link, _ = self._idle.pop()
            if not link.stale():
                return link
            link.abort()
        return None

    def _give_back(self, link: Link) -> None:
        if link not in self._open:  # the pool was closed meanwhile
            return
        self._open.discard(link)
        self._idle.append((link, self._clock()))
        if len(self._idle) > self._max_idle:
            self._idle.pop(0)[0].abort()

    def _drop(self, link: Link) -> None:
        self._open.discard(link)
        link.abort()


class UpstreamResponse:
    """A response whose head has come. Ends with `release` or `abort`, always; both are synchronous and idempotent.

    `done`: one of them was called.
    """

    __slots__ = (
        "_framing",
        "_link",
        "_pool",
        "_rest",
        "_reusable",
        "done",
        "head",
        "length",
        "raw",
        "status",
    )

    def __init__(self, pool: Pool, link: Link, found: Found, method: str, *, reusable: bool) -> None:
        head, length, rest = found
        self.status = head.status
        self.head = head
        self._pool = pool
        self._link = link
        self.length = length
        self._framing = head.framing(method, length)
        self._rest = rest
        self._reusable = reusable and head.keep_alive and self._framing.kind != "close"
        self.done = False
        self.raw = b""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The fields, names in lower case, without Date."""
        return [*self.head.fields] if self.length is None else [*self.head.fields, content_length(self.length)]

    @property
    def passing(self) -> tuple[tuple[bytes, bytes], ...]:
        """What of the fields a client gets to see, without Content-Length."""
        return self.head.passing

    @property
    def framing(self) -> Kind:
        """How the server delimits the body."""
        return self._framing.kind

    @property
    def complete(self) -> bool:
        """Whether the whole message has been received and handed out."""
        return self._framing.complete

    async def receive(self) -> bytes:
        """The next body bytes, de-chunked: all that one read (of at most 64 KiB) gave; empty at the end.

        `raw` is then the same piece in whole chunks, as it came, or empty. Raises `BackendBroke` (phase BODY) on a
        reset, an early end, bad framing, or after `abort`. Cancelled: nothing is lost; the caller aborts or goes on.
        """
        framing = self._framing
        reads = 0
        try:
            while not framing.complete:
                data = self._rest or await self._link.receive()
                if not data:
                    framing.end_of_stream()
                    continue
                self._rest = b""
                reads += 1
                piece = framing.decode(data)
                if piece or framing.complete:
                    self.raw = framing.raw if reads == 1 else b""
                    return piece
        except BROKEN as error:
            self.abort()
            raise broke(self._pool.endpoint.address, Phase.BODY, error) from error
        self.raw = b""
        return b""

    def take_over(self) -> tuple[Link, bytes]:
        """After a 101: the connection, the caller's from here on, and what has come on it already."""
        self.done = True
        self._pool._open.discard(self._link)
        return self._link, self._rest

    def abort(self) -> None:
        """Close the connection now, so that the server stops working. From any task."""
        if not self.done:
            self.done = True
            self._pool._drop(self._link)

    def release(self) -> None:
        """Back to the pool if the message is complete and the connection fit for another; else like `abort`."""
        framing = self._framing
        if self.done or not (framing.complete and self._reusable) or framing.extra or self._rest:
            self.abort()
            return
        self.done = True
        self._pool._give_back(self._link)
