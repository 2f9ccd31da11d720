"""The official clients, unchanged, against the running fleet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import anthropic
import httpx
import httpx2
import ollama
import openai
import pytest
import trio

from tests.kit.clients.lanes import base_url, both_lanes, socket_path
from tests.kit.fleets.served import Served, served

pytestmark = both_lanes

T = TypeVar("T")


clients: list[ollama.Client] = []


def ollama_client(fleet: Served) -> ollama.Client:
    clients.append(ollama.Client(base_url(fleet.url), transport=httpx.HTTPTransport(uds=socket_path(fleet.url))))
    return clients[-1]


@pytest.fixture(autouse=True)
def _close_clients() -> Iterator[None]:
    yield
    while clients:
        clients.pop().close()  # type: ignore[no-untyped-call]


async def in_thread(work: Callable[[], T]) -> T:
    """The clients are synchronous; the fleet runs in this thread meanwhile."""
    with trio.fail_after(60):
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


def chat_args(**more: Any) -> dict[str, Any]:
    return {"model": "llama3:8b", "messages": [{"role": "user", "content": "hi"}], **more}


async def test_ollama_lists_shows_and_ps() -> None:
    async with served("a", "b") as fleet:
        client = ollama_client(fleet)
        listed = await in_thread(client.list)
        assert {str(model.model) for model in listed.models} >= {"llama3:8b", "tiny:latest"}
        assert (await in_thread(lambda: client.show("llama3:8b"))).details
        await in_thread(lambda: client.chat(**chat_args()))
        for server in fleet.system.servers:
            await fleet.system.probe(server, 5.0)
        assert [str(model.model) for model in (await in_thread(client.ps)).models] == ["llama3:8b"]


@pytest.mark.parametrize("stream", [False, True])
async def test_ollama_chats(stream: bool) -> None:
    async with served("a", "b") as fleet:
        client = ollama_client(fleet)

        def talk() -> tuple[str, bool | None]:
            answer: Any = client.chat(**chat_args(stream=stream))
            parts = list(answer) if stream else [answer]
            return "".join(part.message.content or "" for part in parts), parts[-1].done

        text, done = await in_thread(talk)
        assert "Simulated" in text
        assert done
        await fleet.until_idle()
        fleet.assert_nothing_left()


@pytest.mark.parametrize("stream", [False, True])
async def test_ollama_generates(stream: bool) -> None:
    async with served("a") as fleet:
        client = ollama_client(fleet)

        def talk() -> str:
            args: dict[str, Any] = {"prompt": "hi", "stream": stream}
            answer: Any = client.generate("llama3:8b", **args)
            return "".join(part.response for part in (answer if stream else [answer]))

        assert "Simulated" in await in_thread(talk)


async def test_ollama_embeds() -> None:
    async with served("a") as fleet:
        client = ollama_client(fleet)
        answer = await in_thread(lambda: client.embed("nomic-embed-text", ["one", "two"]))
        assert len(answer.embeddings) == 2
        old = await in_thread(lambda: client.embeddings("nomic-embed-text", "one"))
        assert len(old.embedding) == len(answer.embeddings[0])


async def test_ollama_pulls_copies_deletes() -> None:
    async with served("a", "b") as fleet:
        client = ollama_client(fleet)
        progress = await in_thread(lambda: list(client.pull("newone:1b", stream=True)))
        assert [line.status for line in progress].count("success") == 1
        assert progress[-1].status == "success"
        await in_thread(lambda: client.copy("llama3:8b", "mine"))
        with trio.fail_after(20):
            while "mine:latest" not in {str(m.model) for m in (await in_thread(client.list)).models}:
                await trio.sleep(0.02)
        await in_thread(lambda: client.delete("mine"))
        with trio.fail_after(20):
            while "mine:latest" in {str(m.model) for m in (await in_thread(client.list)).models}:
                await trio.sleep(0.02)


async def test_ollama_sees_ollamas_errors() -> None:
    async with served("a") as fleet:
        client = ollama_client(fleet)

        def ask() -> None:
            client.chat(**chat_args(model="nope"))

        with pytest.raises(ollama.ResponseError) as caught:
            await in_thread(ask)
        assert caught.value.status_code == 404
        assert caught.value.error == "model 'nope' not found"


async def test_ollama_sees_a_broken_stream_as_an_error() -> None:
    async with served("a") as fleet:
        fleet.sims["a"].host.faults.set("reset-mid-stream:3")
        client = ollama_client(fleet)

        def ask() -> None:
            list(client.chat(**chat_args(stream=True)))

        with pytest.raises(ollama.ResponseError) as caught:
            await in_thread(ask)
        assert isinstance(caught.value.error, str)


async def test_ollama_sees_a_full_fleet_as_503() -> None:
    async with served("a", slots=1, queue={"max_size": 0}) as fleet, trio.open_nursery() as nursery:
        fleet.sims["a"].host.faults.set("hang-before-headers")
        nursery.start_soon(hold_one, fleet)
        with trio.fail_after(20):
            while not fleet.system.in_flight:
                await trio.sleep(0.01)
        client = ollama_client(fleet)
        with pytest.raises(ollama.ResponseError) as caught:
            await in_thread(lambda: client.chat(**chat_args()))
        assert caught.value.status_code == 503
        nursery.cancel_scope.cancel()


async def hold_one(fleet: Served) -> None:
    async with fleet.client() as http:
        await http.post("/api/chat", json=chat_args())


def openai_client(fleet: Served) -> openai.OpenAI:
    http = httpx2.Client(transport=httpx2.HTTPTransport(uds=socket_path(fleet.url)))
    return openai.OpenAI(base_url=f"{base_url(fleet.url)}/v1", api_key="none", max_retries=0, http_client=http)


@pytest.mark.parametrize("stream", [False, True])
async def test_openai_chats(stream: bool) -> None:
    async with served("a", "b") as fleet:
        with openai_client(fleet) as client:

            def talk() -> str:
                answer: Any = client.chat.completions.create(**chat_args(stream=stream))
                if not stream:
                    return str(answer.choices[0].message.content)
                return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)

            assert "Simulated" in await in_thread(talk)
        await fleet.until_idle()
        fleet.assert_nothing_left()


async def test_openai_lists_completes_embeds_responds() -> None:
    async with served("a") as fleet:
        with openai_client(fleet) as client:
            assert "llama3:8b" in {model.id for model in (await in_thread(client.models.list)).data}
            assert (await in_thread(lambda: client.models.retrieve("llama3:8b"))).id == "llama3:8b"
            done = await in_thread(lambda: client.completions.create(model="llama3:8b", prompt="hi"))
            assert "Simulated" in done.choices[0].text
            vectors = await in_thread(lambda: client.embeddings.create(model="nomic-embed-text", input=["a", "b"]))
            assert len(vectors.data) == 2
            answer = await in_thread(lambda: client.responses.create(model="llama3:8b", input="hi"))
            assert "Simulated" in answer.output_text


async def test_openai_sees_its_own_errors() -> None:
    async with served("a") as fleet:
        with openai_client(fleet) as client:
            with pytest.raises(openai.NotFoundError) as caught:
                await in_thread(lambda: client.chat.completions.create(**chat_args(model="nope")))
            assert "nope" in caught.value.message
            fleet.sims["a"].host.faults.set("reset-mid-stream:3")
            with pytest.raises(openai.APIError):
                await in_thread(lambda: list(client.chat.completions.create(**chat_args(stream=True))))


def anthropic_client(fleet: Served) -> anthropic.Anthropic:
    http = httpx2.Client(transport=httpx2.HTTPTransport(uds=socket_path(fleet.url)))
    return anthropic.Anthropic(base_url=base_url(fleet.url), api_key="none", max_retries=0, http_client=http)


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropic_sends_messages(stream: bool) -> None:
    async with served("a", "b") as fleet:
        with anthropic_client(fleet) as client:

            def talk() -> str:
                if stream:
                    with client.messages.stream(max_tokens=50, **chat_args()) as running:
                        return "".join(running.text_stream)
                block: Any = client.messages.create(max_tokens=50, **chat_args()).content[0]
                return str(block.text)

            assert "Simulated" in await in_thread(talk)


async def test_anthropic_sees_its_own_errors() -> None:
    async with served("a") as fleet:
        with anthropic_client(fleet) as client:
            with pytest.raises(anthropic.NotFoundError):
                await in_thread(lambda: client.messages.create(max_tokens=5, **chat_args(model="nope")))
            fleet.sims["a"].host.faults.set("reset-mid-stream:3")

            def talk() -> str:
                with client.messages.stream(max_tokens=50, **chat_args()) as running:
                    return "".join(running.text_stream)

            with pytest.raises(anthropic.APIError):
                await in_thread(talk)
