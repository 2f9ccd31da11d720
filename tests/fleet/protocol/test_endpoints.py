from __future__ import annotations

import json

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from fleet.common.errors import TooLarge
from fleet.common.ids import ANY_MODEL
from fleet.protocol.dialects import ANTHROPIC, NATIVE, OPENAI
from fleet.protocol.endpoints import ENDPOINTS, Understood, known_methods, redirect, rule_of, understand


def ask(path: str, body: dict[str, object] | bytes, *headers: tuple[bytes, bytes]) -> Understood:
    return understand(ENDPOINTS[path], body if isinstance(body, bytes) else json.dumps(body).encode(), headers)


@pytest.mark.parametrize("path", list(ENDPOINTS))
def test_every_hot_endpoint_finds_its_model(path: str) -> None:
    if ENDPOINTS[path].multipart:
        return
    seen = ask(path, {"model": "Llama3", "prompt": "x", "messages": [{}], "input": "x"})
    assert (seen.model, seen.asked_model, seen.cloud) == ("llama3:latest", "Llama3", False)
    assert not seen.is_unload
    assert seen.embedding is ("embed" in path)


@pytest.mark.parametrize(
    ("path", "default", "asked"),
    [
        ("/api/generate", True, True),
        ("/api/chat", True, True),
        ("/api/embed", False, False),
        ("/api/embeddings", False, False),
        ("/api/show", False, False),
        ("/v1/chat/completions", False, True),
        ("/v1/completions", False, True),
        ("/v1/embeddings", False, False),
        ("/v1/responses", False, True),
        ("/v1/messages", False, True),
    ],
)
def test_who_streams(path: str, default: bool, asked: bool) -> None:
    body: dict[str, object] = {"model": "m", "prompt": "x", "messages": [{}]}
    assert ask(path, body).stream is default
    assert ask(path, {**body, "stream": None}).stream is default
    assert ask(path, {**body, "stream": True}).stream is asked
    assert ask(path, {**body, "stream": False}).stream is False


@pytest.mark.parametrize(
    ("path", "body", "load", "unload"),
    [
        ("/api/generate", {}, True, False),
        ("/api/generate", {"messages": [{}]}, True, False),
        ("/api/generate", {"prompt": "x"}, False, False),
        ("/api/generate", {"keep_alive": 0}, True, True),
        ("/api/generate", {"prompt": "x", "keep_alive": 0}, False, False),
        ("/api/chat", {"prompt": "x", "keep_alive": "0s"}, True, True),
        ("/api/chat", {"messages": []}, True, False),
        ("/api/chat", {"messages": [{}]}, False, False),
        ("/api/embed", {}, False, False),
        ("/v1/chat/completions", {"keep_alive": 0}, False, False),
    ],
)
def test_loads_and_unloads(path: str, body: dict[str, object], load: bool, unload: bool) -> None:
    seen = ask(path, {"model": "m", **body})
    assert seen.is_unload is unload
    assert not (load and seen.stream)


@pytest.mark.parametrize("path", list(ENDPOINTS))
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"{}", b'{"model":""}', b'{"model":5}', b'{"model":"a b"}', b'{"model":"x@sha256:0"}'],
)
def test_what_names_no_possible_model_may_go_anywhere(path: str, body: bytes) -> None:
    assert ask(path, body).model == ANY_MODEL


def test_only_show_takes_name_for_model() -> None:
    assert ask("/api/show", {"name": "m"}).model == "m:latest"
    assert ask("/api/show", {"model": "", "name": "m"}).model == "m:latest"
    assert ask("/api/chat", {"name": "m"}).model == ANY_MODEL


def test_cloud_models_are_marked() -> None:
    assert ask("/api/chat", {"model": "gpt-oss:20b:cloud"}).cloud
    assert ask("/api/chat", {"model": "gpt-oss:20b:cloud"}).model == "gpt-oss:20b-cloud"


def test_compressed_bodies_are_read_where_ollama_reads_them() -> None:
    packed = zstandard.compress(b'{"model":"m","stream":true}')
    zstd = (b"Content-Encoding", b"zstd")
    assert ask("/v1/responses", packed, zstd).model == "m:latest"
    assert ask("/v1/responses", packed).model == ANY_MODEL
    assert ask("/api/chat", packed, zstd).model == ANY_MODEL
    assert ask("/v1/responses", b"rubbish", zstd).model == ANY_MODEL
    with pytest.raises(TooLarge):
        ask("/v1/responses", zstandard.compress(b" " * 30_000_000), zstd)
    with pytest.raises(TooLarge):
        understand(ENDPOINTS["/v1/responses"], zstandard.compress(b" " * 2000), [zstd], 1000)


def test_a_transcription_names_its_model_in_a_form() -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--b--\r\n'
    seen = ask("/v1/audio/transcriptions", body, (b"content-type", b"multipart/form-data; boundary=b"))
    assert (seen.model, seen.stream) == ("whisper:latest", False)


def test_dialects_and_peculiarities() -> None:
    assert ENDPOINTS["/api/chat"].dialect is NATIVE
    assert ENDPOINTS["/v1/completions"].dialect is OPENAI
    assert ENDPOINTS["/v1/messages"].dialect is ANTHROPIC
    assert [path for path, endpoint in ENDPOINTS.items() if endpoint.case_sensitive] == ["/api/embeddings"]


@given(st.binary(max_size=80))
def test_rubbish_never_raises(body: bytes) -> None:
    for endpoint in ENDPOINTS.values():
        understand(endpoint, body, [(b"content-type", body), (b"content-encoding", body)])


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/", ("HEAD", "GET")),
        ("/api/tags", ("HEAD", "GET")),
        ("/api/ps", ("GET",)),
        ("/api/chat", ("POST",)),
        ("/api/delete", ("DELETE",)),
        ("/api/blobs/sha256:0", ("HEAD", "POST")),
        ("/api/user/keys/x", ("DELETE",)),
        ("/v1/models", ("GET",)),
        ("/v1/models/llama3:8b", ("GET",)),
        ("/v1/models/ns/model", None),
        ("/v1/models/", None),
        ("/api/blobs/", None),
        ("/api/Tags", None),
        ("/api/tags/", None),
        ("/v1/images/generations", None),
        ("/v1/messages/count_tokens", None),
        ("/health", None),
        ("", None),
    ],
)
def test_ollamas_route_table(path: str, methods: tuple[str, ...] | None) -> None:
    assert known_methods(path) == methods


@pytest.mark.parametrize(
    ("method", "path", "wanted"),
    [
        ("GET", "/api/tags/", (301, "/api/tags")),
        ("HEAD", "/api/tags/", (307, "/api/tags")),
        ("POST", "/api/chat/", (307, "/api/chat")),
        ("GET", "/v1/models/", (301, "/v1/models")),
        ("GET", "/v1/models/x/", (301, "/v1/models/x")),
        ("GET", "/api/chat/", None),
        ("GET", "/api/tags", None),
        ("GET", "/", None),
        ("GET", "//", None),
        ("GET", "/nope/", None),
        ("GET", "/v1/models/x\r\ny: z/", None),
        ("GET", "/api/tags//", None),
    ],
)
def test_one_slash_too_many_is_redirected(method: str, path: str, wanted: tuple[int, str] | None) -> None:
    assert redirect(method, path) == wanted


@pytest.mark.parametrize(
    ("method", "path", "rule"),
    [
        ("GET", "/api/tags", "/api/tags"),
        ("HEAD", "/api/tags", "/api/tags"),
        ("POST", "/api/tags", None),
        ("POST", "/api/chat", "/api/chat"),
        ("POST", "/api/blobs/sha256:0123", "/api/blobs/:digest"),
        ("DELETE", "/api/user/keys/mine", "/api/user/keys/:key"),
        ("GET", "/v1/models/llama3", "/v1/models/:model"),
        ("GET", "/v1/models/a/b", None),
        ("GET", "/v1/models/", None),
        ("GET", "/metrics", None),
        ("get", "/api/tags", None),
    ],
)
def test_a_path_s_rule_names_its_parameter_instead_of_its_value(method: str, path: str, rule: str | None) -> None:
    assert rule_of(method, path) == rule
