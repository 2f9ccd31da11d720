"""One HTTP exchange between Quart and the fleet.

A view only translates. What takes time, holds a lease or streams is returned as a `Relay` and runs here, in the same
task that writes the response: nothing is held between "the view returned" and "the body is sent", and a client that
leaves cancels it wherever it is.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from quart import Response
from quart_trio.asgi import TrioASGIHTTPConnection

from fleet.protocol.call import ClientGone, Downstream
from web.asgi.request_body import HeldBody
from web.asgi.response_writer import AsgiDownstream
from web.http import errors
from web.process.raw_connection import Wire, wire_of

log = logging.getLogger(__name__)

LINGER: Final = 2.0
"""Seconds for which we listen to the rest of a body nobody wants, so that its sender gets to read our answer."""

GLANCE: Final = 0.05
"""Seconds between two looks at whether the sender of a body that nobody takes is still there."""

TERMS_KEY: Final = "FLEET_BODY_TERMS"
"""Where the app's configuration has the `web.http.body_limits.BodyTerms`."""

Work = Callable[[Downstream], Awaitable[None]]


class Relay(Response):
    """A response that is still to be made: `work` gets the downstream and does everything.

    `work` raises FleetError only before it has started the downstream. Quart sees an empty 200.
    """

    def __init__(self, work: Work) -> None:
        super().__init__(b"")
        self.work = work
        self.timeout = None


class FleetConnection(TrioASGIHTTPConnection):
    """Quart-Trio's connection, with a held-back body, relays, and an end that the server can follow."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        request = self._create_request_from_scope(send)
        body = cast(HeldBody, request.body)
        body.terms = self.app.config[TERMS_KEY]

        async def answer(down: AsgiDownstream) -> None:
            response: Any = await self.app.handle_request(request)
            if isinstance(response, Relay):
                await self._relay(response, down)
            else:
                await _forward(response, down)

        try:
            await converse(self.scope, body, receive, send, answer)
        finally:
            body.release()

    async def _relay(self, response: Relay, down: AsgiDownstream) -> None:
        """Run the work; answer with its error if that is still possible, else end without the last chunk."""
        try:
            await response.work(down)
        except ClientGone:
            raise
        except Exception as crash:
            await errors.make_good(crash, errors.asker_of(self.scope), down)


async def converse(
    scope: Any,
    body: HeldBody,
    receive: ASGIReceiveCallable,
    send: ASGISendCallable,
    answer: Callable[[AsgiDownstream], Awaitable[None]],
) -> None:
    """Run `answer` while the request's body comes in; cancel it when the client leaves.

    The end of the response goes out only after the rest of the body was dealt with.
    """
    wire = wire_of(scope)
    body.foretell(scope["headers"], wire)
    down = AsgiDownstream(send, body, head_only=scope["method"] == "HEAD")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pump, body, receive, wire, nursery.cancel_scope)
        try:
            await answer(down)
            if down.finished:
                await _let_go(body, nursery)
                body.release()
                await down.close()
        except ClientGone:
            log.debug("client left during its response")
        nursery.cancel_scope.cancel()


async def _pump(body: HeldBody, receive: ASGIReceiveCallable, wire: Wire, scope: trio.CancelScope) -> None:
    """Feed the body; when the client leaves, cancel the whole exchange."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect" or not await _fed(body, message, wire):
            scope.cancel()
            return


async def _fed(body: HeldBody, message: Any, wire: Wire) -> bool:
    """Hand one piece over; False if the client left before anybody took it.

    The notice of that comes behind the pieces, which nobody reads while the body's reader is behind.
    """
    data, last = message.get("body", b""), not message.get("more_body", False)
    while not await body.feed(data, last=last, patience=GLANCE):
        if wire.left():
            return False
    return True


async def _let_go(body: HeldBody, nursery: trio.Nursery) -> None:
    """Read on for a moment if the client still sends: a reset would destroy the answer on its way.

    The swallowing goes on until the very end, because the server puts its own notice behind the last chunks.
    """
    if body.complete.is_set() or body.held_back:
        return
    nursery.start_soon(body.swallow)
    with trio.move_on_after(LINGER):
        await body.complete.wait()


async def _forward(response: Any, down: AsgiDownstream) -> None:
    """Send one of Quart's ordinary responses."""
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in response.headers.items()]
    await down.start(response.status_code, headers)
    if isinstance(response, Response):
        async with response.response as pieces:
            async for piece in pieces:
                await down.write(piece.encode() if isinstance(piece, str) else piece)
    else:  # a plain Werkzeug response: HTTPException.get_response() makes those
        for piece in response.response:
            await down.write(piece.encode() if isinstance(piece, str) else piece)
    await down.finish()
