"""Everything that can go wrong, as types that carry their own HTTP meaning.

`status` and `code` are what the client sees, `reason` is the finer word for logs, headers and OpenAI-style codes.
Nobody decides a status by reading English. Only `fleet.protocol.dialects` turns these into bodies.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar


class FleetError(Exception):
    """Base of everything the front end may show.

    `message` is one line for the client; `details` says what to do about it; `retry_after` is in seconds.
    """

    status: int = 500
    code: ClassVar[str] = "INTERNAL_ERROR"
    reason: ClassVar[str] = "INTERNAL_ERROR"
    final: ClassVar[bool] = False
    """Whether clients that try again by themselves are asked not to."""
    fields: Mapping[str, object] = MappingProxyType({})
    """Further fields of the admin API's error body; set on single errors."""

    def __init__(self, message: str, *, details: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.details = details
        self.retry_after = retry_after

    @property
    def message(self) -> str:
        """What `str` says too, in the same words: who words it anew here does so for logs and tracebacks as well."""
        return str(self.args[0])

    @message.setter
    def message(self, text: str) -> None:
        self.args = (text,)


class BadRequest(FleetError):
    """The client's request cannot be read."""

    status, code, reason = 400, "INVALID_REQUEST", "INVALID_REQUEST"


class Unauthorized(FleetError):
    """No valid API key."""

    status, code, reason = 401, "UNAUTHORIZED", "UNAUTHORIZED"


class Forbidden(FleetError):
    """This endpoint is not offered by a fleet."""

    status, code, reason = 403, "FORBIDDEN", "FORBIDDEN"


class ModelNotFound(FleetError):
    """No server of the fleet holds the model."""

    status, code, reason = 404, "MODEL_NOT_FOUND", "MODEL_NOT_FOUND"


class ServerNotFound(FleetError):
    """No server has this id."""

    status, code, reason = 404, "SERVER_NOT_FOUND", "SERVER_NOT_FOUND"


class JobNotFound(FleetError):
    """No job has this id (any more)."""

    status, code, reason = 404, "JOB_NOT_FOUND", "JOB_NOT_FOUND"


class NotFound(FleetError):
    """No such thing: neither a model nor a server nor a job, or too plain to have an error of its own."""

    status, code, reason = 404, "NOT_FOUND", "NOT_FOUND"


class RequestTimeout(FleetError):
    """The client took too long to send its request."""

    status, code, reason = 408, "TIMEOUT", "REQUEST_BODY_TIMEOUT"


class Conflict(FleetError):
    """The thing exists already."""

    status, code, reason = 409, "CONFLICT", "CONFLICT"


class TooLarge(FleetError):
    """The request body is over `limits.body_bytes`."""

    status, code, reason = 413, "INVALID_REQUEST", "BODY_TOO_LARGE"


class QueueFull(FleetError):
    """The waiting lines are full; `retry_after` comes from the observed service rate."""

    status, code, reason = 503, "SERVICE_UNAVAILABLE", "QUEUE_FULL"


class BodyBudget(FleetError):
    """The request bodies in memory are over `limits.buffered_bytes`, all requests together."""

    status, code, reason = 503, "SERVICE_UNAVAILABLE", "BODY_BUDGET"


class NoServer(FleetError):
    """The model is known, but no server that holds it can be used now."""

    status, code, reason = 503, "SERVICE_UNAVAILABLE", "NO_SERVER"


class TooManyJobs(FleetError):
    """`jobs.waiting` jobs wait for their turn already."""

    status, code, reason = 503, "SERVICE_UNAVAILABLE", "TOO_MANY_JOBS"


class TooManyClients(FleetError):
    """As many live clients watch already as `dashboard` allows, in all or from one address."""

    status, code, reason = 503, "SERVICE_UNAVAILABLE", "TOO_MANY_CLIENTS"


class JobFailed(FleetError):
    """A server was asked to do something with a model and refused; its own words are in the message."""

    reason = "JOB_FAILED"


class PoisonousRequest(FleetError):
    """The same request has crashed the model runners of two servers: it is not sent to another for a while."""

    reason = "POISONOUS_REQUEST"
    final = True


class HistoryOff(FleetError):
    """Nothing is kept of finished requests, so nothing can be told of them."""

    status, code, reason = 503, "SERVICE_UNAVAILABLE", "HISTORY_OFF"


class HistoryUnavailable(FleetError):
    """The history cannot be read now, or not within the time that a question may take."""

    status, code, reason = 503, "SERVICE_UNAVAILABLE", "HISTORY_UNAVAILABLE"


class ShuttingDown(FleetError):
    """The fleet is draining before it stops."""

    status, code, reason = 503, "SERVICE_UNAVAILABLE", "SHUTTING_DOWN"


class RequestCancelled(FleetError):
    """An operator ended the request while a server worked on it; nobody is to blame, and no other server is tried."""

    status, code, reason = 503, "SERVICE_UNAVAILABLE", "REQUEST_CANCELLED"
    final = True


class QueueCancelled(RequestCancelled):
    """An operator ended the request while it waited for a slot."""

    reason = "QUEUE_CANCELLED"


class NoAnswer(FleetError):
    """An actor did not answer in time, or ended first; the details say whether what it was told may yet be done."""

    status, code, reason = 503, "SERVICE_UNAVAILABLE", "NO_ANSWER"


class DiskTimeout(FleetError):
    """A disk did not answer within its deadline; what was to be written may be written yet."""

    status, code, reason = 503, "SERVICE_UNAVAILABLE", "DISK_TIMEOUT"


class OutOfDescriptors(FleetError):
    """This process may open no more files; nobody else is to blame."""

    status, code, reason = 503, "SERVICE_UNAVAILABLE", "OUT_OF_DESCRIPTORS"


class LoopDetected(FleetError):
    """The request has been through this fleet before: it is, through some alias, one of its own servers."""

    status, code, reason = 508, "SERVICE_UNAVAILABLE", "LOOP_DETECTED"


class QueueTimeout(FleetError):
    """Waited `timeouts.queue` seconds for a slot."""

    status, code, reason = 504, "TIMEOUT", "QUEUE_TIMEOUT"


class TotalTimeout(FleetError):
    """The request used up `timeouts.total`, over all attempts."""

    status, code, reason = 504, "TIMEOUT", "TOTAL_TIMEOUT"


class Phase(enum.Enum):
    """How far an attempt had come when it ended."""

    CONNECT = "connect"
    SEND = "send"
    HEADERS = "headers"
    BODY = "body"


class BackendError(FleetError):
    """A backend failed us. `phase` says when; before `BODY` another server may be tried."""

    status, code, reason = 502, "SERVICE_UNAVAILABLE", "BACKEND_ERROR"

    def __init__(self, message: str, phase: Phase, *, details: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, details=details, retry_after=retry_after)
        self.phase = phase


class BackendUnreachable(BackendError):
    """No connection could be made: refused, no route, name not found, TLS handshake failed."""

    reason = "BACKEND_UNREACHABLE"


class BackendBroke(BackendError):
    """The connection was reset, closed early, or answered with something that is not HTTP."""

    reason = "BACKEND_BROKE"


class BadAnswer(BackendBroke):
    """It answered, but not with what was asked for: a redirect, a page, nothing, JSON of something else."""

    reason = "BAD_ANSWER"


class BackendRefused(BackendError):
    """A server refused the request in words that are no use to the client; `status` is chosen for each."""

    reason = "BACKEND_REFUSED"

    def __init__(self, message: str, status: int, *, details: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, Phase.HEADERS, details=details, retry_after=retry_after)
        self.status = status


class RouteMissing(FleetError):
    """Every server that could be asked is too old for the endpoint."""

    status, code, reason = 404, "NOT_FOUND", "ROUTE_MISSING"


class ConnectTimeout(BackendError):
    """No connection within `timeouts.connect`."""

    status, code, reason = 504, "TIMEOUT", "CONNECT_TIMEOUT"


class FirstByteTimeout(BackendError):
    """No response headers within `timeouts.first_byte` (a model load counts).

    For streams, embeddings and show. An unstreamed generation comes in one piece: only the total time limits it.
    """

    status, code, reason = 504, "TIMEOUT", "FIRST_BYTE_TIMEOUT"


class IdleTimeout(BackendError):
    """A running stream was silent for `timeouts.idle`."""

    status, code, reason = 504, "TIMEOUT", "IDLE_TIMEOUT"
