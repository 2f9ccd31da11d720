"""What a client sees when something goes wrong: its own dialect, a fitting status, and never a false success."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from tests.e2e.raw_upstream import in_front_of_raw
from tests.e2e.relay.error_shapes import one_line, send
from tests.e2e.support import CHAT, MODELS, ROUTES, TURN, Answer, Route, ask, is_idle, until
from tests.kit.clients.lanes import both_lanes
from tests.kit.fleets.served import Served, served

pytestmark = both_lanes
OLLAMA_AGENTS = ["ollama/0.33.0 (amd64 linux) Go/go1.26", "ollama-python/0.6.3 (x86_64)", "ollama-js/0.6.4 (x64 linux)"]
OTHER_AGENTS = ["Python/3.11 aiohttp/3.9.5", "node", "okhttp/4.12.0", "Go-http-client/1.1", ""]
TOOLS = ["curl/8.5", "python-requests/2.31.0"]
NATIVE_PATHS = ["/api/chat", "/api/generate", "/api/embed", "/api/embeddings"]
V1_PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/audio/transcriptions"]


def route_of(path: str) -> Route:
    return next(route for route in ROUTES if route.plain_path == path)


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


async def test_a_servers_own_retry_after_passes_through() -> None:
    async with in_front_of_raw() as (fleet, upstream):
        body = b'{"error":"slow down"}'
        head = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: %d\r\n\r\n" % len(body)
        upstream.answer = [head + body]
        answer = await ask(fleet.url, "POST", "/api/chat", {"model": "m", "messages": TURN})
        assert (answer.status, answer.headers["retry-after"], answer.body) == (503, "7", body)
