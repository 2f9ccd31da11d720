"""Turns Ollama's NDJSON into server-sent events, for clients that ask for them."""

from __future__ import annotations

from typing import Final

LONGEST: Final = 8 * 1024 * 1024
"""Bytes of an unfinished line that are held back; Ollama's own client takes no longer line either."""


class NdjsonToSse:
    """Makes `data: {...}` and a blank line of each line, whatever pieces the lines come in.

    Whole lines are written whole (some clients parse each piece by itself). Only a line over `LONGEST` is let
    through as it comes, still as one event. Empty lines are dropped.
    """

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._parts: list[bytes] = []
        self._held = 0
        self._open = False

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; give back what can be sent now."""
        if not data:
            return b""
        first, *lines = data.split(b"\n")
        if not lines:
            return self._hold(first)
        begun, rest = self._line(first), lines.pop()
        if len(data) <= self._longest:  # a read may hold a line per byte
            whole = [b"data: %b\n\n" % line for each in lines if (line := each.strip())]
        else:
            whole = [self._line(line) for line in lines]
        return b"".join([begun, *whole, self._hold(rest)])

    def finish(self) -> bytes:
        """The body ended: a last line without a newline is a line too."""
        return self._line(b"")

    def _line(self, end: bytes) -> bytes:
        """The line that ends with this piece, as one event."""
        if self._open:
            self._open = False
            return end + b"\n\n"
        line = b"".join([*self._parts, end])
        self._parts, self._held = [], 0
        if len(line) <= self._longest:
            line = line.strip()
        return b"data: " + line + b"\n\n" if line else b""

    def _hold(self, rest: bytes) -> bytes:
        """Keep the beginning of a line, unless it grows too long."""
        if self._open or not rest:
            return rest
        self._parts.append(rest)
        self._held += len(rest)
        if self._held <= self._longest:
            return b""
        begun = b"data: " + b"".join(self._parts)
        self._parts, self._held, self._open = [], 0, True
        return begun
