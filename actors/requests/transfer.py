"""Management calls (blobs, create, push ...) to one chosen server: no queue, no slot, no retry, but revocable.

They may take hours and gigabytes, so nothing limits the whole; what stands still is ended by the server's actor.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager

from actors.requests.held_responses import name_server, refuse_loop
from actors.requests.request_context import RequestContext
from actors.requests.response_writer import ResponseWriter, whereabouts
from actors.state.servers import ServerCell, Servers
from actors.state.transfer import Transfer, TransferStage
from actors.upstream.pool import UpstreamRequest
from fleet.common.errors import BackendError, BadAnswer, FleetError, Phase, ShuttingDown
from fleet.protocol.call import Call, ClientGone, Downstream
from fleet.protocol.headers import forwarded_headers, hops, own_headers


class _Watched:
    """An upload's pieces, each one a sign of life."""

    def __init__(self, body: AsyncIterable[bytes], transfer: Transfer) -> None:
        self._pieces = body.__aiter__()
        self._transfer = transfer

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self._transfer.moved(TransferStage.SENDING)
        try:
            return await self._pieces.__anext__()
        except StopAsyncIteration:
            self._transfer.moved(TransferStage.THINKING)
            raise


async def transfer(context: RequestContext, cell: ServerCell, call: Call, down: Downstream) -> None:
    """Forward one call and its answer, both streamed. Raises FleetError only while nothing has been sent.

    Removing the server or stopping the fleet ends it; the client then sees a broken answer.
    """
    refuse_loop(context.hop, hops(call.headers))
    answer = ResponseWriter(call, down, context.config.current.timeouts.write)
    try:
        with watched(context.servers, cell) as running:
            await _forward(context, cell, call, answer, running)
    except ClientGone:
        return
    except FleetError as error:
        if not answer.started:
            raise
        await answer.break_off(error)


@contextmanager
def watched(servers: Servers, cell: ServerCell, running: Transfer | None = None) -> Iterator[Transfer]:
    """A block of work on one server that may last long: drains wait for it, stalls and removals end it.

    `running` may be given by who has other rules for what a stall is.

    Raises ShuttingDown at the start, and at the end what it was ended with, if it was. Backend errors name the server.
    """
    check_open(servers)
    running = running or Transfer(cell.state.id)
    cell.transfers.add(running)
    cell.watch()
    try:
        with running.scope:
            yield running
    except BackendError as error:
        name_server(error, cell.pool.endpoint.address, cell.state.id)
        raise running.error or error from error
    finally:
        cell.transfers.discard(running)
        servers.ended.unpark_all()
    if running.error is not None:
        raise running.error


def check_open(servers: Servers) -> None:
    """Raises ShuttingDown while the fleet drains."""
    if servers.draining:
        raise ShuttingDown("the fleet is shutting down", retry_after=2.0)


async def _forward(
    context: RequestContext, cell: ServerCell, call: Call, answer: ResponseWriter, running: Transfer
) -> None:
    spec = cell.state.spec
    seen = call.passing or forwarded_headers(call.headers)
    headers = own_headers(seen, api_key=spec.plain_key, request_id=call.request_id, hop=context.hop)
    body = call.body if isinstance(call.body, bytes) else _Watched(call.body, running)
    if isinstance(body, bytes):
        running.moved(TransferStage.THINKING)
    # Who asks before sending gigabytes wants the server's own answer: a blob that exists already is not sent again.
    asks_first = not isinstance(body, bytes) and any(name == b"expect" for name, _ in call.headers)
    request = UpstreamRequest(
        call.method, call.target, headers, body, call.content_length, expect_continue=asks_first, lines=seen.lines
    )
    response = await cell.pool.open(request, connect_timeout=context.config.current.timeouts.connect)
    try:
        if 300 <= response.status < 400:  # who follows that sends key and upload to wherever it points
            raise BadAnswer(f"server '{cell.state.id}' answered {response.status}, a redirect", Phase.HEADERS)
        await answer.start(response, whereabouts(cell.state.id))
        while data := await response.receive():
            running.moved(TransferStage.READING)
            await answer.write(data, response.raw if not response.complete else b"")
            running.moved(TransferStage.ANSWERING)
        await answer.end_with(b"")
    finally:
        response.release()
