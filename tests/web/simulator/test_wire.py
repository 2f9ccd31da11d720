"""The simulated server's bytes, over real sockets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import zstandard

from fleet.simulator import Profile
from tests.kit.clients.raw import ask_once, chunks, json_of, parse, read_all, read_until, request_bytes
from tests.kit.fleets.tcp import TcpSim, sim_server

FAST = Profile(load_seconds=0.02, tokens_per_second=5000, prefill_per_second=100_000, pull_seconds=0.02)
CHAT = {"model": "llama3:8b", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def sim() -> AsyncIterator[TcpSim]:
    with trio.fail_after(60):
        async with sim_server("llama3:8b:4.7GB,nomic-embed-text:latest:274MB", FAST) as sim:
            yield sim


async def ask(sim: TcpSim, method: str, path: str, body: object = None, *headers: str) -> bytes:
    return await ask_once(await trio.open_tcp_stream("127.0.0.1", sim.port), method, path, body, *headers)


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/", 200, b"Ollama is running"),
        ("GET", "/api/version", 200, b'{"version":"0.33.0"}'),
        ("GET", "/api/nothing", 404, b"404 page not found"),
        ("GET", "/API/tags", 404, b"404 page not found"),
        ("GET", "/v1/models/a%2Fb", 404, b"404 page not found"),
        ("GET", "/v1/messages/count_tokens", 404, b"404 page not found"),
        ("POST", "/api/tags", 405, b"405 method not allowed"),
        ("HEAD", "/api/ps", 405, b""),
        ("HEAD", "/", 200, b""),
    ],
)
async def test_routes_answer_as_in_ollama(sim: TcpSim, method: str, path: str, status: int, body: bytes) -> None:
    assert parse(await ask(sim, method, path))[::2] == (status, body)


async def test_head_has_the_length_but_no_body(sim: TcpSim) -> None:
    _, headers, _ = parse(await ask(sim, "HEAD", "/"))
    assert headers["content-length"] == "17"
    assert "server" not in headers


@pytest.mark.parametrize(("method", "status"), [("GET", 301), ("POST", 307)])
async def test_a_trailing_slash_is_redirected(sim: TcpSim, method: str, status: int) -> None:
    found, headers, _ = parse(await ask(sim, method, "/api/tags/"))
    assert (found, headers["location"]) == (status, "/api/tags")


@pytest.mark.parametrize(
    ("header", "status"),
    [("localhost:1", 200), ("10.0.0.1", 200), ("[::1]:99", 200), ("x.internal", 200), ("evil.example", 403)],
)
async def test_foreign_hosts_are_refused(sim: TcpSim, header: str, status: int) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", sim.port)
    async with stream:
        await stream.send_all(f"GET / HTTP/1.1\r\nHost: {header}\r\nConnection: close\r\n\r\n".encode())
        assert parse(await read_all(stream))[0] == status


async def test_origins_are_allowed_or_refused(sim: TcpSim) -> None:
    refused = parse(await ask(sim, "GET", "/", None, "Origin: https://evil.example"))
    assert (refused[0], refused[2]) == (403, b"")
    _, headers, _ = parse(await ask(sim, "GET", "/", None, "Origin: http://localhost:3000"))
    assert headers["access-control-allow-origin"] == "http://localhost:3000"
    status, headers, _ = parse(await ask(sim, "OPTIONS", "/api/chat", None, "Origin: http://localhost:3000"))
    assert (status, headers["access-control-max-age"]) == (204, "43200")


async def test_each_line_is_a_chunk_and_the_last_comes_with_the_terminator(sim: TcpSim) -> None:
    answer = await ask(sim, "POST", "/api/chat", CHAT)
    body = answer.partition(b"\r\n\r\n")[2]
    lines = chunks(body)
    assert all(line.endswith(b"}\n") and line.count(b"\n") == 1 for line in lines)
    assert body.endswith(b"0\r\n\r\n")
    assert json.loads(lines[-1])["done"] is True


async def test_openai_streams_end_with_usage_and_done(sim: TcpSim) -> None:
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 3}
    _, headers, content = parse(await ask(sim, "POST", "/v1/chat/completions", body))
    events = content.decode().split("\n\n")
    assert headers["content-type"] == "text/event-stream"
    assert events[-2:] == ["data: [DONE]", ""]
    parsed = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert parsed[0]["choices"][0]["delta"] == {"role": "assistant", "content": "Simulated"}
    assert parsed[-2]["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "length"}
    assert (parsed[-1]["choices"], parsed[-1]["usage"]["completion_tokens"]) == ([], 3)


V1_ERRORS: list[tuple[str, Any, int, str, str]] = [
    ("/v1/chat/completions", None, 400, "invalid_request_error", "EOF"),
    ("/v1/chat/completions", {}, 400, "invalid_request_error", "model is required"),
    ("/v1/chat/completions", {**CHAT, "model": "none"}, 404, "not_found_error", "model 'none' not found"),
    ("/v1/embeddings", {"model": "none", "input": "x"}, 404, "not_found_error",
     'model "none" not found, try pulling it first'),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "status", "kind", "text"), V1_ERRORS)
async def test_openai_errors_are_objects(
    sim: TcpSim, path: str, body: object, status: int, kind: str, text: str
) -> None:
    error = {"message": text, "type": kind, "param": None, "code": None}
    assert json_of(await ask(sim, "POST", path, body)) == (status, {"error": error})


async def test_anthropic_errors_have_their_own_shape(sim: TcpSim) -> None:
    status, body = json_of(await ask(sim, "POST", "/v1/messages?beta=true", {**CHAT, "model": "x", "max_tokens": 5}))
    assert (status, body["type"], body["error"]["type"]) == (404, "error", "not_found_error")


async def test_an_empty_server_lists_null() -> None:
    with trio.fail_after(20):
        async with sim_server("") as sim:
            assert json_of(await ask(sim, "GET", "/v1/models"))[1] == {"object": "list", "data": None}
            assert json_of(await ask(sim, "GET", "/api/tags"))[1] == {"models": []}


async def test_zstd_bodies_are_read_on_v1_only(sim: TcpSim) -> None:
    packed = zstandard.compress(json.dumps(CHAT).encode())
    assert parse(await ask(sim, "POST", "/v1/chat/completions", packed, "Content-Encoding: zstd"))[0] == 200
    assert parse(await ask(sim, "POST", "/api/chat", packed, "Content-Encoding: zstd"))[0] == 400
    assert parse(await ask(sim, "POST", "/v1/chat/completions", b"junk", "Content-Encoding: zstd"))[0] == 400


async def test_http_1_0_gets_an_unframed_answer(sim: TcpSim) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", sim.port)
    async with stream:
        await stream.send_all(request_bytes("POST", "/api/chat", CHAT, version="1.0"))
        _, headers, body = parse(await read_all(stream))
    assert "transfer-encoding" not in headers
    assert json.loads(body.splitlines()[-1])["done"] is True


async def test_connections_are_kept_and_pipelining_works(sim: TcpSim) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", sim.port)
    async with stream:
        await stream.send_all(request_bytes("POST", "/api/chat", CHAT) + request_bytes("GET", "/api/version"))
        answer = await read_until(stream, b'{"version":"0.33.0"}')
        assert answer.count(b"HTTP/1.1 200 OK") == 2
        assert sim.host.open_connections == 1


async def test_large_headers_and_wrong_syntax(sim: TcpSim) -> None:
    assert parse(await ask(sim, "GET", "/", None, "X-Big: " + "x" * 200_000))[0] == 200
    stream = await trio.open_tcp_stream("127.0.0.1", sim.port)
    async with stream:
        await stream.send_all(b"not http at all\r\n\r\n")
        assert parse(await read_all(stream))[0] == 400


async def test_blobs_are_hashed_on_the_way_in(sim: TcpSim) -> None:
    content = b"x" * 300_000
    path = f"/api/blobs/sha256:{hashlib.sha256(content).hexdigest()}"
    assert parse(await ask(sim, "HEAD", path))[0] == 404
    assert parse(await ask(sim, "POST", path, content))[0] == 201
    assert parse(await ask(sim, "HEAD", path))[0] == 200
    wrong = "/api/blobs/sha256:" + "0" * 64
    status, body = json_of(await ask(sim, "POST", wrong, content))
    assert (status, body["error"].startswith('digest mismatch, expected "sha256:000')) == (400, True)
    assert json_of(await ask(sim, "POST", "/api/blobs/nonsense", b"x"))[1] == {"error": "invalid digest format"}


async def test_a_blob_that_exists_is_answered_without_reading_it(sim: TcpSim) -> None:
    digest = "sha256:" + "1" * 64
    sim.host.blobs.add(digest)
    stream = await trio.open_tcp_stream("127.0.0.1", sim.port)
    async with stream:
        head = f"POST /api/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n"
        await stream.send_all(head.encode() + b"x" * 1000)
        status, headers, _ = parse(await read_all(stream))
        assert (status, headers["connection"]) == (200, "close")


@pytest.mark.parametrize(("known", "first"), [(False, b"HTTP/1.1 100 "), (True, b"HTTP/1.1 200 OK")])
async def test_expecting_100_continue(sim: TcpSim, known: bool, first: bytes) -> None:
    digest = f"sha256:{hashlib.sha256(b'blob').hexdigest()}"
    sim.host.blobs |= {digest} if known else set()
    stream = await trio.open_tcp_stream("127.0.0.1", sim.port)
    async with stream:
        head = f"POST /api/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
        await stream.send_all(head.encode() + b"Expect: 100-continue\r\n\r\n")
        assert (await read_until(stream, b"\r\n\r\n")).startswith(first)
        if not known:
            await stream.send_all(b"blob")
            assert b"HTTP/1.1 201" in await read_until(stream, b"\r\n\r\n")


async def test_transcriptions_take_a_form() -> None:
    parts = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n'
    parts += b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--B--\r\n'
    kind = "Content-Type: multipart/form-data; boundary=B"
    with trio.fail_after(20):
        async with sim_server("whisper:latest:1GB", FAST) as sim:
            status, body = json_of(await ask(sim, "POST", "/v1/audio/transcriptions", parts, kind))
    assert (status, body["text"].startswith("Simulated")) == (200, True)


async def test_hundreds_of_streams_at_once_end_well() -> None:
    ends: list[bytes] = []
    profile = Profile(slots=2000, load_seconds=0.01, tokens_per_second=50, prefill_per_second=1e6)
    body = {**CHAT, "options": {"num_predict": 20}}

    async def one(port: int) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        ends.append((await ask_once(stream, "POST", "/api/chat", body))[-200:])

    with trio.fail_after(60):
        async with sim_server(profile=profile) as sim, trio.open_nursery() as nursery:
            for _ in range(300):
                nursery.start_soon(one, sim.port)
    assert len(ends) == 300
    assert all(b'"eval_count":20' in end for end in ends)
