"""Every inference endpoint over real sockets: what the client gets, and what the server behind saw of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import zstandard

from fleet.protocol.endpoints import ENDPOINTS, PINNABLE
from tests.e2e.relay.product import SWIFT, last_seen, product
from tests.e2e.support import (
    BOUNDARY,
    CHAT,
    EMBED,
    MODELS,
    ROUTES,
    SHOW,
    TURN,
    ask,
    events,
    every_door,
    form,
    inference_seen,
)
from tests.kit.fleets.served import Served, served

SIMULATED = "Simulated"


def text_of(line: dict[str, Any]) -> str:
    """The text in a record of a native answer."""
    return str(line["response"] if "response" in line else line["message"]["content"])


@every_door
async def test_generate_and_chat_stream_ndjson_unless_told_not_to(port: Callable[[Served], str]) -> None:
    async with product() as fleet:
        for path, more in (("/api/generate", {"prompt": "Hi"}), ("/api/chat", {"messages": TURN})):
            body = {"model": CHAT, **more}
            for stream in ({}, {"stream": True}, {"stream": None}):
                answer = await ask(port(fleet), "POST", path, {**body, **stream})
                assert answer.headers["content-type"] == "application/x-ndjson"
                assert answer.headers["transfer-encoding"] == "chunked"
                assert answer.lines[-1]["done"] is True
                assert answer.lines[-1]["done_reason"] == "stop"
                assert all(not line["done"] for line in answer.lines[:-1])
                streamed = "".join(map(text_of, answer.lines))
            whole = await ask(port(fleet), "POST", path, {**body, "stream": False})
            assert whole.headers["content-type"] == "application/json; charset=utf-8"
            assert int(whole.headers["content-length"]) == len(whole.body)
            assert text_of(whole.json()) == streamed
            assert SIMULATED in streamed


@every_door
async def test_native_streams_become_events_for_who_asks_for_them(port: Callable[[Served], str]) -> None:
    async with product() as fleet:
        for route in ROUTES[:2]:
            answer = await ask(port(fleet), "POST", route.path, route.fields, "Accept: text/event-stream")
            assert answer.headers["content-type"] == "text/event-stream"
            records = [json.loads(data) for _, data in events(answer.body)]
            assert answer.body.startswith(b"data: {")
            assert answer.body.endswith(b"}\n\n")
            assert records[-1]["done"] is True
            for accept in (
                "*/*",
                "application/json",
                "application/x-ndjson, text/event-stream",
                "text/event-stream, application/json",
                "text/event-stream, */*",
            ):
                usual = await ask(port(fleet), "POST", route.path, route.fields, f"Accept: {accept}")
                assert usual.headers["content-type"] == "application/x-ndjson"


@every_door
async def test_embeddings_and_show(port: Callable[[Served], str]) -> None:
    async with product() as fleet:
        many = await ask(port(fleet), "POST", "/api/embed", {"model": EMBED, "input": ["a", "b"]})
        assert len(many.json()["embeddings"]) == 2
        assert many.json()["model"] == EMBED
        old = await ask(port(fleet), "POST", "/api/embeddings", {"model": EMBED, "prompt": "a"})
        assert len(old.json()["embedding"]) == len(many.json()["embeddings"][0])
        v1 = await ask(port(fleet), "POST", "/v1/embeddings", {"model": EMBED, "input": "a"})
        assert v1.json()["data"][0]["object"] == "embedding"
        for key in ("model", "name"):
            shown = await ask(port(fleet), "POST", "/api/show", {key: CHAT})
            assert shown.status == 200
            assert "completion" in shown.json()["capabilities"]


@every_door
async def test_openai_and_anthropic_routes(port: Callable[[Served], str]) -> None:
    async with product() as fleet:
        for route in ROUTES:
            if not route.path.startswith("/v1/") or not route.streams:
                continue
            assert route.fields is not None
            silent = await ask(port(fleet), "POST", route.path, route.fields)
            assert silent.status == 200
            assert silent.headers["content-type"] == "application/json"
            assert SIMULATED in silent.text
            answer = await ask(port(fleet), "POST", route.path, {**route.fields, "stream": True})
            assert answer.headers["content-type"] == "text/event-stream"
            seen = list(events(answer.body))
            if "completions" in route.path:
                assert seen[-1] == ("", "[DONE]")
            else:
                assert seen[-1][0] in ("message_stop", "response.completed")
                assert answer.headers["cache-control"] == "no-cache"


@every_door
async def test_the_query_of_messages_goes_on(port: Callable[[Served], str]) -> None:
    async with product() as fleet:
        body = {"model": CHAT, "messages": TURN, "max_tokens": 9}
        await ask(port(fleet), "POST", "/v1/messages?beta=true&x=%2F", body, "Anthropic-Version: 2023-06-01")
        assert last_seen(fleet).target == "/v1/messages?beta=true&x=%2F"
        assert last_seen(fleet).header("anthropic-version") == "2023-06-01"


@every_door
async def test_a_transcription_is_a_form_whose_model_may_come_last(port: Callable[[Served], str]) -> None:
    async with product() as fleet:
        body = form(audio=bytes(range(256)) * 100)
        answer = await ask(
            port(fleet),
            "POST",
            "/v1/audio/transcriptions",
            body,
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
        )
        assert answer.status == 200
        assert SIMULATED in answer.json()["text"]
        assert last_seen(fleet).body == body
        wrong = form("no-such-model")
        answer = await ask(
            port(fleet),
            "POST",
            "/v1/audio/transcriptions",
            wrong,
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
        )
        assert answer.status == 404


@every_door
async def test_compressed_bodies_are_understood_and_go_on_compressed(port: Callable[[Served], str]) -> None:
    async with product() as fleet:
        for route in ROUTES:
            if not route.path.startswith("/v1/") or route.fields is None or "--" in route.path:
                continue
            body = zstandard.compress(json.dumps(route.fields).encode())
            answer = await ask(port(fleet), "POST", route.path, body, "Content-Encoding: zstd")
            assert answer.status == 200, answer.raw
            assert last_seen(fleet).body == body
            assert last_seen(fleet).header("content-encoding") == "zstd"
            lost = zstandard.compress(json.dumps({**route.fields, "model": "nope"}).encode())
            assert (await ask(port(fleet), "POST", route.path, lost, "Content-Encoding: zstd")).status == 404
        bomb = zstandard.compress(b'{"model":"x","y":"' + b"x" * (21 << 20) + b'"}')
        answer = await ask(port(fleet), "POST", "/v1/chat/completions", bomb, "Content-Encoding: zstd")
        assert answer.status == 413


@every_door
async def test_load_and_unload_requests(port: Callable[[Served], str]) -> None:
    async with served("a", "b", "c", models=MODELS, profile=SWIFT) as fleet:
        hosts = [sim.host for sim in fleet.sims.values()]
        for path, more in (("/api/generate", {}), ("/api/generate", {"prompt": ""}), ("/api/chat", {"messages": []})):
            loaded = await ask(port(fleet), "POST", path, {"model": CHAT, "stream": True, **more})
            assert loaded.headers["content-type"] == "application/json; charset=utf-8"
            assert loaded.json()["done_reason"] == "load"
            for host in hosts:  # whoever has loaded it, now all of them have
                await ask(fleet.sims[host.id].url, "POST", "/api/generate", {"model": CHAT})
                assert len(host.server.runners) == 1
            unloaded = await ask(port(fleet), "POST", path, {"model": CHAT, "keep_alive": 0, **more})
            assert unloaded.json()["done_reason"] == "unload"
            assert not any(host.server.runners for host in hosts)
        cold = await ask(port(fleet), "POST", "/api/generate", {"model": CHAT, "keep_alive": 0})
        assert (cold.status, cold.json()["done_reason"]) == (200, "unload")


@every_door
async def test_a_server_can_be_addressed_on_the_six_routes(port: Callable[[Served], str]) -> None:
    async with served("a", "b", models=MODELS, profile=SWIFT) as fleet:
        for route in ROUTES:
            if "--" not in route.path:
                continue
            for server in ("a", "b"):
                host = fleet.sims[server].host
                before = len(inference_seen(host))
                path = f"{route.plain_path}--{server}?x=1"
                answer = await ask(port(fleet), "POST", path, route.fields)
                assert (answer.status, answer.headers["x-fleet-server"]) == (200, server)
                assert inference_seen(host)[-1].target == f"{route.plain_path}?x=1"
                assert len(inference_seen(host)) == before + 1
            unknown = await ask(port(fleet), "POST", f"{route.plain_path}--nobody", route.fields)
            assert (unknown.status, unknown.headers["x-fleet-error"]) == (404, "SERVER_NOT_FOUND")
            assert "nobody" in unknown.text
        for path in ("/api/embed--a", "/api/show--a", "/v1/responses--a", "/api/chat--"):
            gone = await ask(port(fleet), "POST", path, ROUTES[1].fields)
            assert (gone.status, gone.body) == (404, b"404 page not found"), path


def test_every_hot_route_of_the_product_is_among_those_tested_here() -> None:
    assert {route.plain_path for route in (*ROUTES, SHOW) if "--" not in route.path} == set(ENDPOINTS)
    assert {route.plain_path for route in ROUTES if "--" in route.path} == set(PINNABLE)
