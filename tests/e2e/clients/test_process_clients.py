"""The official clients against real processes: two `fleet sim` behind one `fleet serve`; one of them dies."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anthropic
import ollama
import openai
import pytest
import trio

from tests.e2e.processes import Running, fleet_of_two
from tests.e2e.support import Answer, ask

pytestmark = pytest.mark.slow

T = TypeVar("T")
MODEL = "llama3:8b"
TURN: list[Any] = [{"role": "user", "content": "Hi"}]


async def in_thread(work: Callable[[], T]) -> T:
    with trio.fail_after(60):
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


def talk_to_ollama(url: str) -> None:
    with closing(ollama.Client(url)) as client:
        assert {str(model.model) for model in client.list().models} == {MODEL, "nomic-embed-text:latest"}
        assert client.show(MODEL).details is not None
        whole = client.chat(MODEL, TURN)
        assert "Simulated" in (whole.message.content or "")
        parts = list(client.chat(MODEL, TURN, stream=True))
        assert len(parts) > 2
        assert parts[-1].done
        assert "Simulated" in "".join(part.message.content or "" for part in parts)
        assert "Simulated" in (client.generate(MODEL, "Hi").response or "")
        pieces = list(client.generate(MODEL, "Hi", stream=True))
        assert pieces[-1].done
        assert "Simulated" in "".join(piece.response or "" for piece in pieces)
        assert len(client.embed("nomic-embed-text", ["a", "b"]).embeddings) == 2
        with pytest.raises(ollama.ResponseError) as caught:
            client.chat("nope", TURN)
        assert (caught.value.status_code, caught.value.error) == (404, "model 'nope' not found")


def talk_to_openai(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(model=MODEL, messages=TURN)
        assert "Simulated" in (answer.choices[0].message.content or "")


def talk_to_anthropic(url: str) -> None:
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        block: Any = client.messages.create(model=MODEL, max_tokens=50, messages=TURN).content[0]
        assert "Simulated" in block.text


async def test_every_official_client_is_served(tmp_path: Path) -> None:
    async with fleet_of_two(tmp_path, "--load-seconds", "0.1", "--tokens-per-second", "400") as running:
        for talk in (talk_to_ollama, talk_to_openai, talk_to_anthropic):
            await in_thread(partial(talk, running.url))
        in_flight = await ask(running.orchestrator_url, "GET", "/api/orchestrator/in-flight")
        assert in_flight.json()["total"] == 0


async def busy_server(running: Running) -> str:
    """The server that loads the model for the one request."""
    with trio.fail_after(60):
        while True:
            for name, sim in running.sims.items():
                if (await ask(sim.url, "GET", "/sim/state")).json()["loading"]:
                    return name
            await trio.sleep(0.02)


async def test_a_killed_process_costs_a_request_that_had_not_begun_nothing(tmp_path: Path) -> None:
    async with fleet_of_two(tmp_path, "--load-seconds", "2") as running, trio.open_nursery() as nursery:
        answers: list[Answer] = []

        async def chat() -> None:
            body = {"model": MODEL, "messages": TURN, "options": {"num_predict": 5}}
            answers.append(await ask(running.url, "POST", "/api/chat", body))

        nursery.start_soon(chat)
        victim = await busy_server(running)
        assert not answers
        running.sims[victim].process.kill()
        with trio.fail_after(60):
            while not answers:
                await trio.sleep(0.02)
        (answer,) = answers
        assert answer.status == 200
        assert answer.headers["x-fleet-server"] == ({"a", "b"} - {victim}).pop()
        assert answer.headers["x-fleet-attempts"] == "2"
        assert json.loads(answer.body.splitlines()[-1])["done"] is True
