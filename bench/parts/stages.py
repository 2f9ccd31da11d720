"""What costs what: a short answer through the whole fast lane, measured again with one stage after the other left out.

`python -m bench.parts.stages`. No sockets and no waiting: links that always have bytes stand in for both sides, so what
is measured is our own code and nothing of the kernel's or of the event loop's. Microseconds, the best of many short
runs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import trio

import web.edge.inference_lane
from actors.parts import TcpBackends
from actors.requests.exchange import Exchange
from actors.requests.relay import Passage
from actors.state.lease import Lease
from actors.system import open_system
from actors.upstream.connection import Link
from actors.upstream.control_client import OllamaClient
from actors.upstream.pool import BackendAddress, Pool
from bench.processes import say
from bench.scenarios import REQUESTS
from fleet.breakers.outcomes import Completed
from fleet.common.ids import ServerId
from fleet.config import Config, ServerSpec
from fleet.protocol.call import Downstream, Headers
from web.edge.acceptor import Edge
from web.edge.connection import Connection
from web.edge.request_reader import Intake
from web.http.body_limits import BodyTerms
from web.ollama_api.inference_call import Work
from web.process.private_listener import Inner
from web.security.request_gate import RequestGate

REQUEST = REQUESTS["short"].wire()
BODY = b'{"model":"m0","message":{"role":"assistant","content":"%b"},"done":true,"eval_count":150,"eval_duration":9}'
ANSWER = BODY % (b"Machine learning finds patterns in data. " * 5)
FIELDS = [
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(ANSWER)),
    (b"x-request-id", b"1" * 16),
]
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER
RUNS, PER_RUN = 60, 100
DONE = Completed(200)


class EndlessLink:
    """Always has the same bytes, so many times; takes everything."""

    def __init__(self, data: bytes, times: float) -> None:
        self._data = data
        self._left = times

    async def receive(self) -> bytes:
        self._left -= 1
        return self._data if self._left >= 0 else b""

    async def send_first(self, data: bytes) -> int:
        return len(data)

    async def send_all(self, data: bytes | memoryview) -> None: ...

    def stale(self) -> bool:
        return False

    def abort(self) -> None: ...


class EndlessPool(Pool):
    """Every connection answers at once."""

    async def _connect(self) -> Link:
        return EndlessLink(RESPONSE, float("inf"))


class Control:
    """The control plane of a server that is always well."""

    async def tags(self, limit: float) -> list[dict[str, object]]:
        return [{"name": "m0:latest", "model": "m0:latest"}]

    async def ps(self, limit: float) -> list[dict[str, object]]:
        return []

    async def version(self, limit: float) -> str:
        return "0.0.0"

    async def aclose(self) -> None: ...


class Backends(TcpBackends):
    """A server that needs no server."""

    def pool(self, spec: ServerSpec, on_connect: Callable[[], None]) -> Pool:
        return EndlessPool(BackendAddress.parse(spec.url), clock=trio.lowlevel.current_clock().current_time)

    def client(self, spec: ServerSpec, on_connect: Callable[[], None]) -> OllamaClient:
        return cast(OllamaClient, Control())


async def serve(edge: Edge, times: int) -> None:
    """So many requests on one connection."""
    link = EndlessLink(REQUEST, times)
    connection = Connection(edge, cast(Any, None), "127.0.0.1")
    intake = Intake(link, edge.heads, 65_536, 30.0)
    while (got := await intake.head()) is not None:
        await connection._one(cast(Any, link), intake, *got)


# ---- leaving out


class Canned:
    """An answer that has come already."""

    status, length, raw, complete, done = 200, len(ANSWER), b"", True, True
    passing = (FIELDS[0],)
    head = SimpleNamespace(media=b"application/json", encoded=False)

    async def receive(self) -> bytes:
        return ANSWER

    def release(self) -> None: ...

    def abort(self) -> None: ...


async def _open(exchange: Exchange, lease: Lease) -> Canned:
    return Canned()


async def _pass(passage: Passage, response: Canned, extra: Headers, may_keep: object) -> None:
    passage.lease.close(DONE)
    await passage._answer.start(cast(Any, response), extra)
    await passage._answer.end_with(ANSWER)


async def _close_only(passage: Passage, response: Canned, extra: Headers, may_keep: object) -> None:
    passage.lease.close(DONE)
    passage._answer.started = True


async def _answered(exchange: Exchange) -> None:
    await _fixed(exchange._answer._down)


async def _fixed(down: Downstream) -> None:
    await down.start(200, FIELDS)
    await down.finish(ANSWER)


async def _silent(down: Downstream) -> None: ...


async def _fixed_work(*call: object) -> Work:
    return _fixed


async def _silent_work(*call: object) -> Work:
    return _silent


NO_FACE = SimpleNamespace(PROXY=None)  # so that no request comes in by the port that has a limit

STEPS: tuple[tuple[str, object, str, object], ...] = (
    ("rate limit: count, and say so on the answer", web.edge.inference_lane, "Face", NO_FACE),
    ("connection to the server: write and read heads, pool", Exchange, "_open", _open),
    ("hold, tap (tokens, statistics), judgement", Passage, "run", _pass),
    ("answer: choose and write fields, frame, send", Passage, "run", _close_only),
    ("record for history and log", Exchange, "_note", lambda *_: None),
    ("exchange: queue, choice, lease, release, breaker", Exchange, "run", _answered),
    ("understand the body: model, stream, options", web.edge.inference_lane, "work_of", _fixed_work),
    ("a fixed answer, written", web.edge.inference_lane, "work_of", _silent_work),
)
"""What a stage is, and what takes its place when it is left out; each step on top of those before."""


async def once(edge: Edge) -> float:
    """Microseconds per request, the best of many short runs: whatever else the machine does only ever adds."""
    await serve(edge, PER_RUN)
    best = float("inf")
    for _ in range(RUNS):
        began = time.thread_time_ns()
        await serve(edge, PER_RUN)
        best = min(best, (time.thread_time_ns() - began) / PER_RUN / 1000)
        await trio.lowlevel.checkpoint()
    return best


async def main() -> None:
    async with trio.open_nursery() as nursery:
        servers = [{"id": "a", "url": "http://127.0.0.1:1", "max_concurrency": 100}]
        config = Config.model_validate({"servers": servers, "monitoring": {"rate_limit_per_minute": 1_000_000}})
        async with open_system(config, backends=Backends()) as system:
            await system.probe(ServerId("a"), 5.0)
            logging.getLogger("fleet.request").setLevel(logging.WARNING)  # as a busy fleet would be run
            edge = Edge(system, RequestGate(system), cast(Inner, SimpleNamespace(path="")), BodyTerms(), None)
            await report(edge)
        nursery.cancel_scope.cancel()


async def report(edge: Edge) -> None:
    whole = before = await once(edge)
    for name, owner, attribute, instead in STEPS:
        setattr(owner, attribute, instead)
        now = await once(edge)
        say(f"{name:60} {before - now:6.1f} us")
        before = now
    say(f"{'read the request, judge its head, know its body':60} {before:6.1f} us")
    say(f"{'all of it':60} {whole:6.1f} us")


if __name__ == "__main__":
    trio.run(main)
