"""The ASGI wrapper around every app: who may come in, what every response carries, and the end of a connection.

Whatever is refused here never reaches a view. Nothing here reads a body.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import trio

from fleet.common.errors import FleetError, Forbidden
from fleet.protocol.call import Headers
from fleet.protocol.headers import field
from web.asgi.quart_connection import converse
from web.asgi.quart_request import BY_KEY
from web.asgi.request_body import HeldBody
from web.http import errors, request_target
from web.http.ports import Face, face_of
from web.security import api_key_auth, cross_origin, rate_limits
from web.security.request_gate import GateDecision, Guarded, RequestGate
from web.security.session_cookies import SessionCookies, shown

Asgi = Callable[[Any, Any, Any], Awaitable[None]]


class Guard:
    """Wraps an ASGI app; reads the configuration anew for every request."""

    def __init__(self, app: Asgi, system: Guarded, gate: RequestGate, passes: SessionCookies | None = None) -> None:
        self._app = app
        self._passes = passes
        """Only where people log in: browsers send a cookie to every port of a machine."""
        self._system = system
        self._doorman = gate
        self._rate_limiters = {face: rate_limits.RateLimiter(system, gate, face) for face in Face}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Any, receive: Any, send: Any) -> None:
        judged, fields = self._counted(scope, self._judged(scope, scope["method"]))
        out = Outgoing(send, judged.asker.request_id, fields, closing=self._system.draining)
        into = out.incoming(receive)
        if not judged.refused:
            await self._app(scope, into, out)
            return
        length = field(scope["headers"], b"content-length") or b""
        body = HeldBody(int(length) if length.isdigit() else None, None)
        await converse(scope, body, into, out, judged.answer)

    async def _websocket(self, scope: Any, receive: Any, send: Any) -> None:
        judged = self._judged(scope, "WEBSOCKET")
        asker = judged.asker
        if judged.refused:
            await receive()
            error = judged.refusal or Forbidden("pages of this origin may not call the fleet")
            await _turn_away(send, error, asker)
            return

        async def checked(message: Any) -> None:
            if message["type"] == "websocket.http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-request-id", asker.request_id.encode())]}
            await send(message)
            # sending to a peer that is gone returns at once: a loop that pushes would never let anyone else run
            await trio.lowlevel.checkpoint()

        await self._app(scope, receive, checked)

    def _counted(self, scope: Any, judged: GateDecision) -> tuple[GateDecision, Headers]:
        """The same request after its rate limit, if it has one, and what every answer to it has to carry."""
        face, fields = face_of(scope), judged.decision.fields
        rate = rate_limits.rate_of(face, self._system.config)
        if rate is None or not judged.ours or not rate_limits.counts(face, scope["method"], scope["path"]):
            return judged, fields
        client = (scope.get("client") or ("",))[0]
        verdict = self._rate_limiters[face].count(rate, judged.key, client)
        if not verdict.allowed:
            judged = judged.instead(self._rate_limiters[face].refusal(verdict, judged.key or client))
        return judged, (*fields, *rate_limits.fields_of(verdict))

    def _judged(self, scope: Any, method: str) -> GateDecision:
        host = request_target.settle(scope)
        judged = self._doorman.judge(method, scope["path"], host, scope["headers"], face_of(scope))
        if self._passes is not None and host is not None and judged.ours:
            scope[cross_origin.OWN_KEY] = cross_origin.is_own(method, scope["path"], host, scope["headers"])
            if scope[cross_origin.OWN_KEY] and not judged.key:
                judged = self._admitted(scope, self._passes, judged)
        scope[errors.SCOPE_KEY], scope[BY_KEY] = judged.asker, judged.key
        return judged

    def _admitted(self, scope: Any, passes: SessionCookies, judged: GateDecision) -> GateDecision:
        """The same request, if it shows a good pass: that stands for a key then."""
        ring = api_key_auth.ring_of(self._system)
        held = shown(passes, scope["headers"], ring)
        who = held.who(ring) if held is not None else None
        if held is None or who is None:
            return judged
        scope[api_key_auth.PASS_KEY] = held
        return replace(judged, refusal=None, key=who.name)


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
            present = {name for name, _ in message["headers"]}
            ours = [pair for pair in self._fields if pair[0] not in present]
            message = {**message, "headers": [*message["headers"], *ours]}
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.done = True
        await self._send(message)
        if not self.done:
            await trio.lowlevel.checkpoint()

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
