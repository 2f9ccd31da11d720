"""The ASGI wrapper around every app: who may come in, what every response carries, and the end of a connection.

Whatever is refused here never reaches a view. Nothing here reads a body.
"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio

from fleet.config import Config, checks_hosts
from fleet.errors import BadRequest, FleetError, Forbidden
from fleet.headers import field, request_id_of
from fleet.hosts import is_local
from web import access, crossorigin, errors, target
from web.body import HeldBody
from web.connection import converse
from web.downstream import AsgiDownstream

Asgi = Callable[[Any, Any, Any], Awaitable[None]]


class Guarded(Protocol):
    """What the guard asks of the system."""

    @property
    def config(self) -> Config: ...

    @property
    def draining(self) -> bool: ...


class Guard:
    """Wraps an ASGI app; reads the configuration anew for every request."""

    def __init__(self, app: Asgi, system: Guarded) -> None:
        self._app = app
        self._system = system
        self._own_name = socket.gethostname().lower()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Any, receive: Any, send: Any) -> None:
        asker, decision, error = self._judged(scope, scope["method"])
        out = Outgoing(send, asker.request_id, decision.fields, closing=self._system.draining)
        into = out.incoming(receive)
        if decision.status is not None:
            await self._reply(scope, into, out, _bare(decision.status))
        elif error is not None:
            await self._reply(scope, into, out, _failure(error, asker))
        else:
            await self._app(scope, into, out)

    async def _reply(self, scope: Any, receive: Any, send: Any, answer: Callable[[AsgiDownstream], Any]) -> None:
        length = field(scope["headers"], b"content-length") or b""
        body = HeldBody(int(length) if length.isdigit() else None, None)
        await converse(scope, body, receive, send, answer)

    async def _websocket(self, scope: Any, receive: Any, send: Any) -> None:
        asker, decision, error = self._judged(scope, "WEBSOCKET")
        if decision.status is not None or error is not None:
            await receive()
            await _turn_away(send, error or Forbidden("pages of this origin may not call the fleet"), asker)
            return

        async def checked(message: Any) -> None:
            if message["type"] == "websocket.http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-request-id", asker.request_id.encode())]}
            await send(message)
            # sending to a peer that is gone returns at once: a loop that pushes would never let anyone else run
            await trio.lowlevel.checkpoint()

        await self._app(scope, receive, checked)

    def _judged(self, scope: Any, method: str) -> tuple[errors.Asker, crossorigin.Decision, FleetError | None]:
        """Who asks, what the answer has to carry, and why it is a refusal; the Host comes first of all."""
        host = target.settle(scope)
        asker = self._note(scope)
        if host is None:
            return asker, crossorigin.NOTHING, BadRequest("the request target is neither a path nor an http URL")
        if not self._is_ours(host):
            return asker, crossorigin.NOTHING, errors.ForeignHost()
        origins = self._system.config.cors.origins
        decision = crossorigin.decide(method, scope["path"], host, scope["headers"], origins)
        return asker, decision, self._refusal(scope, method)

    def _is_ours(self, host: str) -> bool:
        config = self._system.config
        if not checks_hosts(config):
            return True
        return is_local(host, (self._own_name, *(name.lower() for name in config.security.allowed_hosts)))

    def _note(self, scope: Any) -> errors.Asker:
        headers = scope["headers"]
        agent = (field(headers, b"user-agent") or b"").decode("latin-1")
        request_id = request_id_of(headers, uuid.uuid4().hex[:16])
        asker = errors.asker(scope["path"], request_id, self._system.config.compat.native_errors, agent)
        scope[errors.SCOPE_KEY] = asker
        return asker

    def _refusal(self, scope: Any, method: str) -> FleetError | None:
        security = self._system.config.security
        if not security.keys_required or access.is_open(method, scope["path"]):
            return None
        return access.refusal(scope["path"], scope["headers"], security.api_keys)


async def _turn_away(send: Any, error: FleetError, asker: errors.Asker) -> None:
    """Answer a websocket's handshake with an error."""
    status, headers, body = errors.render(error, asker)
    headers.append((b"x-request-id", asker.request_id.encode()))
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body, "more_body": False})


class Outgoing:
    """`send`, with the fields that every response carries, and a checkpoint after each piece."""

    def __init__(self, send: Any, request_id: str, fields: Any, *, closing: bool) -> None:
        self._send = send
        self._fields = [(b"x-request-id", request_id.encode()), *fields]
        if closing:
            self._fields.append((b"connection", b"close"))
        self.done = False

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": self._completed(message["headers"])}
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.done = True
        await self._send(message)
        if not self.done:
            await trio.lowlevel.checkpoint()

    def _completed(self, headers: Any) -> list[tuple[bytes, bytes]]:
        present = {name for name, _ in headers}
        return [*headers, *(pair for pair in self._fields if pair[0] not in present)]

    def incoming(self, receive: Any) -> Callable[[], Awaitable[Any]]:
        """`receive`, except that a disconnect after our last piece stays untold.

        The server tells it while we are still inside that last send; whoever cancels then would cancel the server's
        own preparations for the next request.
        """

        async def guarded() -> Any:
            message = await receive()
            if message["type"] == "http.disconnect" and self.done:
                await trio.sleep_forever()
            return message

        return guarded


def _bare(status: int) -> Callable[[AsgiDownstream], Awaitable[None]]:
    async def answer(down: AsgiDownstream) -> None:
        await down.start(status, [] if status == 204 else [(b"content-length", b"0")])
        await down.finish()

    return answer


def _failure(error: FleetError, asker: errors.Asker) -> Callable[[AsgiDownstream], Awaitable[None]]:
    async def answer(down: AsgiDownstream) -> None:
        await errors.send(error, asker, down)

    return answer
