"""A crowd of clients in front of one server that refuses at once and others that work: who is answered, who is asked.

`python -m tests.kit.cases.siege` prints the table for every answer in `ROWS`, streamed and unstreamed.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import trio
import trio.testing

from actors.system import open_system
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.config import Config
from fleet.simulator import Profile
from tests.kit.fleets.served import Served, front_end
from tests.kit.fleets.tcp import sim_server
from tests.kit.suite.unlimited import unlimited

MODEL: Final = "llama3:8b"
STEADY: Final = Profile(load_seconds=0.05, slots=4, tokens_per_second=150.0, prefill_per_second=20_000.0)
"""Five tokens take 33 ms: time enough for whoever refuses in one to draw everybody."""
BAD: Final = "bad"
_ROW: Final = {"name": MODEL, "model": MODEL, "size": 1, "digest": "0" * 64, "modified_at": "2026-01-01T00:00:00Z"}
_ASKS: Final[dict[str, dict[str, Any]]] = {
    "/api/chat": {"messages": [{"role": "user", "content": "hello"}], "options": {"num_predict": 5}},
    "/api/generate": {"prompt": "hello", "options": {"num_predict": 5}},
    "/api/embed": {"input": "hello"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5},
    "/v1/responses": {"input": "hello", "max_output_tokens": 5},
    "/v1/messages": {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5},
    "/v1/embeddings": {"input": "hello"},
}
_JSON: Final = "application/json"


def answer(
    status: int, body: bytes | str | dict[str, Any] = b"", kind: str = _JSON, *lines: str, reason: str = "X"
) -> bytes:
    """A whole HTTP answer with its length."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body.encode() if isinstance(body, str) else body
    head = [f"HTTP/1.1 {status} {reason}", f"Content-Type: {kind}", "Connection: close", *lines]
    return "\r\n".join([*head, f"Content-Length: {len(data)}", "", ""]).encode() + data


def said(status: int, text: str, *lines: str) -> bytes:
    """An error in Ollama's own words."""
    return answer(status, {"error": text}, _JSON, *lines)


PAGE: Final = "<!DOCTYPE html><html><body>login please</body></html>"
ELSEWHERE: Final = "Location: http://evil.example/collect"
ROWS: Final[dict[str, bytes]] = {
    "500 memory": said(500, "model requires more system memory (5.3 GiB) than is available (4.4 GiB)"),
    "500 predict EOF": said(500, 'POST predict: Post "http://127.0.0.1:33015/completion": EOF'),
    "500 no slots": said(500, "no slots available after 10 retries"),
    "500 unable to load": said(500, "unable to load model: /root/.ollama/models/blobs/sha256-6a0746a1ec1a"),
    "500 runner stopped": said(500, "model runner has unexpectedly stopped, this may be due to resource limitations"),
    "500 never heard of": said(500, "something nobody has ever listed"),
    "500 html": answer(500, PAGE, "text/html"),
    "501": said(501, "not implemented here"),
    "404 page": answer(404, "404 page not found", "text/plain"),
    "404 html": answer(404, PAGE, "text/html"),
    "401": answer(401, {"error": "unauthorized", "signin_url": "https://ollama.com/connect"}),
    "401 challenge": answer(401, "", "text/plain", 'WWW-Authenticate: Basic realm="x"'),
    "403": said(403, "forbidden"),
    "403 html": answer(403, PAGE, "text/html"),
    "407": answer(407, "", "text/plain", "Proxy-Authenticate: Basic"),
    **{str(code): answer(code, PAGE, "text/html", ELSEWHERE) for code in (300, 301, 302, 303, 307, 308)},
    "302 nowhere": answer(302),
    "304": b"HTTP/1.1 304 X\r\nConnection: close\r\n\r\n",
    "200 html": answer(200, PAGE, "text/html"),
    "200 html as json": answer(200, PAGE),
    "200 empty": answer(200),
    "200 no type, empty": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
    "200 foreign": answer(200, {"foo": 1}),
    "200 list": answer(200, b"[]"),
    "200 null": answer(200, b"null"),
    "200 words": answer(200, "please log in", "text/plain"),
    "200 ok": answer(200, {"status": "ok", "message": "hello"}),
    "200 cut json": answer(200, b'{"model":"llama3:8b","mess'),
    "200 error": said(200, "model runner has unexpectedly stopped"),
    "200 short": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{",
    "204": b"HTTP/1.1 204 X\r\nConnection: close\r\n\r\n",
    "205": answer(205),
    "206": answer(206, b'{"model":"llama3:8b","done":true}', _JSON, "Content-Range: bytes 0-9/99"),
    "400 html": answer(400, PAGE, "text/html"),
    "405": answer(405, "405 method not allowed", "text/plain"),
    "406": answer(406),
    "408": answer(408),
    "411": answer(411, PAGE, "text/html"),
    "413": answer(413, PAGE, "text/html"),
    "413 json": answer(413, {"error": {"message": "too large", "type": "x"}}),
    "418": said(418, "I am a teapot"),
    "421": answer(421),
    "425": answer(425),
    "429": answer(429),
    "431": answer(431),
    "451": answer(451, PAGE, "text/html"),
    "502": answer(502, PAGE, "text/html"),
    "503": answer(503, PAGE, "text/html"),
    "503 busy": said(503, "server busy, please try again.  maximum pending requests exceeded"),
    "504": answer(504, PAGE, "text/html"),
    "511": answer(511, PAGE, "text/html"),
    "520": answer(520, PAGE, "text/html"),
    "530": answer(530, PAGE, "text/html"),
}


class BadServer:
    """Lists the model, answers probes, and says `answer` to everything else after a millisecond.

    `asked` counts requests that are not probes.
    """

    def __init__(self, said: bytes) -> None:
        self.answer = said
        self.asked = 0
        self.version = "0.3.0"
        self.paths: list[str] = []
        self.key: bytes | None = None

    async def serve(self, task_status: trio.TaskStatus[int]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        task_status.started(int(listeners[0].socket.getsockname()[1]))
        await trio.serve_listeners(self._one, listeners)

    async def _one(self, stream: trio.SocketStream) -> None:
        try:
            path = await _path_of(stream)
            await trio.sleep(0.001)
            await stream.send_all(self._say(path))
        except (trio.BrokenResourceError, EOFError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    def _say(self, path: str) -> bytes:
        known: dict[str, dict[str, Any]] = {
            "/api/tags": {"models": [_ROW]},
            "/api/ps": {"models": []},
            "/api/version": {"version": self.version},
        }
        if path in known:
            return answer(200, known[path])
        self.asked += 1
        self.paths.append(path)
        return self.answer


async def _path_of(stream: trio.SocketStream) -> str:
    """Read a whole request; its path. Raises EOFError."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await _some(stream)
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < sum(lengths):
        body += await _some(stream)
    return head.split(b" ", 2)[1].decode()


async def _some(stream: trio.SocketStream) -> bytes:
    if part := await stream.receive_some(65536):
        return bytes(part)
    raise EOFError


@asynccontextmanager
async def besieged(
    bad: BadServer | tuple[BadServer, ...], good: int = 1, *, profile: Profile = STEADY, **config: Any
) -> AsyncIterator[Served]:
    """The whole product: bad servers (`bad`, or `bad0`, `bad1` ...) listed first, and `good` simulated ones."""
    bads = bad if isinstance(bad, tuple) else (bad,)
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        specs = []
        for at, each in enumerate(bads):
            port = await nursery.start(each.serve)
            specs.append({"id": BAD if len(bads) == 1 else f"{BAD}{at}", "url": f"http://127.0.0.1:{port}"})
        sims = {}
        for at in range(good):
            name = f"good{at}"
            sims[name] = await stack.enter_async_context(sim_server(f"{MODEL}:4.7GB", profile, id=name))
            specs.append({"id": name, "url": sims[name].url})
        ports = {"proxy_port": 0, "orchestrator_port": 0, "dashboard_port": 0, "metrics_port": 0}
        full = Config.model_validate({"servers": specs, "server": ports, **unlimited(config)})
        async with open_system(full, seed=1) as system, front_end(full, system, sims) as handle:
            for spec in specs:
                await system.probe(ServerId(spec["id"]), 5.0)
            yield handle


@dataclass
class Tally:
    """How a siege ended. `asked`: requests that reached the bad server; `breaker` its breaker's state."""

    answered: int = 0
    asked: int = 0
    breaker: str = "closed"
    others: dict[str, int] = field(default_factory=dict)


def is_answer(status: int, body: bytes) -> bool:
    """Whether a client has got what it asked for, from a server that works."""
    if status != 200 or b'"error":{' in body or b'"error":"' in body:
        return False
    marks = (b'"done":true', b"embedding", b"[DONE]", b"message_stop", b'"output"', b'"choices"', b'"content"')
    return any(mark in body for mark in marks)


async def siege(
    fleet: Served, bad: BadServer, path: str = "/api/chat", *, stream: bool, clients: int = 12, requests: int = 60
) -> Tally:
    """`clients` ask for `requests` answers altogether, each for the next as soon as it has one."""
    tally = Tally()
    left = iter(range(requests))
    body = {"model": MODEL, "stream": stream, **_ASKS[path]}

    async def one(client: httpx.AsyncClient, numbers: Iterator[int]) -> None:
        for _ in numbers:
            try:
                got = await client.post(path, json=body)
                word = "" if is_answer(got.status_code, got.content) else str(got.status_code)
            except httpx.HTTPError as error:
                word = type(error).__name__
            tally.answered += not word
            if word:
                tally.others[word] = tally.others.get(word, 0) + 1

    async with fleet.client() as client, trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(one, client, left)
    await trio.testing.wait_all_tasks_blocked(0.002)
    tally.asked = bad.asked
    view = fleet.system.breakers.get(Pair(ServerId(BAD), ModelName(MODEL)))
    tally.breaker = "closed" if view is None else view.state.value
    return tally


async def _print() -> None:
    sys.stdout.write(f"{'first server answers':20} {'stream':>20}   {'unstreamed':>20}\n")
    sys.stdout.write(f"{'':20} {'answered asked breaker':>20}   {'answered asked breaker':>20}\n")
    for name, said_ in ROWS.items():
        cells = []
        for stream in (True, False):
            bad = BadServer(said_)
            async with besieged(bad) as fleet:
                tally = await siege(fleet, bad, stream=stream)
            cells.append(f"{tally.answered:>5}/60 {tally.asked:>5} {tally.breaker:>9}")
        sys.stdout.write(f"{name:20} {'   '.join(cells)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    trio.run(_print)
