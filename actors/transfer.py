"""Management calls (blobs, create, push ...) to one chosen server: no queue, no slot, no retry, but revocable."""

from __future__ import annotations

import trio

from actors.answer import Answer
from actors.cells import FleetCell, ServerCell
from actors.transport import UpstreamRequest
from fleet.call import Call, ClientGone, Downstream
from fleet.errors import BackendError, NoServer, ShuttingDown
from fleet.headers import upstream_headers


async def transfer(fleet: FleetCell, cell: ServerCell, call: Call, down: Downstream) -> None:
    """Forward one call and its answer, both streamed. Raises FleetError only while nothing has been sent.

    Removing the server or stopping the fleet cancels it; the client then sees a broken answer.
    """
    if fleet.draining:
        raise ShuttingDown("the fleet is shutting down", retry_after=2.0)
    answer = Answer(call, down)
    scope = trio.CancelScope()
    cell.transfers.add(scope)
    try:
        with scope:
            await _forward(fleet, cell, call, answer)
    except ClientGone:
        return
    except BackendError as error:
        if not answer.started:
            raise
        await answer.break_off(error)
    finally:
        cell.transfers.discard(scope)
        fleet.ended.unpark_all()
    if scope.cancelled_caught:
        await _stopped(cell, answer)


async def _forward(fleet: FleetCell, cell: ServerCell, call: Call, answer: Answer) -> None:
    spec = cell.state.spec
    key = spec.api_key.get_secret_value() if spec.api_key else None
    headers = upstream_headers(call.headers, api_key=key, request_id=call.request_id)
    request = UpstreamRequest(call.method, call.target, headers, call.body, call.content_length)
    timeouts = fleet.config.timeouts
    # An upload's answer comes when the last byte was sent; only the total time limits it.
    response = await cell.pool.open(
        request, connect_timeout=timeouts.connect, first_byte_timeout=fleet.config.total_timeout
    )
    try:
        await answer.start(response, [(b"x-fleet-server", cell.state.id.encode())])
        while data := await response.receive():
            await answer.write(data)
        await answer.finish()
    finally:
        response.release()


async def _stopped(cell: ServerCell, answer: Answer) -> None:
    error = NoServer(f"server '{cell.state.id}' was taken away", retry_after=2.0)
    if not answer.started:
        raise error
    await answer.break_off(error)
