"""Where a response body ends, and what is in it. No IO.

Written by hand, not with httptools, for one reason: the relay must know to the byte where a message ends, and llhttp's
Python face does not say. Two views of the same stream: `decode` gives the body, `watch` gives the bytes as they came
(chunk framing included) and never one that lies behind the message. They may be mixed: the position is shared.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final, Literal, Protocol

Kind = Literal["chunked", "length", "close", "none"]

_LINE_LIMIT: Final = 16_384
_TRAILER_LIMIT: Final = 65_536
# Strict digits: int(x, 16) alone would take "+5", "0x5", "1_0" and spaces, and two parsers that disagree are a hole.
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\r\n\x00]*)?\r\n")


class WireError(Exception):
    """What the server sent is not HTTP/1.1. The text is ours: it never quotes what came."""


class Framing(Protocol):
    """The end of one message. `complete`: it has come; `extra`: bytes came behind it."""

    kind: ClassVar[Kind]
    complete: bool
    extra: bool

    def decode(self, data: bytes) -> bytes:
        """The body bytes in what one read gave. Raises `WireError`."""

    def watch(self, data: bytes) -> bytes:
        """What one read gave, cut at the end of the message. Raises `WireError`."""

    def end_of_stream(self) -> None:
        """The server closed. Raises `WireError` if the message needed more."""


class Length:
    """Content-Length: so many bytes and no more."""

    kind: ClassVar[Kind] = "length"
    __slots__ = ("_left", "complete", "extra")

    def __init__(self, length: int) -> None:
        self._left = length
        self.complete = not length
        self.extra = False

    def decode(self, data: bytes) -> bytes:
        left = self._left - len(data)
        if left > 0:
            self._left = left
            return data
        self.complete = True
        if left < 0:
            self.extra = True
            data = data[: self._left]
        self._left = 0
        return data

    watch = decode

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
    __slots__ = ("complete", "extra")

    def __init__(self) -> None:
        self.complete = False
        self.extra = False

    def decode(self, data: bytes) -> bytes:
        return data

    watch = decode

    def end_of_stream(self) -> None:
        self.complete = True


class Chunked:
    """Chunks, extensions and trailers tolerated and dropped by `decode`."""

    kind: ClassVar[Kind] = "chunked"
    __slots__ = ("_left", "_line", "_trailer", "complete", "extra")

    def __init__(self) -> None:
        self.complete = False
        self.extra = False
        self._left = 0  # of the chunk under way, its line end included
        self._line = b""  # the part of a line that has come
        self._trailer = -1  # bytes of trailer so far; negative: no last chunk yet

    def decode(self, data: bytes) -> bytes:
        pieces: list[bytes] = []
        self._scan(data, pieces)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def watch(self, data: bytes) -> bytes:
        end = self._scan(data, None)
        return data[:end] if self.extra else data

    def end_of_stream(self) -> None:
        if not self.complete:
            raise WireError("closed before the last chunk")

    def _scan(self, data: bytes, pieces: list[bytes] | None) -> int:
        """Walk over `data`, collecting the chunks' contents; how far the message reaches into it."""
        at, size = 0, len(data)
        while at < size and not self.complete:
            if self._left:
                at = self._inside(data, at, pieces)
            elif self._line or self._trailer >= 0:
                at = self._slow_line(data, at)
            elif (whole := _whole_chunks(data, at, pieces)) > at:
                at = whole
            elif (match := _SIZE_LINE.match(data, at)) is not None:
                at = match.end()
                self._begin(match[1])
            else:
                at = self._slow_line(data, at)
        self.extra = at < size
        return at

    def _inside(self, data: bytes, at: int, pieces: list[bytes] | None) -> int:
        """Content first, then its line end; either may be cut anywhere."""
        content = min(self._left - 2, len(data) - at)
        if content > 0:
            if pieces is not None:
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
        line, self._line = self._line, b""
        if self._trailer >= 0:
            self._trailer_line(line)
        elif (match := _SIZE_LINE.fullmatch(line)) is not None:
            self._begin(match[1])
        else:
            raise WireError("invalid chunk size")
        return end

    def _trailer_line(self, line: bytes) -> None:
        self._trailer += len(line)
        if not line.endswith(b"\r\n") or self._trailer > _TRAILER_LIMIT:
            raise WireError("invalid trailer")
        self.complete = line == b"\r\n"


def _whole_chunks(data: bytes, at: int, pieces: list[bytes] | None) -> int:
    """The short cut: pass over the chunks that lie in `data` from head to tail; where the last of them ends."""
    while (match := _SIZE_LINE.match(data, at)) is not None and (size := int(match[1], 16)):
        begin = match.end()
        end = begin + size
        if data[end : end + 2] != b"\r\n":  # cut, or wrong: the long way tells
            break
        if pieces is not None:
            pieces.append(data[begin:end])
        at = end + 2
    return at
