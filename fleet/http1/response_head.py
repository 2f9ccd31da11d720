"""HTTP/1.1 heads: writing a request's, reading a response's. No IO.

Field names and lengths are judged by httptools (llhttp in strict mode): bare line feeds, folded lines, two lengths,
a length beside chunking are errors, not puzzles. Bodies are the business of `fleet.http1.body_framing`.
"""

from __future__ import annotations

import re
from typing import Final

import httptools

from fleet.common.bounded_cache import Recent
from fleet.common.errors import BadRequest
from fleet.http1.body_framing import Chunked, Framing, Length, NoBody, UntilClose, WireError
from fleet.protocol.answer_check import media_of
from fleet.protocol.call import Headers
from fleet.protocol.headers import downstream_headers

HEAD_LIMIT: Final = 65_536
"""Bytes of one response head."""
FIELD_LIMIT: Final = 100
_START: Final = b"HTTP/1."
_BODILESS: Final = frozenset((101, 204, 304))
LENGTH_LINE = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*(?=\r\n)", re.IGNORECASE)
_DATE_LINE = re.compile(rb"\r\ndate:[ -~]{1,64}(?=\r\n)", re.IGNORECASE)
_KEPT_HEADS: Final = 256
_KEPT_BYTES: Final = 2048
_known = Recent[bytes, "ResponseHead"](_KEPT_HEADS)


def request_head(method: str, target: str, host: bytes, headers: Headers, framing: bytes) -> bytes:
    """The head of one request, up to and with the empty line.

    `framing` is any number of complete header lines. Raises `BadRequest` if anything else would break out of its line.
    """
    try:
        first = f"{method} {target} HTTP/1.1\r\nhost: ".encode("ascii")
    except UnicodeEncodeError as error:
        raise BadRequest("The request target has characters outside ASCII.") from error
    own = b"".join([b"%b: %b\r\n" % field for field in headers])
    head = b"%b%b\r\n%b%b\r\n" % (first, host, own, framing)
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


class ResponseHead:
    """Status line and fields of a response, without Content-Length and Date; names in lower case, values trimmed.

    What is left is the same for thousands of answers, so one that is small is read once and shared. Nobody changes it.
    """

    __slots__ = ("coding", "encoded", "fields", "keep_alive", "media", "passing", "status")

    def __init__(self, status: int, http_version: str, seen: _Collector) -> None:
        self.status = status
        self.fields = tuple(seen.fields)
        self.coding = seen.coding
        self.keep_alive = http_version == "1.1" and b"close" not in _tokens(seen.connection)
        """Whether the server promises to read another request from this connection."""
        self.passing = tuple(downstream_headers(self.fields))
        """What of the fields a client gets to see."""
        self.media = media_of(self.fields)
        self.encoded = any(name == b"content-encoding" for name, _ in self.fields)
        """Whether the body is compressed, though nobody asked for that."""

    def framing(self, method: str, length: int | None) -> Framing:
        """How the body that follows is delimited. Raises `WireError` for a transfer coding nobody asked for."""
        if method == "HEAD" or self.status in _BODILESS:
            return NoBody()
        if self.coding:
            if _tokens(self.coding) != [b"chunked"]:
                raise WireError("unknown transfer coding")
            return Chunked()
        return UntilClose() if length is None else Length(length)


Found = tuple[ResponseHead, int | None, bytes]
"""A head, its Content-Length, and what was read behind it."""


def content_length(length: int) -> tuple[bytes, bytes]:
    """The field that says so."""
    return b"content-length", b"%d" % length


def _tokens(value: bytes) -> list[bytes]:
    return [token.strip() for token in value.lower().split(b",")]


class _Collector:
    """What httptools calls while it reads a head."""

    __slots__ = ("coding", "connection", "fields")

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.connection = self.coding = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        name, value = name.lower(), value.rstrip(b" \t")
        self.fields.append((name, value))
        if name == b"content-length":
            raise WireError("more than one Content-Length, or a strange one")
        if name == b"connection":
            self.connection = self.connection + b"," + value if self.connection else value
        elif name == b"transfer-encoding":
            self.coding = self.coding + b"," + value if self.coding else value


def read_head(data: bytes) -> tuple[ResponseHead, int | None]:
    """Read exactly one head, its empty line included, and its Content-Length. Raises `WireError` for anything else."""
    length = None
    if (stated := LENGTH_LINE.search(data)) is not None:
        # What is left must not have another one; the parser of a head without a length finds it.
        length = int(stated[1])
        data = data[: stated.start()] + data[stated.end() :]
    if (date := _DATE_LINE.search(data)) is not None:
        data = data[: date.start()] + data[date.end() :]
    head = _known.get(data)
    if head is None:
        head = parse_head(data)
        if len(data) <= _KEPT_BYTES:
            _known.keep(data, head)
    if length is not None and head.coding:
        raise WireError("both Content-Length and Transfer-Encoding")
    return head, length


def parse_head(data: bytes) -> ResponseHead:
    """Read a head from which the one good Content-Length has been taken out. Raises `WireError`."""
    seen = _Collector()
    parser = httptools.HttpResponseParser(seen)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise WireError("invalid response head") from error
    if len(seen.fields) > FIELD_LIMIT:
        raise WireError("too many header fields")
    return ResponseHead(parser.get_status_code(), parser.get_http_version(), seen)


class HeadReader:
    """Collects reads until a final head is complete, skipping interim ones."""

    __slots__ = ("_data", "_interims", "_looked", "_upgrade", "continued")

    def __init__(self, *, upgrade: bool = False) -> None:
        self._upgrade = upgrade
        self._data = bytearray()
        self._looked = 0
        self._interims = 0
        self.continued = False

    def feed(self, data: bytes) -> Found | None:
        """Take what one read gave; the final head and the bytes behind it once it is there. Raises `WireError`."""
        if self._data:  # an answer in many small pieces: each byte is looked at once
            self._data += data
            if self._data.find(b"\r\n\r\n", self._looked, HEAD_LIMIT) < 0:
                self._wait()
                return None
            data = bytes(self._data)
            self._data = bytearray()
        while (end := data.find(b"\r\n\r\n", 0, HEAD_LIMIT)) >= 0:
            if not data.startswith(_START):
                raise WireError("not HTTP/1")
            head, length = read_head(data[: end + 4])
            data = data[end + 4 :]
            if head.status >= 200 or (head.status == 101 and self._upgrade):
                return head, length, data
            self._skip(head)
        self._data += data
        self._wait()
        return None

    def _wait(self) -> None:
        """There is no whole head yet. Raises `WireError` if it cannot become one."""
        self._looked = max(0, len(self._data) - 3)
        self._check_start()

    def _skip(self, interim: ResponseHead) -> None:
        if interim.status == 101:
            raise WireError("unwanted upgrade")
        self.continued = self.continued or interim.status == 100
        self._interims += 1
        if self._interims > FIELD_LIMIT:
            raise WireError("too many interim responses")

    def _check_start(self) -> None:
        # Something that speaks another protocol shows at once, not when the timeout strikes.
        if not self._data.startswith(_START[: len(self._data)]):
            raise WireError("not HTTP/1")
        if len(self._data) >= HEAD_LIMIT:
            raise WireError("response head too long")
