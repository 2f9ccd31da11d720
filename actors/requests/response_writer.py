"""One answer on its way to one client: started once, ended once, cleanly or visibly broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.common.errors import FleetError
from fleet.common.ids import ServerId
from fleet.protocol.call import Call, ClientGone, Downstream, Headers
from fleet.protocol.ndjson_to_sse import NdjsonToSse

if TYPE_CHECKING:
    from actors.upstream.pool import UpstreamResponse

_SSE = (b"content-type", b"text/event-stream")


class ResponseWriter:
    """Wraps a Downstream: adds our headers, re-frames if asked, knows how to break off in the client's dialect.

    Last words (`end_with`, `send_whole`, `break_off`) are written while no lease is open and nobody watches, so they
    have `patience` seconds; a client that does not take them by then is cut off. After the end, nothing is written.
    `raw`: see `Downstream`.
    """

    def __init__(self, call: Call, down: Downstream, patience: float) -> None:
        self.call = call
        self.started = False
        self.status = 0
        self._patience = patience
        self._down = down
        self._reframe: NdjsonToSse | None = None
        self._last = b"\n\n"
        self._ended = False

    async def start(self, response: UpstreamResponse, extra: Headers) -> None:
        """Send the head: the backend's status and fields, plus ours. Failover is over from here on."""
        headers = response.passing
        own = [(b"x-request-id", self.call.request_id.encode()), *extra]
        ndjson = self.call.sse and any(name == b"content-type" and b"ndjson" in value for name, value in headers)
        if ndjson and response.status == 200:
            self._reframe = NdjsonToSse()
            headers = tuple(field for field in headers if field[0] != b"content-type")
            own.append(_SSE)
        elif response.length is not None:
            own.append((b"content-length", b"%d" % response.length))
        self.started = True
        self.status = response.status
        await self._down.start(response.status, [*headers, *own])

    async def write(self, data: bytes, raw: bytes = b"") -> None:
        """Pass on a piece of the body, as it came unless it is re-framed."""
        if self._reframe is not None:
            data, raw = self._reframe.feed(data), b""
        if data:
            self._last = data
            await self._down.write(data, raw)

    async def end_with(self, data: bytes, raw: bytes = b"") -> None:
        """The last piece (or nothing), and the end."""
        if self._reframe is not None:
            data, raw = self._reframe.feed(data) + self._reframe.finish(), b""
        await self._last_words(data, raw)

    async def send_whole(self, response: UpstreamResponse, body: bytes, extra: Headers) -> None:
        """A complete answer that was held back."""
        await self.start(response, extra)
        await self.end_with(body)

    async def break_off(self, error: FleetError) -> None:
        """End a broken answer: a stream gets its dialect's error record, anything else is cut off."""
        if not self.started:
            return
        if not self.call.stream:
            self.cut()
            return
        sse = self._reframe is not None
        record = self.call.dialect.stream_error(error, request_id=self.call.request_id, sse=sse)
        await self._last_words(self._separator(sse) + record)

    def cut(self) -> None:
        """End so that the client notices that something is missing; who waits for it to read wakes up."""
        self._ended = True
        self._down.cut()

    async def _last_words(self, data: bytes, raw: bytes = b"") -> None:
        if self._ended:
            return
        self._ended = True
        try:
            await self._down.finish(data, raw, self._patience)
        except ClientGone:
            return

    def _separator(self, sse: bool) -> bytes:
        """Closes a record that was cut in the middle, so that the error does not melt into it."""
        if sse:
            return b""
        end = b"\n" if self.call.dialect.name == "native" else b"\n\n"  # a lone line feed does not end an event
        return b"" if self._last.endswith(end) else end


def whereabouts(server: ServerId, attempts: int = 1, queued: float = 0.0) -> list[tuple[bytes, bytes]]:
    """The fields that say who answered, after how many attempts, and how long (seconds) the request had queued."""
    return [
        (b"x-fleet-server", server.encode()),
        (b"x-fleet-attempts", b"%d" % attempts),
        (b"x-fleet-queue-ms", b"%d" % round(queued * 1000)),
    ]
