"""From errors to responses: the one place that chooses a dialect for a path and headers for an error."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, cast

import orjson
from werkzeug.exceptions import HTTPException

from fleet.common.errors import BadRequest, FleetError, Forbidden, NotFound, RequestTimeout, TooLarge, Unauthorized
from fleet.common.times import iso
from fleet.protocol import dialects
from fleet.protocol.call import Downstream, Headers
from fleet.protocol.dialects import NATIVE, use_structured
from fleet.protocol.dialects.base import Dialect, ErrorBody
from fleet.protocol.headers import field
from web.http.ports import Face

log = logging.getLogger(__name__)

_AT_THE_DOOR: Final = frozenset({400, 401, 403, 408, 413})

SCOPE_KEY: Final = "fleet.asker"
ADMIN_ROOTS: Final = ("/api/orchestrator", "/health", "/metrics", "/openapi.json", "/docs")

Fields = list[tuple[bytes, bytes]]


class Methods(FleetError):
    """The path exists, the method does not."""

    status, code, reason = 405, "METHOD_NOT_ALLOWED", "METHOD_NOT_ALLOWED"


class CloudDisabled(Forbidden):
    """A model of Ollama's cloud, in the words (and the plain form, on every route) of a server without it."""

    reason = "CLOUD_DISABLED"
    plain: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__("ollama cloud is disabled: remote model is unavailable")


class ForeignHost(Forbidden):
    """Asked for under a name that is not ours (DNS rebinding); a plain string, where Ollama itself has nothing to say.

    Ollama's own client takes an empty body for success.
    """

    reason = "HOST_NOT_ALLOWED"
    plain: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__(
            "the fleet does not answer to this Host; security.allowed_hosts can add it",
            details="without keys it is used under local names, and changed or administered as localhost only",
        )


class NotOffered(Forbidden):
    """Something that belongs to one server and cannot be shared by a fleet; a plain string for Ollama's CLI."""

    reason = "NOT_OFFERED"
    plain: ClassVar[bool] = True


_BY_STATUS: Final[Mapping[int, tuple[type[FleetError], str]]] = {
    400: (BadRequest, "the request cannot be read"),
    401: (Unauthorized, "a valid API key is needed"),
    403: (Forbidden, "this is not offered here"),
    404: (NotFound, "not found"),
    405: (Methods, "method not allowed"),
    408: (RequestTimeout, "the request body took too long to arrive"),
    413: (TooLarge, "the request body is larger than limits.body_bytes allows"),
    415: (BadRequest, "the body must be JSON"),
}


class AdminDialect:
    """The admin API's errors: `{"success": false, "error": ..., "details": ...}`."""

    name = "admin"

    def error(self, error: FleetError, *, structured: bool, request_id: str, timestamp: str) -> ErrorBody:
        """The body of an error response; extra fields of the error stand beside the message."""
        record: dict[str, object] = {"success": False, "error": error.message}
        if error.details:
            record["details"] = error.details
        if error.status >= 500:
            record |= {"code": error.code, "requestId": request_id, "timestamp": timestamp}
        record |= getattr(error, "fields", {})
        return ErrorBody(orjson.dumps(record), b"application/json")


class MonitoringDialect:
    """The metrics port's errors: `{"error": {"code", "message", "details", "reason", "timestamp"}}`, whoever asks."""

    name = "monitoring"

    def error(self, error: FleetError, *, structured: bool, request_id: str, timestamp: str) -> ErrorBody:
        """The body of an error response."""
        return NATIVE.error(error, structured=True, request_id=request_id, timestamp=timestamp)


@dataclass(frozen=True, slots=True)
class Asker:
    """What an error response needs to know of its request. `structured`: see `protocol.dialects.use_structured`.

    `wall`: what time it is, in seconds since 1970.
    """

    request_id: str
    dialect: Dialect | AdminDialect | MonitoringDialect
    wall: Callable[[], float]
    structured: bool = False

    @property
    def ours(self) -> bool:
        """Whether it asks for something of our own, which Ollama's words for what is not there do not fit."""
        return isinstance(self.dialect, AdminDialect | MonitoringDialect)


def dialect_of(path: str, face: Face = Face.PROXY) -> Dialect | AdminDialect | MonitoringDialect:
    """Whose errors a path speaks on one of our ports."""
    if face is Face.METRICS:
        return MonitoringDialect()
    if path.startswith(ADMIN_ROOTS):
        return AdminDialect()
    return dialects.dialect_of(path)


def asker(
    path: str,
    request_id: str,
    native_errors: str,
    headers: Headers,
    wall: Callable[[], float],
    face: Face = Face.PROXY,
) -> Asker:
    """Work out how to answer this request if it fails. `native_errors` is the setting `compat.native_errors`."""
    agent, asked = (_said(headers, name) for name in (b"user-agent", b"x-fleet-errors"))
    return Asker(request_id, dialect_of(path, face), wall, use_structured(native_errors, agent, asked))


def _said(headers: Headers, name: bytes) -> str:
    return (field(headers, name) or b"").decode("latin-1")


def asker_of(scope: Any) -> Asker:
    """What the guard noted on the ASGI scope."""
    return cast(Asker, scope[SCOPE_KEY])


def expected(crash: BaseException) -> FleetError | None:
    """The FleetError in an exception: itself, alone in a group, or the one that belongs to an HTTP exception."""
    if isinstance(crash, FleetError):
        return crash
    if isinstance(crash, HTTPException):
        kind, text = _BY_STATUS.get(crash.code or 500, (None, ""))
        return kind(text) if kind else None
    if isinstance(crash, BaseExceptionGroup) and len(crash.exceptions) == 1:
        return expected(crash.exceptions[0])
    return None


def unexpected(crash: BaseException, asker: Asker) -> FleetError:
    """Log a bug with its traceback; the client learns only where to look."""
    log.error("unexpected error request=%s", asker.request_id, exc_info=crash)
    return FleetError("internal error", details=f"see the log for request {asker.request_id}")


def render(error: FleetError, asker: Asker) -> tuple[int, Fields, bytes]:
    """Status, headers and body of an error response."""
    now = iso(asker.wall())
    plain = getattr(error, "plain", False) and not isinstance(asker.dialect, MonitoringDialect)
    dialect, structured = (NATIVE, False) if plain else (asker.dialect, asker.structured)
    shown = dialect.error(error, structured=structured, request_id=asker.request_id, timestamp=now)
    headers: Fields = [
        (b"content-type", shown.content_type),
        (b"content-length", b"%d" % len(shown.body)),
        (b"x-fleet-error", error.reason.encode()),
    ]
    if error.final:  # the OpenAI and Anthropic clients look for this
        headers.append((b"x-should-retry", b"false"))
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    return error.status, headers, shown.body


async def send(error: FleetError, asker: Asker, down: Downstream) -> None:
    """Answer with an error; refusals at the door get their log line here (the exchange writes its own)."""
    if error.status in _AT_THE_DOOR:
        about = {"reason": error.reason, "status": error.status, "request_id": asker.request_id}
        log.info("request refused", extra=about)
    status, headers, body = render(error, asker)
    await down.start(status, headers)
    await down.write(body)
    await down.finish()


async def make_good(crash: Exception, asker: Asker, down: Downstream) -> None:
    """Answer with what went wrong if that is still possible; else the answer stays visibly cut."""
    error = expected(crash) or unexpected(crash, asker)
    if down.started:
        log.warning("response cut short: %s (%s) request=%s", error.message, error.reason, asker.request_id)
        down.cut()
        return
    await send(error, asker, down)
