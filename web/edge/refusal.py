"""Answers to what is not a request, or to whom there is no room for: written whole, never with an empty body.

Ollama's own client takes an empty body for success.
"""

from __future__ import annotations

import logging
from typing import Final

import orjson

from web.doorman import new_request_id
from web.edge.downstream import date_line, status_line
from web.edge.head import BadHead

log = logging.getLogger(__name__)

_HEAD: Final = (
    b"%b%bcontent-type: application/json; charset=utf-8\r\ncontent-length: %d\r\nx-request-id: %b\r\n"
    b"connection: close\r\n%b\r\n%b"
)


def answer(bad: BadHead) -> bytes:
    """The whole answer to a request that cannot be read."""
    request_id = new_request_id()
    log.info("request refused", extra={"reason": "BAD_HEAD", "status": bad.status, "request_id": request_id})
    allow = b"allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n" if bad.status == 405 else b""
    return _whole(bad.status, bad.text, request_id, allow)


def too_many() -> bytes:
    """The whole answer to a client for whom there is no room."""
    fields = b"retry-after: 1\r\nx-fleet-error: TOO_MANY_CONNECTIONS\r\n"
    return _whole(503, "too many connections, please try again", new_request_id(), fields)


def _whole(status: int, text: str, request_id: str, fields: bytes) -> bytes:
    body = orjson.dumps({"error": text})
    return _HEAD % (status_line(status), date_line(), len(body), request_id.encode(), fields, body)
