"""Requests that run right now. Never a prompt, never an answer."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import trio

from actors.state.lease import WaitingFor
from fleet.common.errors import NotFound
from fleet.common.times import milliseconds
from fleet.security.roles import ANONYMOUS
from web.admin.kit.parameters import Param
from web.admin.kit.routes import AdminRequest, RouteGroup
from web.admin.kit.schemas import EPOCH_MS, Maybe, OneOf, Said
from web.admin.requests.queue import BY, BY_MODEL, by_model
from web.http.units import epoch_ms, is_healthy

if TYPE_CHECKING:
    from actors.state.lease import Lease
    from actors.state.servers import ServerCell
    from actors.system import System

topic = RouteGroup("inflight", "Requests that run right now.")

REQUEST: Final = {
    "id": str,
    "serverId": str,
    "model": Said(str, "in the client's own spelling"),
    "startTime": EPOCH_MS,
    "firstByteTime": Maybe(EPOCH_MS),
    "lastChunkTime": Maybe(EPOCH_MS),
    "chunkCount": int,
    "hasReceivedFirstChunk": bool,
    "isStalled": Said(bool, "silent for half the time after which it would be ended"),
    "silentFor": Said(int, "milliseconds since anything moved"),
    "waitingFor": OneOf(("backend", "client", "head")),
    "promptTokens": Maybe(Said(int, "as far as the answer has told; most tell it at their end")),
    "outputTokens": Maybe(int),
    "streaming": bool,
    "protocol": str,
    "endpoint": str,
    "clientId": Said(str, "the client's address"),
    "by": BY,
    "priority": int,
    "handoffCount": int,
}
SERVER: Final = {
    "serverId": str,
    "serverUrl": str,
    "healthy": bool,
    "total": int,
    "byModel": BY_MODEL,
    "requests": [REQUEST],
    "streamingRequests": [REQUEST],
}


@topic.get(
    "/in-flight",
    "Open requests by server; never a prompt or a word of an answer.",
    query=(Param("limit", int, 1000, "requests listed; all are counted", least=1, most=10_000),),
    returns={"success": bool, "total": int, "inFlight": [SERVER]},
    seed=True,
)
async def in_flight(asked: AdminRequest) -> dict[str, Any]:
    system, left = asked.system, asked.query["limit"]
    shown = []
    for cell in list(system.servers.values()):
        if cell.leases:
            leases = list(islice(cell.leases.values(), left))
            left -= len(leases)
            shown.append(_server(system, cell, leases))
            await trio.lowlevel.checkpoint()  # a server holds up to a thousand; requests go first
    return {"success": True, "total": sum(each["total"] for each in shown), "inFlight": shown}


@topic.delete(
    "/in-flight/<request>",
    "Cancel a running request, or several if their clients chose the same id. A stream ends with an error record.",
    action="cancel running request",
    returns={"success": bool, "id": str, "cancelled": int},
)
async def cancel(asked: AdminRequest, request: str) -> dict[str, Any]:
    asked.note.about(cancelled=request)
    count = asked.system.orders.cancel_running(request)
    if not count:
        raise NotFound(f"request '{request}' does not run", details="if it waits, DELETE /queue/:id cancels it")
    return {"success": True, "id": request, "cancelled": count}


def _server(system: System, cell: ServerCell, leases: list[Lease]) -> dict[str, Any]:
    requests = [_request(system, lease) for lease in leases]
    return {
        "serverId": cell.state.id,
        "serverUrl": cell.state.spec.url,
        "healthy": is_healthy(cell),
        "total": len(cell.leases),
        "byModel": by_model(cell),
        "requests": requests,
        "streamingRequests": [each for each in requests if each["streaming"]],
    }


def _request(system: System, lease: Lease) -> dict[str, Any]:
    call, stats = lease.call, lease.stats
    silent = max(0.0, system.clock.now() - lease.beat)
    return {
        "id": call.request_id,
        "serverId": lease.pair.server,
        "model": call.asked_model or lease.pair.model,
        "startTime": epoch_ms(lease.started),
        "firstByteTime": epoch_ms(lease.first_byte),
        "lastChunkTime": epoch_ms(lease.beat) if lease.chunks else None,
        "chunkCount": lease.chunks,
        "hasReceivedFirstChunk": lease.first_byte is not None,
        "isStalled": lease.streaming and silent >= _limit(system, lease) / 2,
        "silentFor": milliseconds(silent),
        "waitingFor": lease.waiting.value,
        "promptTokens": stats.prompt_tokens if stats is not None else None,
        "outputTokens": stats.output_tokens if stats is not None else None,
        "streaming": call.stream,
        "protocol": call.dialect.name,
        "endpoint": call.endpoint,
        "clientId": call.client,
        "by": call.by or ANONYMOUS,
        "priority": call.priority,
        "handoffCount": 0,
    }


def _limit(system: System, lease: Lease) -> float:
    """Seconds of silence after which a running answer is ended."""
    timeouts = system.config.timeouts
    return timeouts.idle if lease.waiting is WaitingFor.BACKEND else timeouts.write
