"""Requests that run right now. Never a prompt, never an answer."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import trio

from actors.state.lease import WaitingFor
from fleet.common.errors import NotFound
from fleet.common.times import ClockReading, milliseconds
from fleet.security.roles import ANONYMOUS
from web.admin.kit.answers import EPOCH_MS, Answer, JsonObject
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.requests.queue import BY, CancelledAnswer, OfModelJson, by_model
from web.http.units import is_healthy

if TYPE_CHECKING:
    from actors.state.lease import Lease
    from actors.state.servers import ServerCell
    from actors.system import System

topic = RouteGroup("inflight", "Requests that run right now.")


class RunningJson(JsonObject, kw_only=True):
    """One request that runs."""

    id: str
    server_id: str
    model: Annotated[str, "in the client's own spelling"]
    start_time: EPOCH_MS
    first_byte_time: EPOCH_MS | None
    last_chunk_time: EPOCH_MS | None
    chunk_count: int
    has_received_first_chunk: bool
    is_stalled: Annotated[bool, "silent for half the time after which it would be ended"]
    silent_for: Annotated[int, "milliseconds since anything moved"]
    waiting_for: WaitingFor
    prompt_tokens: Annotated[int, "as far as the answer has told; most tell it at their end"] | None
    output_tokens: int | None
    streaming: bool
    protocol: str
    endpoint: str
    client_id: Annotated[str, "the client's address"]
    by: BY
    priority: int
    handoff_count: int = 0


class BusyServerJson(JsonObject, kw_only=True):
    """One server and what runs there."""

    server_id: str
    server_url: str
    healthy: bool
    total: int
    by_model: dict[str, OfModelJson]
    requests: list[RunningJson]
    streaming_requests: list[RunningJson]


class InFlightAnswer(Answer, kw_only=True):
    """Servers with open requests."""

    total: int
    in_flight: list[BusyServerJson]


@topic.get(
    "/in-flight",
    "Open requests by server; never a prompt or a word of an answer.",
    query=(Param("limit", int, 1000, "requests listed; all are counted", least=1, most=10_000),),
    seed=True,
)
async def in_flight(asked: AdminRequest) -> InFlightAnswer:
    system, left, at = asked.system, asked.query["limit"], asked.reading()
    shown = []
    for cell in list(system.servers.values()):
        if cell.leases:
            leases = list(islice(cell.leases.values(), left))
            left -= len(leases)
            shown.append(_server(system, cell, leases, at))
            await trio.lowlevel.checkpoint()  # a server holds up to a thousand; requests go first
    return InFlightAnswer(total=sum(each.total for each in shown), in_flight=shown)


@topic.delete(
    "/in-flight/<request>",
    "Cancel a running request, or several if their clients chose the same id. A stream ends with an error record.",
    action="cancel running request",
)
async def cancel(asked: AdminRequest, request: str) -> CancelledAnswer:
    asked.note.about(cancelled=request)
    count = asked.system.orders.cancel_running(request)
    if not count:
        raise NotFound(f"request '{request}' does not run", details="if it waits, DELETE /queue/:id cancels it")
    return CancelledAnswer(id=request, cancelled=count)


def _server(system: System, cell: ServerCell, leases: list[Lease], at: ClockReading) -> BusyServerJson:
    requests = [_request(system, lease, at) for lease in leases]
    return BusyServerJson(
        server_id=cell.state.id,
        server_url=cell.state.spec.url,
        healthy=is_healthy(cell),
        total=len(cell.leases),
        by_model=by_model(cell),
        requests=requests,
        streaming_requests=[each for each in requests if each.streaming],
    )


def _request(system: System, lease: Lease, at: ClockReading) -> RunningJson:
    call, stats = lease.call, lease.stats
    silent = max(0.0, at.now - lease.beat)
    return RunningJson(
        id=call.request_id,
        server_id=lease.pair.server,
        model=call.asked_model or lease.pair.model,
        start_time=at.epoch_ms(lease.started),
        first_byte_time=at.epoch_ms(lease.first_byte),
        last_chunk_time=at.epoch_ms(lease.beat) if lease.chunks else None,
        chunk_count=lease.chunks,
        has_received_first_chunk=lease.first_byte is not None,
        is_stalled=lease.streaming and silent >= _limit(system, lease) / 2,
        silent_for=milliseconds(silent),
        waiting_for=lease.waiting,
        prompt_tokens=stats.prompt_tokens if stats is not None else None,
        output_tokens=stats.output_tokens if stats is not None else None,
        streaming=call.stream,
        protocol=call.dialect.name,
        endpoint=call.endpoint,
        client_id=call.client,
        by=call.by or ANONYMOUS,
        priority=call.priority,
    )


def _limit(system: System, lease: Lease) -> float:
    """Seconds of silence after which a running answer is ended."""
    timeouts = system.config.timeouts
    return timeouts.idle if lease.waiting is WaitingFor.BACKEND else timeouts.write
