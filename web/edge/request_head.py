"""Request heads, read strictly. No IO.

Whatever two parsers might read in two ways is refused: that is how requests are smuggled past a proxy. httptools
(llhttp in strict mode) judges the fields; the request line, lengths, codings and Host are looked at here.
"""

from __future__ import annotations

import re
from typing import Final

import httptools

from fleet.common.bounded_cache import Recent
from fleet.http1.response_head import LENGTH_LINE
from fleet.protocol.call import Headers

_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])\r\n")
_OTHER_VERSION = re.compile(rb"[^\r\n]* HTTP/(?!1\.[01]\r)[0-9](\.[0-9]+)?\r\n")
_KEPT_HEADS: Final = 512
_KEPT_BYTES: Final = 4096


class BadHead(Exception):
    """A request that cannot be taken. `status` is for the client, and so is the text: it never quotes what came."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


NOT_HTTP: Final = "the request is not valid HTTP/1.1"
_TOO_MANY: Final = "the request has more header fields than limits.headers allows"


class RequestHead:
    """Request line and fields of one request. Names are in lower case, values trimmed; nobody changes it.

    Heads that come again and again (a client differs in Content-Length alone) are read once and shared; `memo` is
    where a lane keeps what it has worked out from one.
    """

    __slots__ = ("chunked", "expecting", "headers", "keep_alive", "memo", "method", "old", "target", "upgrade")

    def __init__(self, method: str, target: bytes, headers: Headers, *, old: bool) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.old = old
        """HTTP/1.0."""
        self.keep_alive = not old
        self.chunked = False
        self.expecting = False
        self.upgrade = False
        self.memo: object = None


class Heads:
    """Reads heads, and remembers small ones. `most_fields` bounds one request's fields."""

    def __init__(self, most_fields: int) -> None:
        self._most_fields = most_fields
        self._known = Recent[bytes, RequestHead](_KEPT_HEADS)

    def allow(self, most_fields: int) -> None:
        """Another bound, also for heads that were read before."""
        if most_fields != self._most_fields:
            self._most_fields = most_fields
            self._known.clear()

    def read(self, data: bytes) -> tuple[RequestHead, int | None]:
        """One head, its empty line included, and the Content-Length. Raises `BadHead`."""
        # First, because reading a million fields would keep everybody waiting. The lines that are no field: the first,
        # the empty one, and perhaps the length. (The fields of a small head are counted when they have been read.)
        if len(data) > _KEPT_BYTES and data.count(b"\r\n") > self._most_fields + 3:
            raise BadHead(431, _TOO_MANY)
        stated = LENGTH_LINE.search(data)
        # What is left must not have another one; the parser of a head without a length finds it.
        rest = data if stated is None else data[: stated.start()] + data[stated.end() :]
        head = self._known.get(rest)
        if head is None:
            head = parse(rest, self._most_fields)
            if len(rest) <= _KEPT_BYTES:
                self._known.keep(rest, head)
        if stated is None:
            return head, None
        if head.chunked:
            raise BadHead(400, "a request cannot have both Content-Length and Transfer-Encoding")
        return head, int(stated[1])


def parse(data: bytes, most_fields: int = 100) -> RequestHead:
    """Read a head from which the one good Content-Length has been taken out. Raises `BadHead`."""
    line = _LINE.match(data)
    if line is None or line[3] != b"1" or line[4] not in b"01":
        other = line is not None or _OTHER_VERSION.match(data)
        raise BadHead(505, "only HTTP/1.1 is spoken here") if other else BadHead(400, NOT_HTTP)
    head = RequestHead(line[1].decode("ascii"), line[2], _fields(data, most_fields), old=line[4] == b"0")
    _understand(head)
    return head


def _fields(data: bytes, most: int) -> Headers:
    found: list[tuple[bytes, bytes]] = []
    seen = _Seen(found)
    parser = httptools.HttpRequestParser(seen)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # the fields have been read; whether to upgrade is ours to say
    except httptools.HttpParserInvalidMethodError as error:
        raise BadHead(501, "no such method is known here") from error
    except httptools.HttpParserError as error:
        raise BadHead(400, NOT_HTTP) from error
    if not seen.complete:
        raise BadHead(400, NOT_HTTP)
    if len(found) > most:
        raise BadHead(431, _TOO_MANY)
    return tuple(found)


class _Seen:
    """What httptools calls."""

    __slots__ = ("_add", "complete")

    def __init__(self, found: list[tuple[bytes, bytes]]) -> None:
        self._add = found.append
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._add((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def _understand(head: RequestHead) -> None:
    """Fill in what the fields say about the message and its connection."""
    hosts = 0
    said: list[bytes] = []
    for name, value in head.headers:
        if name == b"host":
            hosts += 1
        elif name == b"connection":
            said += [token.strip() for token in value.lower().split(b",")]
        elif name == b"transfer-encoding":
            _read_coding(head, value)
        elif name == b"content-length":
            raise BadHead(400, "a request must have one Content-Length, a whole number, and no Transfer-Encoding")
        elif name == b"expect":
            if value.lower() != b"100-continue":
                raise BadHead(417, "nothing but 100-continue can be expected here")
            head.expecting = not head.old
    if hosts > 1 or not (hosts or head.old):
        raise BadHead(400, "a request must have one Host field")
    if head.method == "CONNECT":
        raise BadHead(405, "this is not a forward proxy")
    # in any order, in one field or several, "close" is the last word
    head.keep_alive = b"close" not in said and (not head.old or b"keep-alive" in said)
    if b"upgrade" in said and head.method == "GET" and not head.old:
        head.upgrade = any(name == b"upgrade" and value.lower() == b"websocket" for name, value in head.headers)


def _read_coding(head: RequestHead, value: bytes) -> None:
    if head.old:
        raise BadHead(400, "HTTP/1.0 has no Transfer-Encoding")
    if value.lower() != b"chunked" or head.chunked:
        raise BadHead(501, "chunked is the only transfer coding that is understood here")
    head.chunked = True
