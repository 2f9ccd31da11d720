"""Errors in the shape the route's clients expect."""

from __future__ import annotations

from typing import Any, Final

import orjson

RUNNER_STOPPED: Final = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
    "check ollama server logs for details"
)
RUNNER_BROKE: Final = "an error was encountered while running the model: unexpected EOF"
NO_MEMORY: Final = "model requires more system memory (9.9 GiB) than is available (9.1 GiB)"
BUSY: Final = "server busy, please try again.  maximum pending requests exceeded"

_OPENAI_TYPES: Final = {400: "invalid_request_error", 404: "not_found_error"}
_ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class ApiError(Exception):
    """An answer with an error status; `text` is Ollama's own."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def go_json(value: Any) -> bytes:
    """Compact JSON as Go writes it: `<`, `>`, `&` and the two line separators escaped."""
    data = orjson.dumps(value)
    for raw, escaped in _ESCAPES:
        if raw in data:
            data = data.replace(raw, escaped)
    return data


_ESCAPES: Final = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)


def error_answer(path: str, status: int, text: str) -> tuple[bytes, str]:
    """Body and content type of an error on that path."""
    if path == "/v1/messages":
        kind = _ANTHROPIC_TYPES.get(status, "api_error")
        body: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_sim"}
        return go_json(body) + b"\n", "application/json"
    if path.startswith("/v1/"):
        kind = _OPENAI_TYPES.get(status, "api_error")
        return go_json({"error": {"message": text, "type": kind, "param": None, "code": None}}) + b"\n", (
            "application/json"
        )
    return go_json({"error": text}), "application/json; charset=utf-8"
