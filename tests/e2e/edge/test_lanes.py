"""The same bytes into both lanes, and the same answer out of them: status, fields, body, and what a server saw of it.

One backend with fixed answers. What cannot be equal is made so: the date, request ids and time stamps that nobody sent,
how long a request queued. One difference is allowed: the edge keeps the connection of an HTTP/1.0 client that asks for
it, Hypercorn never does. What is not HTTP at all is not here: the edge refuses that before it chooses a lane.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest
import trio
import zstandard

from fleet.protocol.endpoints import ENDPOINTS, PINNABLE
from tests.e2e.raw_upstream import RawUpstream, in_front_of_raw
from tests.e2e.support import BOUNDARY, form
from tests.kit.clients.lanes import LANES, connect
from tests.kit.clients.raw import chunks, request_bytes
from tests.kit.fleets.served import Served
from tests.web.edge.raw import lingering

MULTIPART = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
ID = "X-Request-Id: mine"
OLLAMA = "User-Agent: ollama/0.33.0 (amd64 linux) Go/go1.26"
KEY = "correct-horse-battery"

VARYING: Final = {"date", "x-fleet-queue-ms"}
"""Fields that must be there on both lanes, with any value."""


@dataclass(frozen=True)
class Ask:
    """One request, as it goes over the wire. `bare`: without the request id that all others have."""

    what: str
    raw: bytes
    bare: bool = False

    @property
    def path(self) -> str:
        return self.raw.split(b" ", 2)[1].decode("latin-1")

    @property
    def may_stay(self) -> bool:
        """Whether this is the one difference that is allowed."""
        return b"HTTP/1.0\r\n" in self.raw and b"keep-alive" in self.raw


def ask(method: str, path: str, body: object = None, *fields: str, version: str = "1.1", bare: bool = False) -> Ask:
    raw = request_bytes(method, path, body, *(() if bare else (ID,)), *fields, version=version)
    return Ask(f"{method} {path} {body!r:.60} {fields} {version}", raw, bare)


def body_for(path: str, **fields: Any) -> tuple[object, tuple[str, ...]]:
    """A body that asks this path for the model that there is, or another one; and the fields it needs."""
    model = fields.pop("model", "m")
    if ENDPOINTS[path].multipart:
        return form(model), (MULTIPART,)
    return {"model": model, "messages": [{"role": "user", "content": "x"}], "prompt": "x", "input": "x", **fields}, ()


def everywhere(*more: str, bare: bool = False, **fields: Any) -> list[Ask]:
    """A request to each hot route, and to each for one server alone."""
    asked = []
    for path in ENDPOINTS:
        body, needed = body_for(path, **fields)
        asked.append(ask("POST", path, body, *needed, *more, bare=bare))
        if path in PINNABLE:
            asked.append(ask("POST", f"{path}--raw", body, *needed, *more, bare=bare))
    return asked


CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
CHATS = ("/api/chat", "/v1/chat/completions", "/v1/messages")
UNLOAD = {"model": "m", "keep_alive": 0}
SOCKET_KEY = f"Sec-WebSocket-Key: {'A' * 22}=="
HANDSHAKE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", SOCKET_KEY)
PREFLIGHT = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type")
CHUNKED = b"5\r\n" + b'{"mod' + b"\r\n7;x=y\r\n" + b'el":"m"' + b"\r\n1\r\n}\r\n0\r\nX-Trailer: x\r\n\r\n"

BROKEN: list[object] = [None, b"{", b"[]", b'"x"', b"\xff", {}]

INFERENCE = [*everywhere(stream=False), *everywhere(stream=True), *everywhere(), *everywhere(bare=True)]
UNUSUAL = [
    *everywhere(model="nope"),
    *everywhere(OLLAMA, model="nope"),
    *everywhere(model="x:cloud"),
    *everywhere(model="../x"),
    *(ask("POST", path, body, OLLAMA) for path in ENDPOINTS for body in BROKEN),
    *(ask("POST", f"{path}--{server}", CHAT) for path in PINNABLE for server in ("nobody", "", "r%61w", "raw/")),
    *(ask("POST", f"{path}--raw", CHAT) for path in ENDPOINTS if path not in PINNABLE),
    *(ask("POST", "/api/chat", CHAT, f"Accept: {kind}") for kind in ("text/event-stream", "*/*", "application/json")),
    *(ask("POST", path, CHAT, f"X-Priority: {value}") for path in CHATS for value in ("3", "-1", "abc", "", "9" * 30)),
    *(ask("POST", "/api/chat", CHAT, f"X-Request-Id: {value}", bare=True) for value in ("a b", "", "x" * 200, "mine")),
    *(ask("POST", "/api/generate", {**UNLOAD, **more}) for more in ({}, {"prompt": ""}, {"stream": True})),
    ask("POST", "/api/generate", UNLOAD, bare=True),
    ask("POST", "/api/chat", {**UNLOAD, "messages": []}),
    ask("POST", "/api/generate--raw", UNLOAD),
    ask("POST", "/v1/responses", zstandard.compress(json.dumps(CHAT).encode()), "Content-Encoding: zstd"),
    ask("POST", "/v1/responses", b"no zstd", "Content-Encoding: zstd"),
    ask("POST", "/api/chat", CHAT, "Connection: X-Hop", "X-Hop: secret", "X-Kept: yes", "X-Empty:"),
    ask("POST", "/api/chat", CHAT, "Cookie: a", "Authorization: Bearer x", "Via: x", "X-Forwarded-For: 1.2.3.4"),
    ask("POST", "/api/chat", CHAT, "X-Fleet-Peer: 6.6.6.6", "X-Fleet-Server: x"),
    ask("POST", "/api/chat", CHAT, "Connection: close"),
    ask("POST", "/api/chat?x=%2F&y", CHAT),
    Ask("chunked", request_bytes("POST", "/api/chat", None, ID, "Transfer-Encoding: chunked") + CHUNKED),
    Ask("http url", request_bytes("POST", "http://localhost/api/chat", CHAT, ID)),
]
PAGES = [
    *(ask(method, path) for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS") for path in ENDPOINTS),
    *(ask(method, path) for method in ("GET", "HEAD", "POST") for path in (
        "/", "/api/tags", "/api/version", "/api/ps", "/api/status", "/v1/models", "/v1/models/m", "/v1/models/nope",
        "/nowhere", "/api/chat/", "//api/chat", "/api//chat", "/API/chat", "/api/ch%61t", "/api/%ff", "/?x=y",
        "/api/orchestrator/servers", "/api/orchestrator/nowhere", "/health/live", "/api/tags/?x=y",
    )),
    *(ask("POST", path, {"model": "m"}) for path in ("/api/pull/", "/api/me", "/api/signout", "/api/delete")),
    ask("POST", "/api/copy", {"source": "nope", "destination": "x"}),
    ask("DELETE", "/api/delete", {"model": "nope"}, OLLAMA),
    ask("POST", "/api/push", {"model": "m"}),
    ask("HEAD", "/api/blobs/sha256:" + "0" * 64),
    ask("POST", "/api/blobs/sha256:" + "0" * 64, b"x" * 100_000),
    ask("OPTIONS", "*"),
    ask("GET", "*"),
    ask("GET", "ftp://localhost/"),
    ask("GET", "/nowhere", None, *HANDSHAKE),
    ask("GET", "/api/chat", None, *HANDSHAKE),
    *(ask("GET", path, None, *fields, version="1.0") for path in ("/", "/api/tags", "/nowhere", "/api/chat")
      for fields in ((), ("Connection: keep-alive",))),
    *(ask("POST", "/api/chat", {**CHAT, "stream": stream}, *fields, version="1.0") for stream in (True, False)
      for fields in ((), ("Connection: keep-alive",))),
    Ask("no host in 1.0", b"GET /api/tags HTTP/1.0\r\nX-Request-Id: mine\r\n\r\n"),
]  # fmt: skip
ORIGINS = [
    ask(method, path, CHAT if method == "POST" else None, f"Origin: {origin}", *fields)
    for method, fields in (("GET", ()), ("POST", ()), ("OPTIONS", PREFLIGHT), ("OPTIONS", ()))
    for path in (*CHATS, "/api/chat--raw", "/api/tags", "/nowhere", "/api/orchestrator/servers")
    for origin in ("http://localhost:3", "https://chat.example", "https://evil.example", "null", "http://localhost", "")
]
KEYS = [
    ask(method, path, CHAT if method == "POST" else None, *fields)
    for method in ("GET", "POST", "OPTIONS")
    for path in (*CHATS, "/api/chat--raw", "/", "/api/tags", "/v1/models", "/health/live", "/api/orchestrator/servers")
    for fields in ((), (f"Authorization: Bearer {KEY}",), (f"X-Api-Key: {KEY}",), ("X-Api-Key: no",), (OLLAMA,))
]
HOSTS = [
    Ask(f"{path} as {host!r}", request_bytes("POST", path, CHAT, ID).replace(b"Host: localhost", b"Host: " + host))
    for path in (*CHATS, "/api/tags")
    for host in (b"evil.example", b"nas.local:1", b"[::1]:11435", b"127.0.0.1", b"a b", b"", b"\xfc", b"x..y")
]
LIMITS = [
    *(ask("POST", path, b"x" * 2000, *fields) for path in (*CHATS, "/api/pull") for fields in ((), (OLLAMA,))),
    Ask(
        "pieces", request_bytes("POST", "/api/chat", None, ID, "Transfer-Encoding: chunked") + b"7d0\r\n" + b"x" * 2000
    ),
    Ask("announced", request_bytes("POST", "/api/chat", None, ID, "Content-Length: 9999999999")),
    Ask("expected", request_bytes("POST", "/v1/messages", None, ID, "Content-Length: 9999", "Expect: 100-continue")),
]
TROUBLED = [each for stream in (True, False) for each in everywhere(stream=stream)] + everywhere(OLLAMA, stream=True)

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n"
_JSON = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nX-Odd: kept\r\nContent-Length: %d\r\n\r\n%s"
_ANY = (
    b'{"model":"m","message":{"role":"assistant","content":"a"},"response":"a","embeddings":[],"embedding":[],'
    b'"choices":[],"data":[],"output":[],"content":[],"text":"a","details":{},"done":%b}'
)
"""An answer of every endpoint, or a record of one."""
Script = Callable[[str], list[bytes]]
"""From the path that was asked to the pieces of the answer."""


def _json(status: bytes, body: bytes) -> Script:
    return lambda path: [_JSON % (status, len(body), body)]


def _raw(*pieces: bytes) -> Script:
    return lambda path: list(pieces)


def _beginning(path: str) -> list[bytes]:
    """The head and the first record of what streams there."""
    native = "/api/" in path
    record = _ANY % b"false" + b"\n" if native else b"data: " + _ANY % b"false" + b"\n\n"
    return [
        _HEAD % (b"application/x-ndjson" if native else b"text/event-stream"),
        b"%x\r\n%b\r\n" % (len(record), record),
    ]


def _streamed(path: str) -> list[bytes]:
    end = _ANY % b"true" + b"\n" if "/api/" in path else b"data: [DONE]\n\n"
    return [*_beginning(path), b"%x\r\n%b\r\n0\r\n\r\n" % (len(end), end)]


def paused(fleet: Served) -> None:
    fleet.system.pause(True)


def draining(fleet: Served) -> None:
    fleet.system.drain()


def nothing(fleet: Served) -> None:
    pass


Scene = tuple[str, str, list[Ask], dict[str, Any], Script, Callable[[Served], None]]
CORS = {"cors": {"origins": ["https://chat.example"]}}
NO_BREAKER = {"enable_circuit_breaker": False}
PLAIN = _json(b"200 OK", _ANY % b"true")
SCENES: list[Scene] = [
    # name, the statuses that it must bring about, requests, configuration, what the server answers, trouble
    ("inference", "200", INFERENCE, {}, PLAIN, nothing),
    ("streams", "200", INFERENCE, {}, _streamed, nothing),
    ("unusual", "200 403 404", UNUSUAL, {}, _streamed, nothing),
    ("pages", "200 301 307 400 403 404 405", PAGES, {}, PLAIN, nothing),
    ("origins", "200 204 403 404 405", ORIGINS, CORS, PLAIN, nothing),
    ("keys", "200 401 403 405", KEYS, {"security": {"api_keys": [KEY]}}, PLAIN, nothing),
    ("hosts", "200 403 405", HOSTS, {}, PLAIN, nothing),
    ("limits", "413", LIMITS, {"limits": {"body_bytes": 1024}}, PLAIN, nothing),
    ("refused", "409", TROUBLED, NO_BREAKER, _json(b"409 Conflict", b'{"error":"slow down"}'), nothing),
    ("odd status", "599", TROUBLED[:4], NO_BREAKER, _json(b"599 Odd", b'{"error":"words"}'), nothing),
    ("odd page", "502", TROUBLED[:4], NO_BREAKER, _json(b"599 Odd", b"words"), nothing),
    ("foreign", "502", TROUBLED, NO_BREAKER, _json(b"200 OK", b'{"status":"ok"}'), nothing),
    ("no content", "502", TROUBLED[:4], NO_BREAKER, _raw(b"HTTP/1.1 204 No Content\r\n\r\n"), nothing),
    ("by close", "200", INFERENCE[:20], NO_BREAKER, _raw(b"HTTP/1.0 200 OK\r\n\r\n", _ANY % b"true"), nothing),
    ("dead", "502", TROUBLED, NO_BREAKER, _raw(), nothing),
    ("cut", "200 502", TROUBLED, NO_BREAKER, _beginning, nothing),
    ("short", "200 502", TROUBLED, NO_BREAKER, _raw(_JSON % (b"200 OK", 1000, b'{"model":"')), nothing),
    ("full", "200 503", TROUBLED, {"queue": {"max_size": 0}}, PLAIN, paused),
    ("late", "504", TROUBLED[:6], {"timeouts": {"queue": 0.02}}, PLAIN, paused),
    ("draining", "405 503", [*TROUBLED, *PAGES[:6]], {}, PLAIN, draining),
]


@dataclass(frozen=True)
class Told:
    """An answer, made comparable. `ended`: its end came, and did not have to be guessed from the closing.

    `open`: whether another request on the connection is answered. `seen`: what the server behind was asked.
    """

    status: str
    fields: list[tuple[str, str]]
    body: bytes
    ended: bool
    open: bool
    seen: list[tuple[list[bytes], bytes]]


async def told(url: str, asked: Ask, upstream: RawUpstream) -> Told:
    upstream.requests.clear()
    with trio.fail_after(60):
        async with await connect(url) as stream:
            await stream.send_all(asked.raw)
            raw = await _answer(stream, head_only=asked.raw.startswith(b"HEAD "))
            goes_on = await _goes_on(stream)
    head, _, rest = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    chunked = ("transfer-encoding", "chunked") in fields
    ended = not chunked or rest.endswith(b"0\r\n\r\n")
    body = b"".join(chunks(rest)) if chunked else rest
    fields, goes_on = _comparable(fields, asked), goes_on and not asked.may_stay
    return Told(status, fields, _timeless(body, asked), ended, goes_on, _seen(upstream, asked))


async def _goes_on(stream: trio.SocketStream) -> bool:
    """Whether another request is answered."""
    try:
        await stream.send_all(request_bytes("GET", "/"))
        return bool(await stream.receive_some())
    except trio.BrokenResourceError:
        return False


async def _answer(stream: trio.SocketStream, *, head_only: bool) -> bytes:
    """One whole answer, or what there is of it when the connection closes."""
    raw = b""
    while not _whole(raw, head_only):
        try:
            part = await stream.receive_some(65536)
        except trio.BrokenResourceError:
            break
        if not part:
            break
        raw += part
    return raw


def _whole(raw: bytes, head_only: bool) -> bool:
    head, mark, body = raw.partition(b"\r\n\r\n")
    if not mark:
        return False
    if head_only or head.split()[1] in (b"204", b"304"):
        return True
    if length := re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE):
        return len(body) >= int(length[1])
    return b"chunked" in head.lower() and body.endswith(b"0\r\n\r\n")


def _comparable(fields: list[tuple[str, str]], asked: Ask) -> list[tuple[str, str]]:
    varying = VARYING | ({"x-request-id"} if asked.bare else set())
    if asked.may_stay:
        varying |= {"connection"}
    return sorted((name, "*" if name in varying else value) for name, value in fields)


def _timeless(body: bytes, asked: Ask) -> bytes:
    body = re.sub(rb'"(timestamp|uptime|uptimeSeconds)":("[^"]*"|[0-9.]+)', rb'"\1":0', body)
    return re.sub(rb'"(request_id|requestId)":"[^"]*"', rb'"\1":0', body) if asked.bare else body


def _seen(upstream: RawUpstream, asked: Ask) -> list[tuple[list[bytes], bytes]]:
    """What the server was asked; the fields in any order."""
    found = []
    for head, body in upstream.requests:
        line, *fields = head.split(b"\r\n")
        kept = [each for each in fields if not (asked.bare and each.lower().startswith(b"x-request-id"))]
        found.append(([line, *sorted(kept)], body))
    return found


@pytest.mark.parametrize(
    ("statuses", "asks", "config", "answer", "trouble"), [s[1:] for s in SCENES], ids=[s[0] for s in SCENES]
)
async def test_both_lanes_say_the_same(
    statuses: str,
    asks: list[Ask],
    config: dict[str, Any],
    answer: Script,
    trouble: Callable[[Served], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lingering(monkeypatch, 0.05)
    async with in_front_of_raw(**config) as (fleet, upstream):
        trouble(fleet)
        different, statuses_seen = {}, set()
        for asked in asks:
            upstream.answer = answer(asked.path)
            one, other = [await told(fleet.lanes[lane], asked, upstream) for lane in LANES]
            statuses_seen.add(one.status.split()[1])
            if one != other:
                different[asked.what] = (one, other)
        await fleet.until_idle()
        fleet.assert_nothing_left()
        assert not different
        assert statuses_seen == set(statuses.split())
