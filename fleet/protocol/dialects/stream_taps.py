"""What all taps share: cutting an answer into lines with bounded memory, whatever pieces it comes in.

The usual piece is some whole lines without a mark of interest; it costs a few C-level searches and is never stored.
What a tap finds does not depend on how the body was split.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from fleet.protocol.dialects.base import Statistics

KEPT: Final = 60 * 1024
"""Bytes of one line that are held at most."""
TAIL: Final = KEPT // 2
"""Bytes at the end of a longer line that can be relied on: the statistics stand there."""
HEAD: Final = 64
"""Bytes of the beginning of a line that are remembered beside its end; no mark is longer."""

LOOKS: Final = 64
"""Lines that are looked at in one piece; a server that puts a mark on each line would take up our whole time."""
LAST_LOOKS: Final = 8
"""Of such a piece the last so many lines are looked at, too: how the answer ended is said there."""

_NUMBER = re.compile(rb"[ \t]*([0-9]{1,19})(?![0-9.eE])")


class LineTap:
    """Hands whole lines to `line`; subclasses say which marks make a piece worth cutting up at all."""

    marks: ClassVar[tuple[bytes, ...]] = ()

    def __init__(self) -> None:
        self.stats = Statistics()
        self._line = bytearray()
        self._head = b""
        self._marked = False
        self._cut = False

    def feed(self, data: bytes) -> None:
        """Look at the next piece of the body."""
        start, end, looks = 0, data.rfind(b"\n") + 1, LOOKS
        while start < end:
            if not self._line:
                start += self._skip(data[start:end], looks)
            newline = data.find(b"\n", start)
            if newline >= 0:
                self._append(data, start, newline)
                self._finish_line()
                start = newline + 1
                looks -= 1
        self._append(data, start, len(data))

    def _skip(self, lines: bytes, looks: int) -> int:
        """How many bytes of these whole lines are only counted: those without a mark, and those beyond all measure."""
        quiet = self._quiet_until(lines)
        if quiet < len(lines) and looks <= 0:
            last = len(lines)
            for _ in range(LAST_LOOKS):
                last = lines.rfind(b"\n", 0, max(last - 1, 0)) + 1
            quiet = max(quiet, last)
        if quiet:
            self.stats.chunks += self.count(lines if quiet == len(lines) else lines[:quiet])
        return quiet

    def close(self) -> None:
        """The body ended: what is left is a line too."""
        if self._line:
            self._finish_line()

    def _quiet_until(self, lines: bytes) -> int:
        """How far these whole lines need only be counted: up to the first with a mark in it."""
        marks = [at for mark in self.marks if lines.rfind(mark) >= 0 and (at := lines.find(mark)) >= 0]
        return lines.rfind(b"\n", 0, min(marks)) + 1 if marks else len(lines)

    def count(self, lines: bytes) -> int:
        """Records in some whole, quiet lines."""
        raise NotImplementedError

    def line(self, line: bytes, head: bytes, *, marked: bool, complete: bool) -> None:
        """One line without its newline. `head` is its beginning; if not `complete`, `line` is only its end."""
        raise NotImplementedError

    def _has_mark(self, data: bytes | bytearray) -> bool:
        # From behind: three times as fast as `in`, and that is where marks are.
        return any(data.rfind(mark) >= 0 for mark in self.marks)

    def _append(self, data: bytes, start: int, end: int) -> None:
        """Add a part of a line, in steps, so that no more than `KEPT` bytes and one step are ever held."""
        for at in range(start, end, TAIL):
            self._line += data[at : min(end, at + TAIL)]
            if len(self._head) < HEAD and not self._cut:
                self._head = bytes(self._line[:HEAD])
            if len(self._line) > KEPT:
                self._drop_front()

    def _drop_front(self) -> None:
        """Forget the beginning of a long line, but not that a mark was in it."""
        dropped = len(self._line) - TAIL
        self._marked = self._marked or self._has_mark(self._line[: dropped + HEAD])
        del self._line[:dropped]
        self._cut = True

    def _finish_line(self) -> None:
        line, head, cut = bytes(self._line), self._head, self._cut
        marked = self._marked or self._has_mark(line)
        self._line, self._head, self._marked, self._cut = bytearray(), b"", False, False
        self.line(line[-TAIL:] if cut else line, head, marked=marked, complete=not cut)


class DocumentTap(LineTap):
    """Keeps the end of an answer that is one JSON object, however it is laid out."""

    def __init__(self) -> None:
        super().__init__()
        self._single = b""

    def feed(self, data: bytes) -> None:
        """Look at the next piece of the body; nearly always it is the only one."""
        if not self._line and not self._single and len(data) <= TAIL:
            self._single = data
            return
        if self._single:
            single, self._single = self._single, b""
            self._append(single, 0, len(single))
        self._append(data, 0, len(data))

    def close(self) -> None:
        """The body ended."""
        if self._single:
            self.line(self._single, self._single[:HEAD], marked=self._has_mark(self._single), complete=True)
        else:
            super().close()

    def count(self, lines: bytes) -> int:
        """One answer is one record."""
        return 1


class SseTap(LineTap):
    """Server-sent events: `data:` lines are counted; marked ones are handed on with the name of their event."""

    def __init__(self) -> None:
        super().__init__()
        self._event = b""

    def _quiet_until(self, lines: bytes) -> int:
        """Within a marked event, every line counts for something."""
        return 0 if self._event else super()._quiet_until(lines)

    def count(self, lines: bytes) -> int:
        """`data:` lines. Where a dialect ends with `[DONE]` (OpenAI's), that is a mark and not among them."""
        return lines.count(b"\ndata:") + lines.startswith(b"data:")

    def line(self, line: bytes, head: bytes, *, marked: bool, complete: bool) -> None:
        """Follow the framing: `event:` names what the next `data:` is, a blank line ends both."""
        if head.startswith(b"data:"):
            data = line[5:].strip() if complete else line.strip()
            self.stats.chunks += data != b"[DONE]"
            self.data(self._event, data, marked=marked)
        elif head.startswith(b"event:"):
            self._event = line[6:].strip() if marked and complete else b""
        elif not head.strip():
            self._event = b""
        elif marked and head.startswith(b"{"):
            self.data(b"", line, marked=marked)  # plain JSON where events were expected: an error, most likely

    def data(self, event: bytes, data: bytes, *, marked: bool) -> None:
        """One `data:` line. `event` is its event's name if that is a mark, else empty; `data` may have lost its front.

        Must do nothing if there is neither an event nor a mark.
        """
        raise NotImplementedError


def number_after(data: bytes, key: bytes, start: int = 0) -> int | None:
    """The whole number after the last occurrence of `key` (with its colon) beyond `start`; None if there is none."""
    at = data.rfind(key, max(start, 0))
    found = _NUMBER.match(data, at + len(key)) if at >= 0 else None
    return int(found[1]) if found else None


def usage(stats: Statistics, data: bytes) -> None:
    """Take the token counts out of the last `usage` object, in OpenAI's or Anthropic's words."""
    at = data.rfind(b'"usage"')
    if at < 0:
        return
    for key in (b'"prompt_tokens":', b'"input_tokens":'):
        prompt = number_after(data, key, at)
        stats.prompt_tokens = stats.prompt_tokens if prompt is None else prompt
    for key in (b'"completion_tokens":', b'"output_tokens":'):
        output = number_after(data, key, at)
        stats.output_tokens = stats.output_tokens if output is None else output
