"""Tools, thoughts and blocks of a simulated server, as the official clients read them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from typing import Any, TypeVar, cast

import anthropic
import httpx
import ollama
import openai
import pytest
import trio
from trio.testing import MockClock

from fleet.simulator import Profile
from tests.kit.fleets.backends import FakeBackend
from tests.kit.fleets.tcp import TcpSim, sim_server

T = TypeVar("T")
MODEL, THINKER = "llama3:8b", "qwen3:4b"
ASKING: list[Any] = [{"role": "user", "content": "What is the weather in Rome?"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: list[Any] = [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}]
CLAUDES: list[Any] = [{"name": "get_weather", "input_schema": SCHEMA}]
CALLED = ("get_weather", {"city": "simulated"})


@pytest.fixture
async def sim() -> AsyncIterator[TcpSim]:
    async with sim_server(f"{MODEL}:4.7GB,{THINKER}:3GB", Profile(load_seconds=0.0, tokens_per_second=5000.0)) as sim:
        yield sim


async def thread(work: Callable[[], T]) -> T:
    with trio.fail_after(20):
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


async def with_ollama(sim: TcpSim, work: Callable[[ollama.Client], T]) -> T:
    def run() -> T:
        with closing(ollama.Client(sim.url)) as client:
            return work(client)

    return await thread(run)


async def with_openai(sim: TcpSim, work: Callable[[openai.OpenAI], T]) -> T:
    def run() -> T:
        with openai.OpenAI(base_url=f"{sim.url}/v1", api_key="none", max_retries=0) as client:
            return work(client)

    return await thread(run)


async def with_claude(sim: TcpSim, work: Callable[[anthropic.Anthropic], T]) -> T:
    def run() -> T:
        with anthropic.Anthropic(base_url=sim.url, api_key="none", max_retries=0) as client:
            return work(client)

    return await thread(run)


@pytest.mark.parametrize("stream", [False, True])
async def test_ollama_is_told_of_a_call_and_then_answered_in_words(sim: TcpSim, stream: bool) -> None:
    def talk(client: Any) -> tuple[list[Any], str]:
        given = client.chat(MODEL, ASKING, tools=TOOLS, stream=stream)
        parts = list(given) if stream else [given]
        calls = [call for part in parts for call in part.message.tool_calls or ()]
        assert parts[-1].done_reason == "stop"
        assert not any(part.message.content for part in parts)
        turns = [*ASKING, {"role": "assistant", "tool_calls": calls}, {"role": "tool", "content": "sunny"}]
        return calls, client.chat(MODEL, turns, tools=TOOLS).message.content or ""

    calls, words = await with_ollama(sim, talk)
    assert [(call.function.name, call.function.arguments) for call in calls] == [CALLED]
    assert "Simulated" in words


@pytest.mark.parametrize("stream", [False, True])
async def test_ollama_is_shown_thoughts_before_words(sim: TcpSim, stream: bool) -> None:
    def talk(client: Any) -> list[tuple[str, str]]:
        found = []
        chat: Any = client.chat(THINKER, ASKING, think=True, stream=stream)
        parts = list(chat) if stream else [chat]
        found.append(("".join(p.message.thinking or "" for p in parts), "".join(p.message.content for p in parts)))
        text: Any = client.generate(THINKER, "Why?", think=True, stream=stream)
        parts = list(text) if stream else [text]
        found.append(("".join(p.thinking or "" for p in parts), "".join(p.response for p in parts)))
        return found

    for thoughts, words in await with_ollama(sim, talk):
        assert thoughts.startswith("Simulated")
        assert words
        assert "Simulated" not in words


@pytest.mark.parametrize("stream", [False, True])
async def test_openai_is_told_of_a_call(sim: TcpSim, stream: bool) -> None:
    def talk(client: Any) -> tuple[Any, str | None]:
        if not stream:
            choice = client.chat.completions.create(model=MODEL, messages=ASKING, tools=TOOLS).choices[0]
            assert choice.message.tool_calls
            return choice.message.tool_calls[0], choice.finish_reason
        with client.chat.completions.stream(model=MODEL, messages=ASKING, tools=TOOLS) as events:
            done = events.get_final_completion().choices[0]
        assert done.message.tool_calls
        return done.message.tool_calls[0], done.finish_reason

    call, reason = await with_openai(sim, talk)
    assert (call.function.name, json.loads(call.function.arguments)) == CALLED
    assert (call.type, bool(call.id), reason) == ("function", True, "tool_calls")


@pytest.mark.parametrize("stream", [False, True])
async def test_openai_is_shown_the_reasoning(sim: TcpSim, stream: bool) -> None:
    def talk(client: Any) -> tuple[str, str]:
        given: Any = client.chat.completions.create(
            model=THINKER, messages=ASKING, reasoning_effort="low", stream=stream
        )
        said = [chunk.choices[0].delta for chunk in given] if stream else [given.choices[0].message]
        return "".join(getattr(m, "reasoning", "") for m in said), "".join(m.content or "" for m in said)

    thoughts, words = await with_openai(sim, talk)
    assert thoughts.startswith("Simulated")
    assert words
    with pytest.raises(openai.BadRequestError, match="does not support thinking"):
        await with_openai(
            sim, lambda client: client.chat.completions.create(model=MODEL, messages=ASKING, reasoning_effort="low")
        )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", [MODEL, THINKER])
async def test_claude_thinks_calls_a_tool_and_then_speaks(sim: TcpSim, stream: bool, model: str) -> None:
    """With the system prompt as a list of blocks, as Claude Code sends it."""
    asked: dict[str, Any] = {
        "model": model,
        "max_tokens": 4000,
        "system": [
            {"type": "text", "text": "You are Claude Code.", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "Be brief."},
        ],
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "tools": CLAUDES,
    }

    def talk(client: Any) -> list[anthropic.types.Message]:
        def ask(turns: list[Any]) -> anthropic.types.Message:
            if not stream:
                return cast(anthropic.types.Message, client.messages.create(messages=turns, **asked))
            with client.messages.stream(messages=turns, **asked) as events:
                return cast(anthropic.types.Message, events.get_final_message())

        called = ask(ASKING)
        call = called.content[-1]
        assert call.type == "tool_use"
        result = [{"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "sunny"}]}]
        return [
            called,
            ask([*ASKING, {"role": "assistant", "content": called.content}, {"role": "user", "content": result}]),
        ]

    called, said = await with_claude(sim, talk)
    thinks = ["thinking"] if model == THINKER else []
    assert [block.type for block in called.content] == [*thinks, "tool_use"]
    assert (called.content[-1].name, called.content[-1].input) == CALLED  # type: ignore[union-attr]
    assert called.stop_reason == "tool_use"
    assert [block.type for block in said.content] == [*thinks, "text"]
    assert said.stop_reason == "end_turn"


NO_JSON = [
    ("/api/chat", "NaN", "invalid character 'N' looking for beginning of value"),
    ("/api/generate", "NaN", "invalid character 'N' looking for beginning of value"),
    ("/api/chat", "Infinity", "invalid character 'I' looking for beginning of value"),
    ("/api/chat", "-Infinity", "invalid character 'I' in numeric literal"),
]


@pytest.mark.parametrize(("path", "value", "text"), NO_JSON)
async def test_what_is_no_number_is_no_json(autojump_clock: MockClock, path: str, value: str, text: str) -> None:
    body = '{"model":"m","prompt":"x","messages":[{"role":"user","content":"x"}],"options":{"num_predict":VALUE}}'
    body = body.replace("VALUE", value)
    async with trio.open_nursery() as nursery, FakeBackend(nursery, "m:latest:1GB").client() as client:
        answer = await client.post(path, content=body.encode())
        assert (answer.status_code, answer.json()) == (400, {"error": text})
        nursery.cancel_scope.cancel()


TYPED: list[tuple[str, str, int, str]] = [
    ("/api/chat", '"options":[]', 400, "cannot unmarshal array into Go struct field ChatRequest.options"),
    ("/api/chat", '"options":{"num_predict":1e999}', 400, "cannot unmarshal number"),
    ("/api/chat", '"options":{"num_predict":"5"}', 500, 'option "num_predict" must be of type integer'),
    ("/api/chat", '"options":{"num_predict":1.5}', 500, 'option "num_predict" must be of type integer'),
    ("/api/chat", '"options":{"num_predict":true}', 500, 'option "num_predict" must be of type integer'),
    ("/api/chat", '"options":{"temperature":"hot"}', 500, 'option "temperature" must be of type float32'),
    ("/api/chat", '"options":{"stop":"x"}', 500, 'option "stop" must be of type array'),
    ("/api/chat", '"options":{"num_predict":1e300}', 200, ""),
    ("/api/chat", '"options":{"num_predict":null}', 200, ""),
    ("/api/chat", '"tools":{}', 400, "cannot unmarshal object into Go struct field ChatRequest.tools"),
    ("/v1/chat/completions", '"max_tokens":"5"', 400, "cannot unmarshal string"),
    ("/v1/chat/completions", '"max_tokens":1.5', 400, "cannot unmarshal number 1.5 into Go struct field"),
    ("/v1/chat/completions", '"max_tokens":true', 400, "cannot unmarshal bool"),
    ("/v1/chat/completions", '"temperature":"x"', 400, "cannot unmarshal string"),
    ("/v1/chat/completions", '"stream_options":5', 400, "cannot unmarshal number"),
    ("/v1/messages", '"max_tokens":"5"', 400, "cannot unmarshal string"),
    ("/v1/messages", '"max_tokens":NaN', 400, "invalid character 'N' looking for beginning of value"),
    ("/v1/messages", '"max_tokens":5,"thinking":[]', 400, "cannot unmarshal array"),
    ("/v1/responses", '"input":"x","max_output_tokens":"5"', 400, "cannot unmarshal string"),
]


@pytest.mark.parametrize(("path", "field", "status", "text"), TYPED, ids=[f"{row[0]} {row[1]}" for row in TYPED])
async def test_fields_of_the_wrong_type_are_refused_as_by_go(
    autojump_clock: MockClock, path: str, field: str, status: int, text: str
) -> None:
    body = '{"model":"m","stream":false,"messages":[{"role":"user","content":"x"}],FIELD}'.replace("FIELD", field)
    async with trio.open_nursery() as nursery:
        client: httpx.AsyncClient
        async with FakeBackend(nursery, "m:latest:1GB").client() as client:
            answer = await client.post(path, content=body.encode())
        assert answer.status_code == status, answer.text
        told = answer.json().get("error", "")
        assert text in (told if isinstance(told, str) else told["message"])
        nursery.cancel_scope.cancel()
