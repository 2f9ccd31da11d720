"""Counts, for the metrics, calls that no exchange reports: listings and management, refusals at the door, unloads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from fleet.common.errors import FleetError
from fleet.observability.metrics.label_values import CLIENT_LEFT
from fleet.protocol.call import ClientGone
from fleet.protocol.endpoints import PINNABLE, rule_of
from web.http.ports import Face, face_of

if TYPE_CHECKING:
    from fleet.observability.metrics.registry import MetricsRegistry

Asgi = Callable[[Any, Any, Any], Awaitable[None]]
_POST: Final = "POST"
_OF_THE_DASHBOARD: Final = frozenset({"/", "/api/status"})
"""What its port says in words of its own."""


EXCHANGED: Final = "fleet.exchanged"
"""Where the scope of an inference request says that an exchange will report it."""


class Counting:
    """Wraps the ASGI app of a face that serves Ollama's API; looks at the beginning of every answer.

    That includes what is refused before its view has begun, on whatever route.
    """

    def __init__(self, app: Asgi, metrics: MetricsRegistry, now: Callable[[], float]) -> None:
        self._app = app
        self._metrics = metrics
        self._now = now

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = self._now(), CLIENT_LEFT

        async def seen(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, seen)
        finally:
            if (rule := _rule(scope)) is not None:
                self._metrics.called(scope["method"], rule, status, self._now() - began)


def _rule(scope: Any) -> str | None:
    """Ollama's route that was asked for, unless an exchange reports the request."""
    if EXCHANGED in scope:
        return None
    rule = rule_of(scope["method"], scope["path"]) or _pinned(scope["method"], scope["path"])
    return None if face_of(scope) is Face.DASHBOARD and rule in _OF_THE_DASHBOARD else rule


def _pinned(method: str, path: str) -> str | None:
    """The route of a path for a single server."""
    rule, pinned, server = path.partition("--")
    return rule if method == _POST and rule in PINNABLE and pinned and server and "/" not in server else None


class CountedResponse(Protocol):
    """An answer on its way."""

    status: int
    """0 before its beginning."""


@contextmanager
def unexchanged(
    metrics: MetricsRegistry, now: Callable[[], float], endpoint: str, answer: CountedResponse
) -> Iterator[None]:
    """Work on an inference request that no exchange reports; what was answered counts."""
    began, status = now(), CLIENT_LEFT
    try:
        yield
    except FleetError as refusal:
        status = refusal.status
        raise
    finally:
        metrics.called(_POST, endpoint, answer.status or status, now() - began)


def unread(metrics: MetricsRegistry, endpoint: str, why: BaseException, seconds: float) -> None:
    """An inference request came to an end before any exchange took it over."""
    if isinstance(why, FleetError):
        status = why.status
    else:
        status = 500 if isinstance(why, Exception) and not isinstance(why, EOFError | ClientGone) else CLIENT_LEFT
    metrics.called(_POST, endpoint, status, seconds)
