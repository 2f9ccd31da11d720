"""Answers to what is not a request, or to whom there is no room for: written whole, never with an empty body.

Ollama's own client takes an empty body for success. On the metrics port they are in that port's words.
"""

from __future__ import annotations

import logging
from typing import Final

import orjson

from fleet.common.errors import BadRequest, FleetError
from web.edge.request_head import BadHead
from web.edge.response_writer import DateLine, status_line
from web.http import errors
from web.http.ports import Face
from web.security.request_gate import new_request_id

log = logging.getLogger(__name__)

_HEAD: Final = (
    b"%b%bcontent-type: application/json; charset=utf-8\r\ncontent-length: %d\r\nx-request-id: %b\r\n"
    b"connection: close\r\n%b\r\n%b"
)


class Late(FleetError):
    """The head of a request did not come in within its time."""

    status, code, reason = 408, "TIMEOUT", "REQUEST_HEAD_TIMEOUT"


class TooManyConnections(FleetError):
    """No room for another client."""

    status, code, reason = 503, "SERVICE_UNAVAILABLE", "TOO_MANY_CONNECTIONS"


def answer(bad: BadHead, date: DateLine, face: Face = Face.PROXY) -> bytes:
    """The whole answer to a request that cannot be read."""
    request_id = new_request_id()
    log.info("request refused", extra={"reason": "BAD_HEAD", "status": bad.status, "request_id": request_id})
    allow = b"allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n" if bad.status == 405 else b""
    error = Late(bad.text) if bad.status == 408 else BadRequest(bad.text)
    return _whole(bad.status, error, request_id, date, allow, face)


def too_many(date: DateLine, face: Face = Face.PROXY) -> bytes:
    """The whole answer to a client for whom there is no room."""
    fields = b"retry-after: 1\r\nx-fleet-error: TOO_MANY_CONNECTIONS\r\n"
    error = TooManyConnections("too many connections, please try again", retry_after=1.0)
    return _whole(503, error, new_request_id(), date, fields, face)


def _whole(status: int, error: FleetError, request_id: str, date: DateLine, fields: bytes, face: Face) -> bytes:
    body = orjson.dumps({"error": error.message})
    if face is Face.METRICS:
        _, _, body = errors.render(error, errors.asker("/", request_id, "", (), date.wall, face))
    return _HEAD % (status_line(status), date.now(), len(body), request_id.encode(), fields, body)
