"""OpenAI's dialect: `/v1/...` with server-sent events that end in `[DONE]`, and the Responses API."""

from __future__ import annotations

from typing import Final

import msgspec

from fleet.common.errors import FleetError
from fleet.protocol.dialects.base import ErrorBody, Statistics
from fleet.protocol.dialects.stream_taps import DocumentTap, SseTap, usage
from fleet.protocol.dialects.text import compact, one_line

_JSON: Final = b"application/json"
_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "invalid_request_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_exceeded",
}
# A reason says more than its code unless it only repeats a status.
_NO_CODE: Final = frozenset(("INVALID_REQUEST", "INTERNAL_ERROR"))


class OpenAI:
    """The OpenAI dialect."""

    name = "openai"

    def error(self, error: FleetError, *, structured: bool, request_id: str, timestamp: str) -> ErrorBody:
        """`{"error":{"message","type","param":null,"code"}}`; `code` is the reason in lower case, or null."""
        return ErrorBody(compact(_body(error)), _JSON)

    def stream_error(self, error: FleetError, *, request_id: str, sse: bool) -> bytes:
        """An event that makes the SDKs raise; no `[DONE]` follows."""
        return b"data: " + compact(_body(error)) + b"\n\n"

    def tap(self, *, stream: bool) -> OpenAIStream | OpenAIDocument:
        """A watcher for events (`stream`) or for one JSON object."""
        return OpenAIStream() if stream else OpenAIDocument()


def _body(error: FleetError) -> dict[str, object]:
    code = None if error.reason in _NO_CODE else error.reason.lower()
    kind = _TYPES.get(error.status, "api_error")
    return {"error": {"message": one_line(error.message), "type": kind, "param": None, "code": code}}


class OpenAIStream(SseTap):
    """Finds `[DONE]`, the usage and errors; for the Responses API `response.completed` is the end."""

    marks = (b"[DONE]", b'"usage"', b'"error":', b"event: response.completed", b"event: response.incomplete")

    def data(self, event: bytes, data: bytes, *, marked: bool) -> None:
        """One event with a mark."""
        if data == b"[DONE]" or event:
            self.stats.finished = True
        if marked and data.startswith(b'{"error":'):
            self.stats.error = error_text(data)
        elif marked:
            usage(self.stats, data)


class OpenAIDocument(DocumentTap):
    """One JSON object with its usage near the end."""

    def line(self, line: bytes, head: bytes, *, marked: bool, complete: bool) -> None:
        """The whole body, or its end."""
        close_document(self.stats, line, head)


def close_document(stats: Statistics, line: bytes, head: bytes) -> None:
    """Take the statistics, or the error, out of an answer that was not streamed."""
    stats.chunks = 1
    if head.startswith((b'{"error":', b'{"type":"error"')):
        stats.error = error_text(line)
        return
    stats.finished = line.rstrip().endswith(b"}")
    usage(stats, line)


class _Detail(msgspec.Struct, gc=False):
    message: str = ""


class _Failure(msgspec.Struct, gc=False):
    error: _Detail | str | None = None


_failure = msgspec.json.Decoder(_Failure)


def error_text(data: bytes) -> str:
    """The message of an error object; the beginning of the data if it does not look like one."""
    try:
        error = _failure.decode(data).error
    except (ValueError, RecursionError):
        error = None
    text = error.message if isinstance(error, _Detail) else error
    return one_line(text or data[:512].decode("utf-8", "replace"))
