"""What the end-to-end tests share: raw requests over sockets, every inference route, phases of a simulated answer."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
import trio

from fleet.simulator import Stage
from tests.kit.clients.lanes import EDGE, QUART
from tests.kit.clients.lanes import connect as connect
from tests.kit.clients.raw import parse, read_all, request_bytes
from tests.kit.fleets.served import Served
from web.simulator.engine.host import SeenRequest, SimHost

PROXY, ORCHESTRATOR = (lambda fleet: fleet.url), (lambda fleet: fleet.orchestrator_url)
every_door = pytest.mark.parametrize(
    ("lane", "port"),
    [(EDGE, PROXY), (EDGE, ORCHESTRATOR), (QUART, PROXY)],
    indirect=["lane"],
    ids=["proxy", "orchestrator", "quart"],
)
"""A test of all ways in: both ports of the edge, and the app behind them."""

MODELS = "llama3:8b:4.7GB,tiny:latest:1GB,nomic-embed-text:latest:274MB,whisper:latest:1GB"
CHAT = "llama3:8b"
EMBED = "nomic-embed-text"
TURN = [{"role": "user", "content": "Why is the sky blue?"}]
BOUNDARY = "----fleetboundary"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response. `raw` is everything that came, head included."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        """The records of an NDJSON body."""
        return [json.loads(line) for line in self.body.splitlines()]

    @property
    def text(self) -> str:
        return self.body.decode()


async def ask(
    url: str, method: str, path: str, body: object = None, *headers: str, version: str = "1.1", within: float = 60.0
) -> Answer:
    """One request on a connection of its own; the whole answer."""
    with trio.fail_after(within):
        async with await connect(url) as stream:
            await stream.send_all(request_bytes(method, path, body, "Connection: close", *headers, version=version))
            raw = await read_all(stream)
    return understood(raw)


def understood(raw: bytes) -> Answer:
    return Answer(*parse(raw), raw)


def ended_cleanly(raw: bytes) -> bool:
    """Whether a client can believe that it has the whole answer."""
    head, _, body = raw.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return len(body) >= int(value)
        if name == b"transfer-encoding":
            return body.endswith(b"0\r\n\r\n")
    return True


async def read_to_the_end(stream: trio.SocketStream) -> bytes:
    """Everything that comes, whatever way it ends."""
    parts: list[bytes] = []
    try:
        while part := await stream.receive_some(65536):
            parts.append(bytes(part))
    except trio.BrokenResourceError:
        pass
    return b"".join(parts)


def is_whole(raw: bytes) -> bool:
    """Whether a first answer has come completely, by its own framing."""
    head, mark, body = raw.partition(b"\r\n\r\n")
    if not mark:
        return False
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    return len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n")


async def first_answer(stream: trio.SocketStream, within: float = 20.0) -> Answer:
    """The next answer on a connection that stays open."""
    raw = b""
    with trio.fail_after(within):
        while not is_whole(raw):
            part = await stream.receive_some(65536)
            assert part, raw
            raw += part
    return understood(raw)


async def until(condition: Callable[[], object], within: float = 20.0, *, every: float = 0.001) -> None:
    """Wait until something has become true; fails when that takes longer."""
    with trio.fail_after(within):
        while not condition():
            await trio.sleep(every)


def form(model: str = "whisper", audio: bytes = b"RIFF simulated") -> bytes:
    """A multipart form with the model behind the file."""
    mark = BOUNDARY.encode()
    return (
        b"--" + mark + b'\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        b"Content-Type: audio/wav\r\n\r\n" + audio + b"\r\n--" + mark
        + b'\r\nContent-Disposition: form-data; name="model"\r\n\r\n' + model.encode() + b"\r\n--" + mark + b"--\r\n"
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Route:
    """One inference route. `fields` is its request without `stream`; None: a multipart form."""

    path: str
    fields: dict[str, Any] | None
    streams: bool = False
    decodes: bool = True

    @property
    def plain_path(self) -> str:
        """The path without server and query, as the simulator records it."""
        return self.path.partition("?")[0].partition("--")[0]

    def request(self, *, stream: bool = False, method: str = "POST") -> bytes:
        if self.fields is None:
            return request_bytes(method, self.path, form(), f"Content-Type: multipart/form-data; boundary={BOUNDARY}")
        body = {**self.fields, "stream": stream} if self.streams else self.fields
        return request_bytes(method, self.path, body, "Content-Type: application/json")

    def __str__(self) -> str:
        return self.path


_GENERATE = {"model": CHAT, "prompt": "Why is the sky blue?"}
_CHAT = {"model": CHAT, "messages": TURN}

ROUTES = (
    Route("/api/generate", _GENERATE, streams=True),
    Route("/api/chat", _CHAT, streams=True),
    Route("/api/embed", {"model": EMBED, "input": "some text to embed"}, decodes=False),
    Route("/api/embeddings", {"model": EMBED, "prompt": "some text to embed"}, decodes=False),
    Route("/v1/chat/completions", _CHAT, streams=True),
    Route("/v1/completions", _GENERATE, streams=True),
    Route("/v1/embeddings", {"model": EMBED, "input": "some text to embed"}, decodes=False),
    Route("/v1/responses", {"model": CHAT, "input": "Why is the sky blue?"}, streams=True),
    Route("/v1/messages?beta=true", {**_CHAT, "max_tokens": 100}, streams=True),
    Route("/v1/audio/transcriptions", None),
    Route("/api/generate--a", _GENERATE, streams=True),
    Route("/api/chat--a", _CHAT, streams=True),
    Route("/api/embeddings--a", {"model": EMBED, "prompt": "some text to embed"}, decodes=False),
    Route("/v1/chat/completions--a", _CHAT, streams=True),
    Route("/v1/completions--a", _GENERATE, streams=True),
    Route("/v1/embeddings--a", {"model": EMBED, "input": "some text to embed"}, decodes=False),
)
SHOW = Route("/api/show", {"model": CHAT}, decodes=False)


def stages(host: SimHost) -> set[Stage]:
    """What the jobs of a simulated server are at."""
    found = {job.stage for runner in host.server.runners.values() for job in runner.active}
    return found | ({Stage.LOADING} if host.server.loading is not None else set())


def inference_seen(host: SimHost) -> list[SeenRequest]:
    """Requests for work that a simulated server was asked for, health checks left out."""
    return [seen for seen in host.requests if seen.method == "POST" and not seen.path.startswith("/sim/")]


def is_idle(fleet: Served) -> bool:
    """No lease, no ticket, and no simulated server answers anything."""
    busy = any(sim.host.active_requests for sim in fleet.sims.values())
    return not (fleet.system.in_flight or fleet.system.scheduler.tickets or busy)


def descriptors() -> int:
    """Open file descriptors of this process."""
    gc.collect()
    return int(psutil.Process().num_fds())


def rss_kib() -> int:
    """Resident memory of this process."""
    gc.collect()
    return int(psutil.Process().memory_info().rss) // 1024


def events(body: bytes) -> Iterator[tuple[str, str]]:
    """Name and data of each server-sent event."""
    for block in body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if fields:
            yield fields.get("event", ""), fields.get("data", "")
