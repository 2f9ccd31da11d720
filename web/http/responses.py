"""Small responses, built the same way everywhere."""

from __future__ import annotations

from typing import Final

import msgspec
import orjson
from quart import Response

_POLICY: Final = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
_FIELDS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
JSON: Final = "application/json; charset=utf-8"
TEXT: Final = "text/plain; charset=utf-8"
_ENCODER: Final = msgspec.json.Encoder()


def raw(body: bytes, content_type: str = JSON, status: int = 200) -> Response:
    """A response with exactly these bytes."""
    return Response(body, status, content_type=content_type)


def json(value: object, status: int = 200, content_type: str = JSON) -> Response:
    """A JSON response."""
    return raw(orjson.dumps(value), content_type, status)


def encoded(value: msgspec.Struct) -> bytes:
    """An object of one of our classes as JSON."""
    return _ENCODER.encode(value)


def typed(value: msgspec.Struct, status: int = 200) -> Response:
    """A JSON response of one of our classes."""
    return raw(encoded(value), JSON, status)


def nothing(status: int = 200) -> Response:
    """An empty body, and no word about its type."""
    response = Response(b"", status)
    del response.headers["Content-Type"]
    return response


def page(body: str, status: int, content_type: str = "text/plain") -> Response:
    """A page as the router under Ollama makes them: without a character set."""
    return raw(body.encode(), content_type, status)


def text(body: str, status: int = 200) -> Response:
    """A plain text response."""
    return raw(body.encode(), TEXT, status)


def guarded(answer: Response, kept: str) -> Response:
    """The same answer for a browser, which shall run, frame and load nothing that is not ours.

    `kept` is what Cache-Control says.
    """
    answer.headers.update(_FIELDS)
    answer.headers["Cache-Control"] = kept
    return answer
