"""What a client sees when something goes wrong: its own dialect, a fitting status, and never a false success."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import trio

from fleet.simulator import Profile
from tests.e2e.raw_upstream import in_front_of_raw
from tests.e2e.support import (
    CHAT,
    MODELS,
    ROUTES,
    TURN,
    Answer,
    Route,
    ask,
    connect,
    ended_cleanly,
    events,
    is_idle,
    read_to_the_end,
    until,
)
from tests.kit.clients.lanes import both_lanes
from tests.kit.clients.raw import chunks
from tests.kit.fleets.served import Served, served

pytestmark = both_lanes
OLLAMA_AGENTS = ["ollama/0.33.0 (amd64 linux) Go/go1.26", "ollama-python/0.6.3 (x86_64)", "ollama-js/0.6.4 (x64 linux)"]
OTHER_AGENTS = ["Python/3.11 aiohttp/3.9.5", "node", "okhttp/4.12.0", "Go-http-client/1.1", ""]
TOOLS = ["curl/8.5", "python-requests/2.31.0"]
NATIVE_PATHS = ["/api/chat", "/api/generate", "/api/embed", "/api/embeddings"]
V1_PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/audio/transcriptions"]
STREAMING = [route for route in ROUTES if route.streams]


def one_line(text: object) -> bool:
    """Whether Ollama's own clients survive this as an error text."""
    if not isinstance(text, str) or not text.strip() or "\n" in text:
        return False
    try:
        json.loads(text)
    except ValueError:
        return True
    return False


def route_of(path: str) -> Route:
    return next(route for route in ROUTES if route.plain_path == path)


async def send(fleet: Served, route: Route, *headers: str, stream: bool = False) -> Answer:
    """One of the standard requests with more header fields."""
    head, _, rest = route.request(stream=stream).partition(b"\r\n")
    more = "".join(f"{header}\r\n" for header in ("Connection: close", *headers)).encode()
    with trio.fail_after(60):
        async with await connect(fleet.url) as wire:
            await wire.send_all(head + b"\r\n" + more + rest)
            raw = await read_to_the_end(wire)
    head, _, body = raw.partition(b"\r\n\r\n")
    pairs = (line.partition(":") for line in head.decode().split("\r\n")[1:])
    return Answer(int(raw.split()[1]), {key.lower(): value.strip() for key, _, value in pairs}, body, raw)


def native_text(answer: Answer) -> str:
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    error = answer.json()["error"]
    assert one_line(error)
    return str(error)


def native_object(answer: Answer) -> dict[str, Any]:
    assert answer.headers["content-type"].startswith("application/json")
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "details", "reason", "timestamp"}
    return dict(error)


def openai_object(answer: Answer) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert one_line(error["message"])
    return dict(error)


def anthropic_object(answer: Answer) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["type"] == "error"
    assert body["request_id"] == answer.headers["x-request-id"]
    assert set(body["error"]) == {"type", "message"}
    return dict(body["error"])


Trouble = Callable[[Served], None]


def full(fleet: Served) -> None:
    fleet.system.pause(True)


def dead(fleet: Served) -> None:
    fleet.sims["a"].host.faults.set("reset-before-headers")


def hanging(fleet: Served) -> None:
    fleet.sims["a"].host.faults.set("hang-before-headers")


def draining(fleet: Served) -> None:
    fleet.system.drain()


OUR_ERRORS: list[tuple[str, int, str, str, dict[str, Any], Trouble]] = [
    ("full", 503, "SERVICE_UNAVAILABLE", "QUEUE_FULL", {"queue": {"max_size": 0}}, full),
    ("waiting", 504, "TIMEOUT", "QUEUE_TIMEOUT", {"timeouts": {"queue": 0.05}}, full),
    ("draining", 503, "SERVICE_UNAVAILABLE", "SHUTTING_DOWN", {}, draining),
    ("broken", 502, "SERVICE_UNAVAILABLE", "BACKEND_BROKE", {"enable_circuit_breaker": False}, dead),
    ("silent", 504, "TIMEOUT", "TOTAL_TIMEOUT", {"timeouts": {"total": 2.0}, "enable_circuit_breaker": False}, hanging),
]


ASKERS = [
    *((path, agent) for path in NATIVE_PATHS for agent in (*OLLAMA_AGENTS, *OTHER_AGENTS, *TOOLS)),
    *((path, agent) for path in V1_PATHS for agent in (OLLAMA_AGENTS[0], "OpenAI/Python 2.0")),
    ("/v1/messages", "Anthropic/Python"),
]


def is_shaped(path: str, agent: str, answer: Answer, code: str, reason: str) -> None:
    if path == "/v1/messages":
        kind = {503: "overloaded_error", 504: "timeout_error"}.get(answer.status, "api_error")
        assert anthropic_object(answer)["type"] == kind
    elif path in V1_PATHS:
        error = openai_object(answer)
        assert (error["type"], error["code"]) == ("api_error", reason.lower())
    elif agent not in TOOLS:
        native_text(answer)
    else:
        error = native_object(answer)
        assert (error["code"], error["reason"], one_line(error["message"])) == (code, reason, True)


@pytest.mark.parametrize(("status", "code", "reason", "config", "trouble"), [row[1:] for row in OUR_ERRORS])
async def test_every_dialect_and_agent_gets_our_errors_in_its_own_shape(
    status: int, code: str, reason: str, config: dict[str, Any], trouble: Trouble
) -> None:
    async with served("a", models=MODELS, slots=len(ASKERS), **config) as fleet:
        trouble(fleet)

        async def check(path: str, agent: str) -> None:
            answer = await send(fleet, route_of(path), f"User-Agent: {agent}")
            assert (answer.status, answer.headers["x-fleet-error"]) == (status, reason), (path, answer.raw)
            assert status != 503 or int(answer.headers["retry-after"]) >= 1
            assert answer.headers["x-request-id"]
            is_shaped(path, agent, answer, code, reason)

        async with trio.open_nursery() as nursery:
            for path, agent in ASKERS:
                nursery.start_soon(check, path, agent)
        await until(lambda: is_idle(fleet))
        fleet.assert_nothing_left()


@pytest.mark.parametrize(("mode", "agent", "structured"), [
    ("auto", "curl/8", True),
    ("auto", OLLAMA_AGENTS[1], False),
    ("structured", OLLAMA_AGENTS[1], True),
    ("ollama", "curl/8", False),
])  # fmt: skip
async def test_compat_native_errors_chooses_the_shape(mode: str, agent: str, structured: bool) -> None:
    async with served("a", models=MODELS, compat={"native_errors": mode}) as fleet:
        body = {"model": "nope", "messages": TURN}
        answer = await ask(fleet.url, "POST", "/api/chat", body, f"User-Agent: {agent}")
        assert answer.status == 404
        text = native_object(answer)["message"] if structured else native_text(answer)
        assert text == "model 'nope' not found"
        v1 = await ask(fleet.url, "POST", "/v1/chat/completions", body, f"User-Agent: {agent}")
        assert openai_object(v1)["message"] == "model 'nope' not found"


MISSING = [
    ("/api/chat", {"messages": TURN}, "model 'Nope' not found"),
    ("/api/generate", {"prompt": "x"}, "model 'Nope' not found"),
    ("/api/show", {}, "model 'Nope:latest' not found"),
    ("/api/embed", {"input": "x"}, 'model "Nope" not found, try pulling it first'),
    ("/api/embeddings", {"prompt": "x"}, 'model "Nope" not found, try pulling it first'),
    ("/v1/chat/completions", {"messages": TURN}, "model 'Nope' not found"),
    ("/v1/completions", {"prompt": "x"}, "model 'Nope' not found"),
    ("/v1/responses", {"input": "x"}, "model 'Nope' not found"),
    ("/v1/messages", {"messages": TURN, "max_tokens": 5}, "model 'Nope' not found"),
]


@pytest.mark.parametrize(("path", "more", "text"), MISSING)
async def test_an_unknown_model_is_refused_in_ollamas_words(path: str, more: dict[str, Any], text: str) -> None:
    async with served("a", models=MODELS) as fleet:
        answer = await ask(fleet.url, "POST", path, {"model": "Nope", **more}, f"User-Agent: {OLLAMA_AGENTS[0]}")
        assert answer.status == 404
        if path.startswith("/api/"):
            assert native_text(answer) == text
        elif path == "/v1/messages":
            assert anthropic_object(answer) == {"type": "not_found_error", "message": text}
        else:
            assert openai_object(answer)["message"] == text


CLIENT_FAULTS: list[tuple[str, object, int, str]] = [
    ("/api/chat", b"", 400, "missing request body"),
    ("/api/chat", b"{", 400, "unexpected EOF"),
    ("/api/chat", b"x", 400, "invalid character 'x' looking for beginning of value"),
    ("/api/chat", {"messages": []}, 400, "model is required"),
    ("/api/generate", {"prompt": "x"}, 404, "model '' not found"),
    ("/api/chat", {"model": "a b", "messages": TURN}, 400, "invalid model name"),
    ("/api/chat", {"model": CHAT, "messages": TURN, "options": {"num_ctx": "x"}}, 500,
     'option "num_ctx" must be of type integer'),
    ("/api/chat", {"model": CHAT, "messages": TURN, "keep_alive": "-1"}, 400,
     'time: missing unit in duration "-1"'),
    ("/v1/chat/completions", b"", 400, "EOF"),
    ("/v1/messages", {"messages": TURN}, 400, "model is required"),
]  # fmt: skip


@pytest.mark.parametrize("agent", ["curl/8", OLLAMA_AGENTS[0]])
async def test_what_a_server_refuses_passes_through_untouched(agent: str) -> None:
    async with served("a", "b", models=MODELS) as fleet:
        for path, body, status, text in CLIENT_FAULTS:
            direct = await ask(fleet.sims["a"].url, "POST", path, body)
            fleet.sims["a"].host.requests.clear()
            fleet.sims["b"].host.requests.clear()
            answer = await ask(fleet.url, "POST", path, body, f"User-Agent: {agent}")
            assert answer.status == direct.status == status, (path, body, answer.raw)
            assert answer.body == direct.body
            assert text in answer.text.replace('\\"', '"')
            assert answer.headers["content-type"] == direct.headers["content-type"]
            asked = [seen for sim in fleet.sims.values() for seen in sim.host.seen(path)]
            assert len(asked) == 1, "a client's own fault is not tried elsewhere"
        assert fleet.system.breakers.describe() == []


@pytest.mark.parametrize("code", [400, 401, 403, 418, 500, 501, 502, 503, 504])
async def test_an_error_that_every_server_gives_keeps_its_status_and_text(code: int) -> None:
    async with served("a", "b", models=MODELS, enable_circuit_breaker=False) as fleet:
        for sim in fleet.sims.values():
            sim.host.faults.set(f"status:{code}:the words of a server")
        for route in ROUTES:
            answer = await send(fleet, route)
            assert answer.status == code, (route, answer.raw)
            assert b"the words of a server" in answer.body
            assert "x-fleet-error" not in answer.headers
            direct = await ask(fleet.sims["a"].url, "POST", route.plain_path, route.fields or b"--x--")
            if route.fields is not None:
                assert answer.body == direct.body, route
        assert is_idle(fleet)


async def test_a_server_that_says_503_is_left_for_one_that_does_not() -> None:
    async with served("a", "b", models=MODELS) as fleet:
        fleet.sims["a"].host.faults.set("status:503")
        for route in ROUTES:
            if "--" not in route.path:
                answer = await send(fleet, route)
                assert (answer.status, answer.headers["x-fleet-server"]) == (200, "b"), route


def is_error_record(route: Route, body: bytes) -> bool:
    """Whether the stream ends with the error record that this dialect's clients raise on."""
    if route.path.startswith("/api/"):
        last = json.loads(body.splitlines()[-1])
        return b"\n\n" not in body and one_line(last.get("error"))
    name, data = list(events(body))[-1]
    record = json.loads(data)
    if route.path.startswith("/v1/messages"):
        return name == "error" and record["type"] == "error" and one_line(record["error"]["message"])
    return one_line(record["error"]["message"]) and "[DONE]" not in body.decode()


@pytest.mark.parametrize("route", STREAMING, ids=str)
async def test_a_stream_that_loses_its_server_ends_with_an_error_record(route: Route) -> None:
    async with served("a", models=MODELS, enable_circuit_breaker=False) as fleet:
        host = fleet.sims["a"].host
        for fault in ("reset-mid-stream:3", "reset-mid-stream:1"):
            host.faults.set(fault)
            async with await connect(fleet.url) as stream:
                await stream.send_all(route.request(stream=True))
                raw = await _until_error(stream)
            head, _, _ = raw.partition(b"\r\n\r\n")
            assert b" 200 " in head.splitlines()[0]
            body = _dechunked(raw)
            assert is_error_record(route, body), body[-300:]
        await until(lambda: is_idle(fleet))


async def _until_error(stream: trio.SocketStream) -> bytes:
    raw = b""
    with trio.fail_after(20):
        while not raw.endswith(b"\r\n0\r\n\r\n"):
            part = await stream.receive_some(65536)
            assert part, raw
            raw += part
    return raw


def _dechunked(raw: bytes) -> bytes:
    return b"".join(chunks(raw.partition(b"\r\n\r\n")[2]))


@pytest.mark.parametrize("route", STREAMING, ids=str)
async def test_a_stream_that_was_taken_back_ends_with_an_error_record(route: Route) -> None:
    slow = Profile(load_seconds=0.0, tokens_per_second=5.0)
    async with served("a", models=MODELS, profile=slow) as fleet, await connect(fleet.url) as stream:
        await stream.send_all(route.request(stream=True))
        raw = bytes(await stream.receive_some(65536))
        fleet.system.revoke_all("a test")
        body = _dechunked(raw + await _until_error(stream))
        assert is_error_record(route, body)
        await until(lambda: is_idle(fleet))
        fleet.assert_nothing_left()


async def test_a_stream_whose_server_falls_silent_ends_with_an_error_record() -> None:
    config: dict[str, Any] = {"timeouts": {"idle": 0.3}, "enable_circuit_breaker": False}
    profile = Profile(load_seconds=0.0, slots=16)
    async with served("a", models=MODELS, profile=profile, slots=16, **config) as fleet:
        fleet.sims["a"].host.faults.set("stall-mid-stream:3")

        async def one(route: Route) -> None:
            async with await connect(fleet.url) as stream:
                await stream.send_all(route.request(stream=True))
                body = _dechunked(await _until_error(stream))
                assert is_error_record(route, body), body[-300:]

        async with trio.open_nursery() as nursery:
            for route in STREAMING:
                nursery.start_soon(one, route)
        await until(lambda: is_idle(fleet))
        fleet.assert_nothing_left()


@pytest.mark.parametrize("stop", ["reset-mid-stream:3", "wrong-length"])
@pytest.mark.parametrize("route", [route for route in ROUTES if "--" not in route.path], ids=str)
async def test_an_unstreamed_answer_that_was_cut_is_never_a_clean_end(route: Route, stop: str) -> None:
    async with served("a", models=MODELS, enable_circuit_breaker=False) as fleet:
        fleet.sims["a"].host.faults.set(stop)
        answer = await send(fleet, route)
        assert answer.status == 502 or not ended_cleanly(answer.raw), answer.raw
        await until(lambda: is_idle(fleet))


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("cut", [b'{"message":{"content":"a"}', b'{"message":{"content":"a"}}', b'{"done":false}\n'])
async def test_a_native_stream_cut_within_a_record_has_no_blank_line_before_its_error(cut: bytes) -> None:
    async with in_front_of_raw() as (fleet, upstream):
        upstream.answer = [HEAD + b"%x\r\n%s\r\n" % (len(cut), cut)]
        answer = await ask(fleet.url, "POST", "/api/chat", {"model": "m", "messages": TURN})
        lines = answer.body.split(b"\n")
        assert lines[-1] == b""
        assert all(lines[:-1]), "Ollama's Go and Python clients die of a blank line"
        assert one_line(json.loads(lines[-2])["error"])


@pytest.mark.parametrize("cut", [b'data: {"x"', b'data: {"x":1}\n', b'data: {"x":1}\n\n'])
async def test_an_event_stream_cut_within_an_event_has_its_error_in_an_event_of_its_own(cut: bytes) -> None:
    async with in_front_of_raw() as (fleet, upstream):
        head = HEAD.replace(b"application/x-ndjson", b"text/event-stream")
        upstream.answer = [head + b"%x\r\n%s\r\n" % (len(cut), cut)]
        body = {"model": "m", "messages": TURN, "stream": True}
        answer = await ask(fleet.url, "POST", "/v1/chat/completions", body)
        *_, last = [block.strip() for block in answer.body.split(b"\n\n") if block.strip()]
        assert last.startswith(b"data: ")
        assert one_line(json.loads(last.removeprefix(b"data: "))["error"]["message"])


async def test_an_unstreamed_answer_larger_than_what_is_held_back_is_cut_visibly() -> None:
    async with in_front_of_raw() as (fleet, upstream):
        for framing in (b"Content-Length: 3000000", b"Transfer-Encoding: chunked"):
            piece = b"x" * 1_000_000
            sent = b"%x\r\n%s\r\n" % (len(piece), piece) if b"chunked" in framing else piece
            upstream.answer = [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + framing + b"\r\n\r\n", sent]
            async with await connect(fleet.url) as stream:
                await stream.send_all(Route("/api/chat", {"model": "m", "messages": TURN, "stream": False}).request())
                with trio.fail_after(20):
                    raw = await read_to_the_end(stream)
            assert b" 502 " in raw[:20] or not ended_cleanly(raw)


async def test_a_servers_own_retry_after_passes_through() -> None:
    async with in_front_of_raw() as (fleet, upstream):
        body = b'{"error":"slow down"}'
        head = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: %d\r\n\r\n" % len(body)
        upstream.answer = [head + body]
        answer = await ask(fleet.url, "POST", "/api/chat", {"model": "m", "messages": TURN})
        assert (answer.status, answer.headers["retry-after"], answer.body) == (503, "7", body)
