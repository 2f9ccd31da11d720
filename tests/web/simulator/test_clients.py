"""The official clients, talking to the simulated server over TCP."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import TypeVar

import anthropic
import ollama
import openai
import pytest
import trio
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionStreamOptionsParam

from fleet.simulator import Profile
from tests.kit.fleets.tcp import TcpSim, sim_server

T = TypeVar("T")
FAST = Profile(load_seconds=0.02, tokens_per_second=5000, prefill_per_second=100_000, pull_seconds=0.02)
USER = {"role": "user", "content": "hi"}


@pytest.fixture
async def sim() -> AsyncIterator[TcpSim]:
    with trio.fail_after(60):
        async with sim_server("llama3:8b:4.7GB,nomic-embed-text:latest:274MB,whisper:latest:1GB", FAST) as sim:
            yield sim


async def thread(work: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(work)


# ollama


@pytest.fixture
def native(sim: TcpSim) -> Iterator[ollama.Client]:
    client = ollama.Client(host=sim.url)
    yield client
    client._client.close()


async def test_ollama_chats_in_both_ways(native: ollama.Client) -> None:
    whole = await thread(partial(native.chat, model="llama3:8b", messages=[USER]))
    parts = await thread(lambda: list(native.chat(model="llama3:8b", messages=[USER], stream=True)))
    assert whole.message.content == "".join(part.message.content or "" for part in parts)
    assert whole.eval_count == len(parts) - 1
    assert parts[-1].done_reason == "stop"
    assert (parts[-1].total_duration or 0) > 0


async def test_ollama_generates_with_a_limit(native: ollama.Client) -> None:
    answer = await thread(partial(native.generate, model="llama3:8b", prompt="x", options={"num_predict": 7}))
    assert (answer.eval_count, answer.done_reason) == (7, "length")


async def test_ollama_embeds(native: ollama.Client) -> None:
    answer = await thread(partial(native.embed, model="nomic-embed-text", input=["a", "b"]))
    assert [len(vector) for vector in answer.embeddings] == [768, 768]


async def test_ollama_lists_shows_and_sees_what_is_loaded(native: ollama.Client) -> None:
    await thread(partial(native.generate, model="llama3:8b"))
    assert len((await thread(native.list)).models) == 3
    (loaded,) = (await thread(native.ps)).models
    assert (loaded.name, loaded.size_vram, loaded.context_length) == ("llama3:8b", 4_700_000_000, 4096)
    shown = await thread(partial(native.show, "llama3:8b"))
    assert shown.capabilities == ["completion", "tools"]


async def test_ollama_pulls_copies_creates_and_deletes(native: ollama.Client) -> None:
    progress = await thread(lambda: list(native.pull("phi:3b", stream=True)))
    assert (progress[0].status, progress[-1].status) == ("pulling manifest", "success")
    assert (await thread(partial(native.pull, "phi:3b"))).status == "success"
    await thread(partial(native.copy, "phi:3b", "mine"))
    assert (await thread(partial(native.create, "other", from_="mine"))).status == "success"
    assert (await thread(partial(native.delete, "mine"))).status == "success"
    with pytest.raises(ollama.ResponseError, match="not found"):
        await thread(partial(native.delete, "mine"))


async def test_ollama_uploads_blobs(native: ollama.Client, tmp_path: trio.Path) -> None:
    file = trio.Path(tmp_path) / "x.gguf"
    await file.write_bytes(b"GGUF" * 1000)
    digest = await thread(partial(native.create_blob, str(file)))
    made = await thread(partial(native.create, "own", files={"x.gguf": digest}))
    assert made.status == "success"
    answer = await thread(partial(native.generate, "own", prompt="x"))
    assert (answer.response or "").startswith("Simulated")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("status:503", "server busy"),
        ("runner-crash", "unexpectedly stopped"),
        ("runner-crash-mid:2", "unexpected EOF"),
    ],
)
async def test_ollama_reports_faults(sim: TcpSim, native: ollama.Client, fault: str, words: str) -> None:
    sim.host.faults.set(fault)
    with pytest.raises(ollama.ResponseError, match=words):
        await thread(lambda: list(native.chat(model="llama3:8b", messages=[USER], stream=True)))


# openai


@pytest.fixture
def gpt(sim: TcpSim) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{sim.url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def test_openai_chats_in_both_ways(gpt: openai.OpenAI) -> None:
    create = gpt.chat.completions.create
    usage: ChatCompletionStreamOptionsParam = {"include_usage": True}
    said: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
    whole = await thread(lambda: create(model="llama3:8b", messages=said))
    parts = await thread(lambda: list(create(model="llama3:8b", messages=said, stream=True, stream_options=usage)))
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert whole.choices[0].message.content == text
    assert parts[-1].usage == whole.usage
    assert parts[-2].choices[0].finish_reason == "stop"


async def test_openai_completes_and_lists(gpt: openai.OpenAI) -> None:
    answer = await thread(partial(gpt.completions.create, model="llama3:8b", prompt="x", max_tokens=4))
    assert (answer.choices[0].finish_reason, answer.usage and answer.usage.completion_tokens) == ("length", 4)
    assert {model.id for model in await thread(lambda: list(gpt.models.list()))} >= {"llama3:8b"}
    assert (await thread(partial(gpt.models.retrieve, "llama3:8b"))).owned_by == "library"


async def test_openai_embeds_as_floats_and_as_base64(gpt: openai.OpenAI) -> None:
    packed = await thread(partial(gpt.embeddings.create, model="nomic-embed-text", input="a"))
    plain = await thread(partial(gpt.embeddings.create, model="nomic-embed-text", input="a", encoding_format="float"))
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)


async def test_openai_responds_in_both_ways(gpt: openai.OpenAI) -> None:
    whole = await thread(partial(gpt.responses.create, model="llama3:8b", input="hi"))
    events = await thread(lambda: list(gpt.responses.create(model="llama3:8b", input="hi", stream=True)))
    assert whole.output_text == "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert whole.output_text.startswith("Simulated")
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]


async def test_openai_transcribes(gpt: openai.OpenAI) -> None:
    file = ("a.wav", io.BytesIO(b"RIFF"))
    answer = await thread(partial(gpt.audio.transcriptions.create, model="whisper", file=file))
    assert answer.text.startswith("Simulated")


async def test_openai_reports_errors(gpt: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="model 'none' not found"):
        await thread(partial(gpt.completions.create, model="none", prompt="x"))


# anthropic


@pytest.fixture
def claude(sim: TcpSim) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=sim.url, api_key="none", max_retries=0) as client:
        yield client


async def test_anthropic_gets_messages_in_both_ways(claude: anthropic.Anthropic) -> None:
    def stream() -> tuple[str, anthropic.types.Message]:
        with claude.messages.stream(
            model="llama3:8b", max_tokens=500, messages=[{"role": "user", "content": "hi"}]
        ) as stream:
            return "".join(stream.text_stream), stream.get_final_message()

    whole = await thread(
        lambda: claude.messages.create(model="llama3:8b", max_tokens=500, messages=[{"role": "user", "content": "hi"}])
    )
    text, final = await thread(stream)
    block = whole.content[0]
    assert block.type == "text"
    assert (block.text, whole.stop_reason, whole.usage.output_tokens) == (
        text, final.stop_reason, final.usage.output_tokens,
    )  # fmt: skip


async def test_anthropic_reports_errors(sim: TcpSim, claude: anthropic.Anthropic) -> None:
    sim.host.faults.set("status:503")
    with pytest.raises(anthropic.APIStatusError, match="server busy") as caught:
        await thread(
            lambda: claude.messages.create(
                model="llama3:8b", max_tokens=5, messages=[{"role": "user", "content": "hi"}]
            )
        )
    assert caught.value.status_code == 503
