"""Anthropic's dialect: `/v1/messages` with named server-sent events."""

from __future__ import annotations

from typing import Final

from fleet.common.errors import FleetError
from fleet.protocol.dialects.base import ErrorBody
from fleet.protocol.dialects.openai import close_document, error_text
from fleet.protocol.dialects.stream_taps import DocumentTap, SseTap, usage
from fleet.protocol.dialects.text import compact, one_line

_JSON: Final = b"application/json"
_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class Anthropic:
    """The Anthropic dialect."""

    name = "anthropic"

    def error(self, error: FleetError, *, structured: bool, request_id: str, timestamp: str) -> ErrorBody:
        """`{"type":"error","error":{"type","message"},"request_id"}`."""
        return ErrorBody(compact(_body(error, request_id)), _JSON)

    def stream_error(self, error: FleetError, *, request_id: str, sse: bool) -> bytes:
        """An `error` event: the SDK raises on nothing else."""
        return b"event: error\ndata: " + compact(_body(error, request_id)) + b"\n\n"

    def tap(self, *, stream: bool) -> AnthropicStream | AnthropicDocument:
        """A watcher for events (`stream`) or for one JSON object."""
        return AnthropicStream() if stream else AnthropicDocument()


def _body(error: FleetError, request_id: str) -> dict[str, object]:
    kind = _TYPES.get(error.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": one_line(error.message)}, "request_id": request_id}


class AnthropicStream(SseTap):
    """Finds `message_stop`, the usage (in `message_start` and `message_delta`, the later one counts) and errors."""

    marks = (
        b"event: message_start",
        b"event: message_delta",
        b"event: message_stop",
        b"event: error",
        b'{"type":"error"',
    )

    def data(self, event: bytes, data: bytes, *, marked: bool) -> None:
        """One event of the frame around the content."""
        if event == b"error" or data.startswith(b'{"type":"error"'):
            self.stats.error = error_text(data)
        elif event == b"message_stop":
            self.stats.finished = True
        elif event:
            usage(self.stats, data)


class AnthropicDocument(DocumentTap):
    """One JSON object with its usage near the end."""

    def line(self, line: bytes, head: bytes, *, marked: bool, complete: bool) -> None:
        """The whole body, or its end."""
        close_document(self.stats, line, head)
