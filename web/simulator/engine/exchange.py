"""One request and the answer to it, over h11, with the faults that strike while answering."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

import h11
import trio

from web.simulator.engine.errors import error_answer
from web.simulator.engine.faults import Plan
from web.simulator.engine.host import SeenRequest, SimHost
from web.simulator.engine.streams import reset

_READ: Final = 65536
_LIE: Final = 10_000_000
"""How much longer than the body `wrong-length` claims to be."""
Headers = Iterable[tuple[str, str]]


class ConnectionOver(Exception):
    """The connection is of no more use: reset by a fault, or left by the client."""


class SimulatedExchange:
    """The server's half of one request. `body` is complete unless the route reads it itself (`read_some`)."""

    def __init__(
        self,
        host: SimHost,
        conn: h11.Connection,
        stream: trio.abc.Stream,
        request: h11.Request,
        seen: SeenRequest,
        plan: Plan,
    ) -> None:
        self.host = host
        self.seen = seen
        self.plan = plan
        self.request = request
        self.body = b""
        self.cors: list[tuple[str, str]] = []
        self.drain = False
        """The body was not read: what still comes must be swallowed before closing, or the answer is lost."""
        self.finished = False
        """All of the answer is on its way: from here on the client may leave without having left early."""
        self._conn = conn
        self._stream = stream
        self._head = b""
        self._chunks = 0
        self._lying = False

    @property
    def method(self) -> str:
        return self.seen.method

    @property
    def path(self) -> str:
        return self.seen.path

    @property
    def last_segment(self) -> str:
        """The text behind the last slash, decoded."""
        return unquote(self.seen.target.partition("?")[0].rpartition("/")[2])

    # Reading

    async def read_some(self) -> bytes:
        """The next piece of the body, empty at its end. Raises `ConnectionOver`, `h11.RemoteProtocolError`."""
        while True:
            event = self._conn.next_event()
            if event is h11.NEED_DATA:
                if self._conn.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    await self._stream.send_all(self._conn.send(go_on) or b"")
                self._conn.receive_data(bytes(await self._stream.receive_some(_READ)))
            elif isinstance(event, h11.Data):
                return bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return b""
            else:
                raise ConnectionOver

    async def read_all(self) -> None:
        """The whole body into `body`."""
        parts = []
        while piece := await self.read_some():
            parts.append(piece)
        self.body = b"".join(parts)
        self.seen.body, self.seen.body_size = self.body[: self.host.BODY_KEPT], len(self.body)

    # Answering in one piece

    async def reply(self, status: int, body: bytes = b"", content_type: str = "", headers: Headers = ()) -> None:
        """A whole answer with its length."""
        extra = [("Content-Type", content_type)] if content_type else []
        bare = status in (204, 304)
        self._begin(status, [*extra, *([] if bare else [("Content-Length", str(len(body)))]), *headers])
        if body and self.method != "HEAD":
            cut = {"reset-mid-stream", "stall-mid-stream"} & self.plan.keys()
            await self._send(body[: len(body) // 2] if cut else body)
            if cut:
                await self._strike(whole=True)
        await self.end()

    async def fail(self, status: int, text: str) -> None:
        """An error in the dialect of the path."""
        body, content_type = error_answer(self.path, status, text)
        await self.reply(status, body, content_type)

    # Answering in chunks

    async def open(self, status: int, content_type: str, headers: Headers = ()) -> None:
        """Status and headers of a stream; they leave together with the first chunk."""
        self._begin(status, [("Content-Type", content_type), *headers])
        if "reset-after-headers" in self.plan:
            await self._flush()
            self.break_off()

    async def write(self, data: bytes) -> None:
        """One chunk, flushed. Raises `ConnectionOver` and Trio's stream errors."""
        await self._strike()
        await self._send(data)
        self._chunks += 1

    async def end(self, tail: bytes = b"") -> None:
        """The last chunk (dropped by `no-done`) and the terminator, in one write: some clients read no further."""
        if tail:
            await self._strike()
        data = b"" if "no-done" in self.plan else tail
        if self._lying:
            self.finished = True
            await self._flush(data)
            raise ConnectionOver
        if data:
            self._head += self._conn.send(h11.Data(data=data)) or b""
        self._head += self._conn.send(h11.EndOfMessage()) or b""
        self.finished = True
        await self._flush()

    def break_off(self) -> None:
        """Reset the connection. Always raises `ConnectionOver`."""
        reset(self._stream)
        raise ConnectionOver

    def _begin(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.seen.status = status
        if "wrong-length" in self.plan and status != 204:
            headers = [(k, v) for k, v in headers if k != "Content-Length"] + [("Content-Length", str(_LIE))]
            self._lying = True
        headers += self.cors
        if self.drain:
            headers.append(("Connection", "close"))
        reason = _REASONS.get(status, "")
        self._head = self._conn.send(h11.Response(status_code=status, headers=headers, reason=reason)) or b""

    async def _send(self, data: bytes) -> None:
        if (drip := self.plan.get("slow-drip")) is not None:
            await trio.sleep(drip.number)
        self._head += self._conn.send(h11.Data(data=data)) or b""
        await self._flush()

    async def _flush(self, more: bytes = b"") -> None:
        data, self._head = self._head + more, b""
        if data:
            await self._stream.send_all(data)

    async def _strike(self, *, whole: bool = False) -> None:
        """A reset or a stall, if one is due after the chunks sent so far."""
        fault = self.plan.get("reset-mid-stream")
        if fault is not None and (whole or self._chunks >= fault.count):
            await self._flush()
            self.break_off()
        fault = self.plan.get("stall-mid-stream")
        if fault is not None and (whole or self._chunks >= fault.count):
            await self._flush()
            await trio.sleep_forever()

    async def hang(self) -> None:
        """Say nothing until the client leaves (which cancels)."""
        await trio.sleep_forever()

    async def garbage(self) -> None:
        """Bytes that are no HTTP. Always raises `ConnectionOver`."""
        await self._stream.send_all(b"\x00\x16simulated garbage, not HTTP\r\n\r\n")
        raise ConnectionOver


_REASONS: Final = {
    200: "OK", 201: "Created", 204: "No Content", 301: "Moved Permanently", 307: "Temporary Redirect",
    400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 429: "Too Many Requests",
    500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable",
}  # fmt: skip
