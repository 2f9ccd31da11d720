"""One pull on several servers, told to the client as if it were one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson
import trio

from actors.system import System
from fleet.common.errors import FleetError
from fleet.common.ids import ServerId
from fleet.models.pull_progress import MergedPull
from fleet.protocol.call import Call, Downstream, Headers
from web.ollama_api.read_your_writes import held

Row = dict[str, object]

_NDJSON: Final = ((b"content-type", b"application/x-ndjson"),)
_AHEAD: Final = 16
LONGEST: Final = 2**20
"""Bytes of a body that are read whole; of a longer one only the model counts."""


async def pull(system: System, servers: Sequence[ServerId], asked: str, call: Call, down: Downstream) -> None:
    """Pull on all servers at once; the client leaving cancels them all (partial blobs are resumed next time).

    One server's answer is passed through as it is. The end waits until the fleet knows the model.
    """
    with held(system, servers, down) as last:
        if len(servers) == 1:
            await system.relay_to(servers[0], call, last)
        else:
            await _merged(system, servers, _wanted(call, asked), call, last)


def _wanted(call: Call, asked: str) -> Row:
    """The client's own body (`insecure` and whatever else it says), except for `stream`, which is ours to choose."""
    try:
        body = call.body if isinstance(call.body, bytes) else b""
        given = orjson.loads(body if len(body) <= LONGEST else b"")
    except orjson.JSONDecodeError:  # Ollama reads more than JSON: rubbish behind the object, for example
        given = {"model": asked}
    # Ollama ignores case in keys, and the last of several wins.
    return {key: value for key, value in given.items() if key.casefold() != "stream"}


async def _merged(system: System, servers: Sequence[ServerId], wanted: Row, call: Call, down: Downstream) -> None:
    system.check_open()
    merged = MergedPull(servers)
    if call.stream:
        await down.start(200, [*_NDJSON, _all_of(servers)])
    sink, source = trio.open_memory_channel[tuple["ServerId", Row | None]](_AHEAD)
    async with trio.open_nursery() as nursery:
        async with sink:
            for server in servers:
                nursery.start_soon(_one, system, server, wanted, sink.clone())
        async for server, record in source:
            for line in merged.take(server, record):
                if call.stream:
                    await down.write(orjson.dumps(line) + b"\n")
    await _close(merged, _all_of(servers), call, down)


def _all_of(servers: Sequence[ServerId]) -> tuple[bytes, bytes]:
    return b"x-fleet-server", ",".join(servers).encode()


async def _close(merged: MergedPull, who: tuple[bytes, bytes], call: Call, down: Downstream) -> None:
    last = orjson.dumps(merged.last())
    if not call.stream:
        length = (b"content-length", b"%d" % len(last))
        headers: Headers = [(b"content-type", b"application/json"), length, who]
        await down.start(200 if merged.succeeded else 500, headers)
    await down.write(last + b"\n" if call.stream else last)
    await down.finish()


async def _one(
    system: System, server: ServerId, wanted: Row, sink: trio.MemorySendChannel[tuple[ServerId, Row | None]]
) -> None:
    """Pull on one server; its records, an error record if it breaks, and None at the end."""
    async with sink:
        try:
            with system.watched(server) as running:
                async with system.pulling(server, wanted) as records:
                    async for record in records:
                        running.alive()
                        await sink.send((server, record))
        except FleetError as error:
            await sink.send((server, {"error": error.message}))
        await sink.send((server, None))
