"""A hot request, understood and handed to the fleet: the same in both lanes, which differ in reading and writing."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from actors.system import System
from fleet.common.errors import BadRequest, ServerNotFound
from fleet.common.ids import RequestId, ServerId
from fleet.common.steps import finished
from fleet.protocol.call import Call, Downstream, Headers
from fleet.protocol.content_encodings import decode_zstd
from fleet.protocol.dialects import NATIVE
from fleet.protocol.endpoints import Endpoint, EndpointKind, Understood, is_compressed, understand, understanding
from fleet.protocol.headers import ForwardedHeaders, forwarded_headers, priority_of
from fleet.protocol.json.go_json import LONG
from fleet.security.api_keys import without_keys
from web.http.errors import CloudDisabled
from web.http.paced_steps import paced
from web.http.per_run import PerRun
from web.ollama_api.fan_out import unload

Work = Callable[[Downstream], Awaitable[None]]
"""Does everything and answers; raises FleetError only before it has started the downstream."""

_EVENTS: Final = b"text/event-stream"
_USUAL: Final = frozenset((b"application/x-ndjson", b"application/json", b"application/*", b"*/*"))
_ACCEPTED: Final = 2048
"""Bytes of what a client accepts that are looked at; a browser says a hundred."""
_decoders: Final = PerRun(partial(trio.CapacityLimiter, 2))

# A quality of nothing: "anything but this".
_ZERO = re.compile(rb"\s*q\s*=\s*0(\.0*)?\s*")


@dataclass(frozen=True, slots=True)
class Hints:
    """What the head of a hot request says about how to serve it."""

    endpoint: Endpoint
    target: str
    headers: Headers
    pinned: ServerId | None
    passing: ForwardedHeaders
    priority: int
    events: bool
    """Whether a native stream is wanted as server-sent events."""


def hints_of(
    endpoint: Endpoint,
    query: bytes,
    headers: Headers,
    pinned: ServerId | None = None,
    is_secret: Callable[[bytes], bool] = lambda data: False,
) -> Hints:
    """Read the head of a request to `endpoint`, or to its variant for one server.

    What `is_secret` is told of goes no further, nor does what is a credential by its name.
    """
    query = without_keys(query, is_secret)
    target = endpoint.path + ("?" + query.decode("ascii") if query else "")
    events = endpoint.dialect is NATIVE and _wants_events(headers)
    return Hints(endpoint, target, headers, pinned, forwarded_headers(headers, is_secret), priority_of(headers), events)


async def work_of(system: System, hints: Hints, body: bytes, request_id: RequestId, client: str, by: str) -> Work:
    """What to do about a request whose body is `body`; `client` and `by` as in `Call`.

    Raises CloudDisabled, ServerNotFound, and TooLarge for a body that is too large once it is decompressed.
    """
    if hints.pinned is not None and hints.pinned not in system.servers:
        raise ServerNotFound(f"no server is called {hints.pinned[:100]}")
    endpoint, headers = hints.endpoint, hints.headers
    if len(body) <= LONG and not is_compressed(endpoint, headers):
        seen = understand(endpoint, body, headers)
    else:
        seen = await _understood_slowly(endpoint, body, headers, system.config.limits.decoded_bytes)
    call = Call(
        request_id=request_id,
        dialect=endpoint.dialect,
        method="POST",
        target=hints.target,
        headers=headers,
        body=body,
        endpoint=endpoint.path,
        model=seen.model,
        asked_model=seen.asked_model,
        stream=seen.stream,
        sse=seen.stream and hints.events,
        embedding=seen.embedding,
        priority=hints.priority,
        pinned=hints.pinned,
        client=client,
        by=by,
        runs=endpoint.kind is not EndpointKind.SHOW,
        passing=hints.passing,
        runner=seen.runner,
        unloads=seen.unloads,
    )
    if hints.pinned is None:
        if seen.cloud and not system.queries.known(seen.model):
            raise CloudDisabled
        if seen.is_unload and (holders := system.queries.reachable_holders(seen.model)):
            return partial(unload, system, holders, call)
    return partial(system.exchange, call)


async def _understood_slowly(endpoint: Endpoint, body: bytes, headers: Headers, limit: int) -> Understood:
    """A long body is looked at between the turns of others."""
    plain = await _decompressed(body, limit) if is_compressed(endpoint, headers) else body
    return await paced(understanding(endpoint, plain, headers))


async def _decompressed(body: bytes, limit: int) -> bytes | bytearray:
    """The JSON text; empty if there is none. In a thread if the body is long: all of it may be empty frames."""
    steps = decode_zstd(body, limit)
    try:
        if len(body) <= LONG:
            return await paced(steps)
        return await trio.to_thread.run_sync(finished, steps, limiter=_decoders.get())
    except BadRequest:
        return b""


def _wants_events(headers: Headers) -> bool:
    """Native streams are NDJSON unless the client asks for server-sent events and takes nothing that is usual.

    MCP clients and browsers name both, and read NDJSON as Ollama sends it.
    """
    accepted = b",".join(value for name, value in headers if name == b"accept")[:_ACCEPTED].lower()
    parted = [each.split(b";") for each in accepted.split(b",")]
    wanted = {kind.strip() for kind, *parameters in parted if not any(map(_ZERO.fullmatch, parameters))}
    return _EVENTS in wanted and wanted.isdisjoint(_USUAL)
