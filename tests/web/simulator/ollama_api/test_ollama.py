"""The simulated server's native routes, in memory on virtual time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fleet.simulator import Profile
from tests.kit.fleets.backends import FakeBackend

MODELS = "llama3:8b:4.7GB,qwen3:4b:3GB,nomic-embed-text:latest:274MB"
CHAT = {"model": "llama3:8b", "messages": [{"role": "user", "content": "hi"}]}


# pytest-trio gives a test the virtual clock only if the test itself asks for it: each one here does.


@pytest.fixture
async def backend(nursery: trio.Nursery) -> FakeBackend:
    return FakeBackend(nursery, MODELS, Profile(load_seconds=10, slots=2))


@pytest.fixture
async def client(backend: FakeBackend) -> AsyncIterator[httpx.AsyncClient]:
    async with backend.client() as client:
        yield client


async def test_a_chat_streams_one_compact_line_per_token(autojump_clock: MockClock, client: httpx.AsyncClient) -> None:
    response = await client.post("/api/chat", json=CHAT)
    lines = [json.loads(line) for line in response.content.splitlines()]
    assert response.headers["content-type"] == "application/x-ndjson"
    assert lines[0]["message"]["content"] == "Simulated"
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    last = lines[-1]
    assert last["eval_count"] == len(lines) - 1
    assert last["load_duration"] > 10e9
    assert last["total_duration"] >= last["load_duration"] + last["prompt_eval_duration"] + last["eval_duration"]
    assert b'": ' not in response.content


async def test_without_streaming_there_is_one_object_with_its_length(
    autojump_clock: MockClock, client: httpx.AsyncClient
) -> None:
    body = {"model": " LLAMA3:8b ", "prompt": "hi", "stream": False, "options": {"num_predict": 5}}
    response = await client.post("/api/generate", json=body)
    answer = response.json()
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert int(response.headers["content-length"]) == len(response.content)
    assert (answer["model"], answer["done_reason"], answer["eval_count"]) == (" LLAMA3:8b ", "length", 5)
    assert answer["response"].startswith("Simulated answer:")


async def test_equal_requests_get_equal_words_on_every_server(
    autojump_clock: MockClock, nursery: trio.Nursery, client: httpx.AsyncClient
) -> None:
    texts = set()
    async with FakeBackend(nursery, MODELS, seed=7).client() as other:
        for each in (client, other):
            texts.add((await each.post("/api/chat", json={**CHAT, "stream": False})).json()["message"]["content"])
    assert len(texts) == 1


async def test_no_prompt_loads_and_a_keep_alive_of_zero_unloads(
    autojump_clock: MockClock, client: httpx.AsyncClient
) -> None:
    loaded = await client.post("/api/generate", json={"model": "llama3:8b"})
    assert (loaded.json()["done"], loaded.json()["done_reason"]) == (True, "load")
    assert [row["name"] for row in (await client.get("/api/ps")).json()["models"]] == ["llama3:8b"]
    unloaded = await client.post("/api/chat", json={"model": "llama3:8b", "messages": [], "keep_alive": 0})
    assert unloaded.json()["done_reason"] == "unload"
    assert (await client.get("/api/ps")).json() == {"models": []}


async def test_a_model_being_loaded_is_not_in_ps(
    autojump_clock: MockClock, client: httpx.AsyncClient, backend: FakeBackend, nursery: trio.Nursery
) -> None:
    async with backend.client() as other:
        nursery.start_soon(lambda: other.post("/api/generate", json={"model": "llama3:8b"}))
        await trio.sleep(5)
        assert (await client.get("/api/ps")).json() == {"models": []}
        await trio.sleep(6)
        assert (await client.get("/api/ps")).json()["models"][0]["size_vram"] == 4_700_000_000


async def test_leaving_during_the_load_kills_the_load(
    autojump_clock: MockClock, client: httpx.AsyncClient, backend: FakeBackend
) -> None:
    with trio.move_on_after(4):
        await client.post("/api/generate", json={"model": "llama3:8b", "prompt": "x"})
    await wait_all_tasks_blocked()
    assert backend.host.server.loading is None
    assert backend.host.requests[-1].client_left
    assert backend.host.active_requests == 0


@pytest.mark.parametrize("seconds", [10.0005, 10.5, 11.0])
async def test_leaving_during_prefill_or_decode_frees_the_slot(
    autojump_clock: MockClock, client: httpx.AsyncClient, backend: FakeBackend, seconds: float
) -> None:
    body = {"model": "llama3:8b", "prompt": "x" * 3000, "options": {"num_predict": 500}}
    with trio.move_on_after(seconds):
        await client.post("/api/generate", json=body)
    await wait_all_tasks_blocked()
    (runner,) = backend.host.server.runners.values()
    assert runner.idle


async def test_closing_one_direction_counts_as_leaving(autojump_clock: MockClock, backend: FakeBackend) -> None:
    stream = await backend.dial()
    assert isinstance(stream, trio.abc.HalfCloseableStream)
    body = json.dumps(CHAT).encode()
    await stream.send_all(
        b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    await trio.sleep(1)
    await stream.send_eof()
    await wait_all_tasks_blocked()
    assert backend.host.requests[-1].client_left
    assert backend.host.server.loading is None


async def test_a_client_that_does_not_read_holds_its_slot(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    backend = FakeBackend(nursery, MODELS, capacity=2000)
    stream = await backend.dial()
    body = json.dumps({**CHAT, "options": {"num_predict": 100}}).encode()
    await stream.send_all(
        b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    await trio.sleep(600)
    (runner,) = backend.host.server.runners.values()
    assert len(runner.active) == 1


async def test_slots_bound_what_runs_at_once(autojump_clock: MockClock, backend: FakeBackend) -> None:
    done: list[float] = []

    async def one() -> None:
        async with backend.client() as client:
            await client.post("/api/chat", json={**CHAT, "options": {"num_predict": 50}})
        done.append(trio.current_time())

    start = trio.current_time()
    async with trio.open_nursery() as asking:
        for _ in range(6):
            asking.start_soon(one)
    assert backend.host.max_active == 6
    assert [round(at - start - 10) for at in sorted(done)] == [1, 1, 2, 2, 3, 3]


ERRORS: list[tuple[str, Any, int, str]] = [
    ("/api/chat", b"", 400, "missing request body"),
    ("/api/chat", b'{"model":', 400, "unexpected EOF"),
    ("/api/chat", b"x", 400, "invalid character 'x' looking for beginning of value"),
    ("/api/chat", b"\xef\xbb\xbf{}", 400, "invalid character 'ï' looking for beginning of value"),
    ("/api/chat", b'{"a":1,}', 400, "invalid character '}' looking for beginning of object key string"),
    ("/api/chat", b"[]", 400, "json: cannot unmarshal array into Go value of type api.ChatRequest"),
    ("/api/chat", {"model": 5}, 400,
     "json: cannot unmarshal number into Go struct field ChatRequest.model of type string"),
    ("/api/chat", {}, 400, "model is required"),
    ("/api/generate", {}, 404, "model '' not found"),
    ("/api/embed", {}, 404, "model '' not found"),
    ("/api/chat", {"model": "a b"}, 400, "invalid model name"),
    ("/api/chat", {"model": "none"}, 404, "model 'none' not found"),
    ("/api/embed", {"model": "none", "input": "x"}, 404, 'model "none" not found, try pulling it first'),
    ("/api/embeddings", {"model": "NOMIC-embed-text", "prompt": "x"}, 404,
     'model "NOMIC-embed-text" not found, try pulling it first'),
    ("/api/show", {"model": "none"}, 404, "model 'none:latest' not found"),
    ("/api/copy", {"source": "none", "destination": "x"}, 404, 'model "none" not found'),
    ("/api/chat", {**CHAT, "model": "nomic-embed-text"}, 400, '"nomic-embed-text" does not support chat'),
    ("/api/chat", {**CHAT, "think": True}, 400, '"llama3:8b" does not support thinking'),
    ("/api/chat", {**CHAT, "keep_alive": "10"}, 400, 'time: missing unit in duration "10"'),
    ("/api/chat", {**CHAT, "options": {"num_ctx": "5"}}, 500, 'option "num_ctx" must be of type integer'),
    ("/api/chat", {**CHAT, "format": "5"}, 500, 'invalid format: "5"; expected "json" or a valid JSON Schema object'),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "status", "text"), ERRORS)
async def test_errors_have_the_words_of_ollama(
    autojump_clock: MockClock, client: httpx.AsyncClient, path: str, body: Any, status: int, text: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = await client.post(path, content=content)
    assert (response.status_code, response.json()) == (status, {"error": text})


@pytest.mark.parametrize(
    "body",
    [
        b'{"MODEL":"llama3:8b"}',
        b'{"model":"none","Model":"llama3:8b"}',
        b'{"Model":"none","model":"x","MODEL":"llama3:8b"} trailing garbage',
        b'{"model":"llama3:8b","x":"\xff\xfe"}',
    ],
)
async def test_bodies_are_read_as_go_reads_them(
    autojump_clock: MockClock, client: httpx.AsyncClient, body: bytes
) -> None:
    response = await client.post("/api/generate", content=body, headers={"Content-Type": "text/plain"})
    assert response.json()["done_reason"] == "load"


async def test_embeddings_come_in_both_forms(autojump_clock: MockClock, client: httpx.AsyncClient) -> None:
    many = (await client.post("/api/embed", json={"model": "nomic-embed-text", "input": ["a", "b"]})).json()
    assert [len(vector) for vector in many["embeddings"]] == [768, 768]
    assert many["prompt_eval_count"] == 2
    one = (await client.post("/api/embeddings", json={"model": "nomic-embed-text", "prompt": "a"})).json()
    assert one["embedding"] == many["embeddings"][0]
    none = (await client.post("/api/embed", json={"model": "nomic-embed-text", "input": []})).json()
    assert none["embeddings"] == []


async def test_models_can_be_copied_shown_and_deleted(autojump_clock: MockClock, client: httpx.AsyncClient) -> None:
    assert (await client.post("/api/copy", json={"source": "qwen3:4b", "destination": "mine"})).content == b""
    assert (await client.post("/api/show", json={"name": "mine"})).json()["details"]["format"] == "gguf"
    rows = (await client.get("/api/tags")).json()["models"]
    assert rows[0]["name"] == "mine:latest"
    assert len({row["digest"] for row in rows}) == 3
    gone = await client.request("DELETE", "/api/delete", json={"model": "mine"})
    assert (gone.status_code, gone.content) == (200, b"")
    assert (await client.request("DELETE", "/api/delete", json={"model": "mine"})).status_code == 404


async def test_pulling_reports_every_digest_and_ends_with_one_success(
    autojump_clock: MockClock, client: httpx.AsyncClient
) -> None:
    lines = (await client.post("/api/pull", json={"model": "phi"})).text.splitlines()
    statuses = [json.loads(line) for line in lines]
    assert statuses[0] == {"status": "pulling manifest"}
    assert [line for line in statuses if line["status"] == "success"] == [statuses[-1]]
    assert len({line["digest"] for line in statuses if "digest" in line}) == 3
    assert "phi:latest" in (await client.get("/api/tags")).text


async def test_pulling_what_does_not_exist_fails_inside_the_stream(
    autojump_clock: MockClock, client: httpx.AsyncClient
) -> None:
    response = await client.post("/api/pull", json={"model": "missing"})
    assert response.status_code == 200
    assert json.loads(response.text.splitlines()[-1]) == {"error": "pull model manifest: file does not exist"}
    assert (await client.post("/api/pull", json={"model": "missing", "stream": False})).status_code == 500


async def test_models_are_created_from_blobs_and_from_others(
    autojump_clock: MockClock, client: httpx.AsyncClient
) -> None:
    digest = "sha256:" + "0" * 64
    absent = await client.post("/api/create", json={"model": "new", "files": {"x.gguf": digest}})
    assert "no such file" in absent.text.splitlines()[-1]
    made = await client.post("/api/create", json={"model": "new", "from": "llama3:8b", "parameters": {"num_ctx": 512}})
    assert '{"status":"success"}' in made.text
    await client.post("/api/generate", json={"model": "new"})
    assert (await client.get("/api/ps")).json()["models"][0]["context_length"] == 512


async def test_the_clients_view_of_time_follows_the_virtual_clock(
    autojump_clock: MockClock, client: httpx.AsyncClient
) -> None:
    await client.post("/api/generate", json={"model": "llama3:8b", "keep_alive": "1h"})
    first = (await client.get("/api/ps")).json()["models"][0]["expires_at"]
    await trio.sleep(3000)
    assert (await client.get("/api/ps")).json()["models"][0]["expires_at"] == first
    await trio.sleep(700)
    assert (await client.get("/api/ps")).json() == {"models": []}


async def test_pushing_reports_progress_and_errors_inside_the_stream(
    autojump_clock: MockClock, client: httpx.AsyncClient
) -> None:
    lines = (await client.post("/api/push", json={"model": "llama3:8b"})).text.splitlines()
    assert json.loads(lines[-1]) == {"status": "success"}
    unknown = await client.post("/api/push", json={"model": "none"})
    assert (unknown.status_code, json.loads(unknown.text.splitlines()[-1])) == (
        200,
        {"error": "model 'none' not found"},
    )


async def test_message_parts_are_joined_and_remote_images_refused(
    autojump_clock: MockClock, client: httpx.AsyncClient
) -> None:
    def body(url: str) -> dict[str, Any]:
        parts = [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": url}}]
        return {"model": "llama3:8b", "messages": [{"role": "user", "content": parts}]}

    assert (await client.post("/v1/chat/completions", json=body("data:image/png;base64,AA=="))).status_code == 200
    assert (await client.post("/v1/chat/completions", json=body("http://x.example/a.png"))).status_code == 400


async def test_a_json_format_gets_json(autojump_clock: MockClock, client: httpx.AsyncClient) -> None:
    response = await client.post("/api/chat", json={**CHAT, "stream": False, "format": "json"})
    assert json.loads(response.json()["message"]["content"]) == {"simulated": True}
