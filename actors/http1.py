"""HTTP/1.1 heads: writing a request's, reading a response's. No IO.

Field names and lengths are judged by httptools (llhttp in strict mode): bare line feeds, folded lines, two lengths,
a length beside chunking are errors, not puzzles. Bodies are the business of `actors.framing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import httptools

from actors.framing import Chunked, Framing, Length, NoBody, UntilClose, WireError
from fleet.call import Headers
from fleet.errors import BadRequest

HEAD_LIMIT: Final = 65_536
"""Bytes of one response head."""
FIELD_LIMIT: Final = 100
_START: Final = b"HTTP/1."


def request_head(method: str, target: str, host: bytes, headers: Headers, framing: bytes) -> bytes:
    """The head of one request, up to and with the empty line.

    `framing` is any number of complete header lines. Raises `BadRequest` if anything else would break out of its line.
    """
    try:
        lines = [f"{method} {target} HTTP/1.1\r\nhost: ".encode("ascii") + host + b"\r\n"]
    except UnicodeEncodeError as error:
        raise BadRequest("The request target has characters outside ASCII.") from error
    lines += [b"%b: %b\r\n" % field for field in headers]
    lines += (framing, b"\r\n")
    head = b"".join(lines)
    # Counting line ends finds every smuggled line for next to nothing.
    expected = len(headers) + 3 + framing.count(b"\n")
    if (
        head.count(b"\n") != expected
        or head.count(b"\r") != expected
        or " " in target
        or not (target == "*" or target.startswith("/"))
    ):
        raise BadRequest("The request head is malformed.")
    return head


@dataclass(slots=True, eq=False)
class ResponseHead:
    """Status line and header fields; names are in lower case, values trimmed. The rest is what some fields say."""

    status: int
    reason: str
    http_version: str
    headers: list[tuple[bytes, bytes]]
    length: int | None = None
    connection: bytes = b""
    coding: bytes = b""

    @property
    def interim(self) -> bool:
        """1xx: another head follows, except after 101."""
        return self.status < 200 and self.status != 101

    @property
    def keep_alive(self) -> bool:
        """Whether the server promises to read another request from this connection."""
        return self.http_version == "1.1" and (not self.connection or b"close" not in _tokens(self.connection))

    def framing(self, method: str) -> Framing:
        """How the body that follows is delimited. Raises `WireError` for a transfer coding nobody asked for."""
        if method == "HEAD" or self.status in (101, 204, 304):
            return NoBody()
        if self.coding:
            if _tokens(self.coding) != [b"chunked"]:
                raise WireError("unknown transfer coding")
            return Chunked()
        return UntilClose() if self.length is None else Length(self.length)


def _tokens(value: bytes) -> list[bytes]:
    return [token.strip() for token in value.lower().split(b",")]


class _Collector:
    """What httptools calls while it reads a head."""

    __slots__ = ("coding", "connection", "fields", "length", "reason")

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.reason = b""
        self.length: int | None = None
        self.connection = self.coding = b""

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        name, value = name.lower(), value.rstrip(b" \t")
        self.fields.append((name, value))
        if name == b"content-length":
            self.length = int(value)  # one number of digits: llhttp has looked
        elif name == b"connection":
            self.connection = self.connection + b"," + value if self.connection else value
        elif name == b"transfer-encoding":
            self.coding = self.coding + b"," + value if self.coding else value


def parse_head(data: bytes, *, upgrade: bool = False) -> ResponseHead:
    """Read exactly one head, its empty line included. Raises `WireError` for anything that is not one.

    `upgrade`: whether a 101 was asked for.
    """
    seen = _Collector()
    parser = httptools.HttpResponseParser(seen)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise WireError("invalid response head") from error
    status = parser.get_status_code()
    if status == 101 and not upgrade:
        raise WireError("unwanted upgrade")
    if len(seen.fields) > FIELD_LIMIT:
        raise WireError("too many header fields")
    reason, version = seen.reason.decode("latin-1"), parser.get_http_version()
    return ResponseHead(status, reason, version, seen.fields, seen.length, seen.connection, seen.coding)


class HeadReader:
    """Collects reads until a final head is complete, skipping interim ones."""

    __slots__ = ("_data", "_interims", "_upgrade", "continued")

    def __init__(self, *, upgrade: bool = False) -> None:
        self._upgrade = upgrade
        self._data = b""
        self._interims = 0
        self.continued = False

    @property
    def started(self) -> bool:
        """Whether the server has said anything at all."""
        return bool(self._data or self._interims)

    def feed(self, data: bytes) -> tuple[ResponseHead, bytes] | None:
        """Take what one read gave; the final head and the bytes behind it once it is there. Raises `WireError`."""
        self._data = self._data + data if self._data else data
        while (end := self._data.find(b"\r\n\r\n", 0, HEAD_LIMIT)) >= 0:
            self._check_start()
            head = parse_head(self._data[: end + 4], upgrade=self._upgrade)
            self._data = self._data[end + 4 :]
            if not head.interim:
                return head, self._data
            self._skip(head)
        self._check_start()
        return None

    def _skip(self, interim: ResponseHead) -> None:
        self.continued = self.continued or interim.status == 100
        self._interims += 1
        if self._interims > FIELD_LIMIT:
            raise WireError("too many interim responses")

    def _check_start(self) -> None:
        # Something that speaks another protocol shows at once, not when the timeout strikes.
        if not self._data.startswith(_START[: len(self._data)]):
            raise WireError("not HTTP/1")
        if len(self._data) >= HEAD_LIMIT and b"\r\n\r\n" not in self._data[:HEAD_LIMIT]:
            raise WireError("response head too long")
