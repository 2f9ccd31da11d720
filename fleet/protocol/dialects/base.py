"""What a dialect must know: how to show an error, before and inside a stream, and how to watch an answer go by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fleet.common.errors import FleetError


@dataclass(slots=True)
class Statistics:
    """What a tap learnt of one answer. Durations in seconds; None where the dialect does not say.

    `finished` is True once the dialect's own end mark went by (`done:true`, `[DONE]`, `message_stop`).
    `error` is the text of an error inside the stream.
    """

    chunks: int = 0
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    load_seconds: float | None = None
    prompt_seconds: float | None = None
    output_seconds: float | None = None
    total_seconds: float | None = None
    finished: bool = False
    error: str | None = None


class Tap(Protocol):
    """Watches response bytes with bounded memory (at most 64 KiB kept); never changes or delays them, never raises."""

    stats: Statistics

    def feed(self, data: bytes) -> None: ...

    def close(self) -> None:
        """The body ended; parse what is left."""


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """A rendered error: body and content type."""

    body: bytes
    content_type: bytes


class Dialect(Protocol):
    """One family of clients."""

    name: str

    def error(self, error: FleetError, *, structured: bool, request_id: str, timestamp: str) -> ErrorBody:
        """The body of an error response. `structured`: the seed's object on native routes instead of a string."""

    def stream_error(self, error: FleetError, *, request_id: str, sse: bool) -> bytes:
        """The record that ends a broken stream, framing of the dialect included."""

    def tap(self, *, stream: bool) -> Tap:
        """A fresh watcher for one response body."""
