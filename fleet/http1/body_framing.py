"""Where a response body ends, and what is in it. No IO.

Written by hand, not with httptools, for one reason: the relay must know to the byte where a message ends, and llhttp's
Python face does not say. Both directions use it: answers of backends, and uploads of clients.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final, Literal, Protocol

from fleet.common.bounded_cache import Recent

Kind = Literal["chunked", "length", "close", "none"]

_SIZES_KEPT: Final = 4096
_LINE_LIMIT: Final = 16_384
_TRAILER_LIMIT: Final = 65_536
# Strict digits: int(x, 16) alone would take "+5", "0x5", "1_0" and spaces, and two parsers that disagree are a hole.
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\r\n\x00]*)?\r\n")

_sizes = Recent[bytes, int](_SIZES_KEPT)
"""Chunk sizes as they were written lately (plain strict digits), so that reading one again is a look into a table."""


class WireError(Exception):
    """What the other side sent is not HTTP/1.1. The text is ours: it never quotes what came."""


class Framing(Protocol):
    """The end of one message. `complete`: it has come; `extra`: so many bytes came behind it in the same read.

    `raw`: the last read as it came, if it was plain whole chunks from end to end (the last one included, if it was
    there); empty in any other case, so that no extension and no trailer is ever passed on.
    """

    kind: ClassVar[Kind]
    complete: bool
    extra: int
    raw: bytes

    def decode(self, data: bytes) -> bytes:
        """The body bytes in what one read gave. Raises `WireError`."""

    def end_of_stream(self) -> None:
        """The server closed. Raises `WireError` if the message needed more."""


class Length:
    """Content-Length: so many bytes and no more."""

    kind: ClassVar[Kind] = "length"
    raw = b""
    __slots__ = ("_left", "complete", "extra")

    def __init__(self, length: int) -> None:
        self._left = length
        self.complete = not length
        self.extra = 0

    def decode(self, data: bytes) -> bytes:
        left = self._left - len(data)
        if left > 0:
            self._left = left
            return data
        self.complete = True
        if left < 0:
            self.extra = -left
            data = data[: self._left]
        self._left = 0
        return data

    def end_of_stream(self) -> None:
        if not self.complete:
            raise WireError(f"closed {self._left} bytes early")


class NoBody(Length):
    """HEAD, 204, 304: whatever the fields say, nothing follows."""

    kind: ClassVar[Kind] = "none"
    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(0)


class UntilClose:
    """HTTP/1.0 style: the body ends when the server closes."""

    kind: ClassVar[Kind] = "close"
    raw = b""
    __slots__ = ("complete", "extra")

    def __init__(self) -> None:
        self.complete = False
        self.extra = 0

    def decode(self, data: bytes) -> bytes:
        return data

    def end_of_stream(self) -> None:
        self.complete = True


class Chunked:
    """Chunks, extensions and trailers tolerated and dropped by `decode`."""

    kind: ClassVar[Kind] = "chunked"
    __slots__ = ("_left", "_line", "_trailer", "complete", "extra", "raw")

    def __init__(self) -> None:
        self.complete = False
        self.extra = 0
        self.raw = b""
        self._left = 0  # of the chunk under way, its line end included
        self._line = bytearray()  # the part of a line that has come
        self._trailer = -1  # bytes of trailer so far; negative: no last chunk yet

    def decode(self, data: bytes) -> bytes:
        between_chunks = not self._left and not self._line and self._trailer < 0
        if between_chunks and (contents := _split(data)) is not None:
            self.raw = data
            self.complete = not contents[-1]
            return contents[0] if len(contents) == 1 else b"".join(contents)
        pieces: list[bytes] = []
        end = self._scan(data, pieces)
        self.extra = len(data) - end
        self.raw = b""
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def end_of_stream(self) -> None:
        if not self.complete:
            raise WireError("closed before the last chunk")

    def _scan(self, data: bytes, pieces: list[bytes]) -> int:
        """Walk over `data`, collecting the chunks' contents; how far the message reaches into it."""
        at, size = 0, len(data)
        while at < size and not self.complete:
            if self._left:
                at = self._inside(data, at, pieces)
            elif self._line or self._trailer >= 0:
                at = self._slow_line(data, at)
            elif (match := _SIZE_LINE.match(data, at)) is not None:
                at = match.end()
                self._begin(match[1])
            else:
                at = self._slow_line(data, at)
        return at

    def _inside(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Content first, then its line end; either may be cut anywhere."""
        content = min(self._left - 2, len(data) - at)
        if content > 0:
            pieces.append(data[at : at + content])
            self._left -= content
            at += content
        if self._left <= 2:
            due = b"\r\n"[-self._left :][: len(data) - at]
            if not data.startswith(due, at):
                raise WireError("chunk without its line end")
            self._left -= len(due)
            at += len(due)
        return at

    def _begin(self, digits: bytes) -> None:
        size = int(digits, 16)
        _sizes.keep(digits, size)
        if size:
            self._left = size + 2
        else:
            self._trailer = 0

    def _slow_line(self, data: bytes, at: int) -> int:
        """A line in the trailer, or one that a read has cut."""
        end = data.find(b"\n", at) + 1
        self._line += data[at : end or len(data)]
        if len(self._line) > _LINE_LIMIT:
            raise WireError("chunk line too long")
        if not end:
            return len(data)
        line, self._line = bytes(self._line), bytearray()
        if self._trailer >= 0:
            self._trailer += len(line)
            if not line.endswith(b"\r\n") or self._trailer > _TRAILER_LIMIT:
                raise WireError("invalid trailer")
            self.complete = line == b"\r\n"
        elif (match := _SIZE_LINE.fullmatch(line)) is not None:
            self._begin(match[1])
        else:
            raise WireError("invalid chunk size")
        return end


def _split(data: bytes) -> list[bytes] | None:
    """The short cut: the contents, if `data` is nothing but whole chunks without line ends in them; else None.

    An empty content can only be the last: that of the last chunk. Sizes not in the table take the long way once.
    """
    parts = data.split(b"\r\n")
    contents = parts[1::2]
    try:
        sizes = list(map(_sizes.__getitem__, parts[:-1:2]))
    except KeyError:
        return None
    if parts[-1] or not (len(parts) & 1 and contents) or sizes != list(map(len, contents)):
        return None
    if sizes.count(0) > (not sizes[-1]):
        return None
    return contents
