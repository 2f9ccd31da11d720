"""TLS on both ports: what clients do over it, and what becomes of those that do it wrong."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import ollama
import openai
import pytest
import trio
import trio.testing
import trustme

from fleet.simulator import Profile
from tests.e2e.support import CHAT, MODELS, TURN, is_idle, until
from tests.kit.clients.edge import Browser, noted_edges, reset
from tests.kit.clients.raw import request_bytes
from tests.kit.fleets.served import Served, served

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """server.tls of the configuration."""
    folder: Path = tmp_path_factory.mktemp("tls")
    leaf = authority.issue_cert("127.0.0.1", "localhost")
    leaf.private_key_pem.write_to_path(folder / "k.pem")
    for blob in leaf.cert_chain_pems:
        blob.write_to_path(folder / "c.pem", append=True)
    return {"certificate": str(folder / "c.pem"), "key": str(folder / "k.pem")}


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """What a client believes."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def secured(files: dict[str, str]) -> Any:
    """Opens the product with TLS; at the end nothing may be left."""

    @asynccontextmanager
    async def opening(**config: Any) -> AsyncIterator[Served]:
        async with served("a", models=MODELS, server={"tls": files}, **config) as fleet:
            assert fleet.url.startswith("https://")
            yield fleet
            await until(lambda: is_idle(fleet))
            fleet.assert_nothing_left()

    return opening


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def over_tls(url: str, context: ssl.SSLContext) -> Browser:
    plain = await trio.open_tcp_stream("127.0.0.1", port_of(url))
    stream = trio.SSLStream(plain, context, server_hostname="127.0.0.1", https_compatible=True)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(plain)
        raise
    return Browser(stream)


def both_ports(fleet: Served) -> Iterator[str]:
    yield from (fleet.url, fleet.orchestrator_url)


async def test_the_official_ollama_client(secured: Any, trusting: ssl.SSLContext) -> None:
    def use(url: str) -> None:
        client = ollama.Client(host=url, verify=trusting, trust_env=False)
        assert client.chat(CHAT, messages=TURN).message.content
        pieces = [each.message.content or "" for each in client.chat(CHAT, messages=TURN, stream=True)]
        assert len(pieces) > 2
        assert "".join(pieces)
        assert CHAT in {each.model for each in client.list().models}
        assert client.embed("nomic-embed-text", input="x").embeddings
        with pytest.raises(ollama.ResponseError):
            client.generate("missing", "x")
        client._client.close()

    async with secured() as fleet:
        for url in both_ports(fleet):
            await trio.to_thread.run_sync(use, url)


async def test_the_official_openai_client(secured: Any, trusting: ssl.SSLContext) -> None:
    def use(url: str) -> None:
        with openai.DefaultHttpxClient(verify=trusting, trust_env=False) as http:
            client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", http_client=http)
            message: Any = [{"role": "user", "content": "Hi"}]
            assert client.chat.completions.create(model=CHAT, messages=message).choices[0].message.content
            stream = client.chat.completions.create(model=CHAT, messages=message, stream=True)
            assert "".join(each.choices[0].delta.content or "" for each in stream if each.choices)
            assert CHAT in {each.id for each in client.models.list()}

    async with secured() as fleet:
        for url in both_ports(fleet):
            await trio.to_thread.run_sync(use, url)


async def test_httpx_with_uploads_and_kept_connections(secured: Any, trusting: ssl.SSLContext) -> None:
    import hashlib

    async with secured() as fleet:
        for number, url in enumerate(both_ports(fleet)):
            async with httpx.AsyncClient(base_url=url, verify=trusting, trust_env=False, timeout=20) as http:
                data = bytes([number]) * 3_000_000
                path = "/api/blobs/sha256:" + hashlib.sha256(data).hexdigest()

                async def pieces(data: bytes = data) -> AsyncIterator[bytes]:
                    for at in range(0, len(data), 100_000):
                        yield data[at : at + 100_000]

                assert (await http.post(path, content=pieces())).status_code == 201
                assert (await http.head(path)).status_code == 200
                image = "A" * 2_000_000
                body = {
                    "model": CHAT,
                    "stream": False,
                    "messages": [{"role": "user", "content": "x", "images": [image]}],
                }
                assert (await http.post("/api/chat", json=body)).json()["done"]
                assert len(fleet.sims["a"].host.blobs) == number + 1


async def test_leaving_in_mid_stream_frees_the_slot(secured: Any, trusting: ssl.SSLContext) -> None:
    async with secured(slots=1) as fleet:
        for way in ("close", "reset", "half-close"):
            client = await over_tls(fleet.url, trusting)
            await client.send(
                request_bytes("POST", "/api/generate", {"model": CHAT, "prompt": "x", "options": {"num_predict": 5000}})
            )
            await client._until(b"done")
            assert fleet.system.in_flight == 1
            plain = client.stream.transport_stream  # type: ignore[attr-defined]
            if way == "close":
                plain.socket.close()
            elif way == "reset":
                reset(plain)
            else:
                plain.socket.shutdown(socket.SHUT_WR)
            await until(lambda: is_idle(fleet))
            plain.socket.close()


async def test_a_large_body_that_is_refused_does_not_destroy_the_answer(secured: Any, trusting: ssl.SSLContext) -> None:
    async with secured(limits={"body_bytes": 10_000}) as fleet:
        for path in ("/api/chat", "/api/pull"):
            for _ in range(5):
                client = await over_tls(fleet.url, trusting)
                with suppress(trio.BrokenResourceError):
                    await client.send(request_bytes("POST", path, None, "Content-Length: 5000000"), b"x" * 5_000_000)
                reply = await client.answer("POST")
                assert (reply.status, reply.closes) == (413, True)
                await trio.aclose_forcefully(client.stream)


async def test_a_plain_client_on_a_tls_port_is_shut_out_and_harms_nobody(
    secured: Any, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    edges = noted_edges(monkeypatch)
    async with secured() as fleet:
        for url in both_ports(fleet):
            for data in (request_bytes("GET", "/"), b"\x00" * 100, b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01", b""):
                client = Browser(await trio.open_tcp_stream("127.0.0.1", port_of(url)))
                with suppress(trio.BrokenResourceError):
                    await client.send(data)
                    await client.stream.send_eof()  # type: ignore[attr-defined]
                assert b"HTTP/1.1 2" not in await client.rest(5.0)
                await client.stream.aclose()
        await until(lambda: not edges[0].connections)
        client = await over_tls(fleet.url, trusting)
        assert (await client.ask("GET", "/")).status == 200
        await client.stream.aclose()


async def test_a_tls_client_on_a_plain_port_is_told(trusting: ssl.SSLContext) -> None:
    async with served("a", models=MODELS) as fleet:
        with trio.fail_after(20), pytest.raises(trio.BrokenResourceError) as caught:
            await over_tls(fleet.url, trusting)
        assert isinstance(caught.value.__cause__, ssl.SSLError)
        async with fleet.client() as http:
            assert (await http.get("/")).status_code == 200


async def test_a_client_that_does_not_trust_us_leaves_nothing_behind(
    secured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    edges = noted_edges(monkeypatch)
    async with secured() as fleet:
        for _ in range(3):
            with pytest.raises(trio.BrokenResourceError):
                await over_tls(fleet.url, ssl.create_default_context())
        await until(lambda: not edges[0].connections)


@pytest.mark.parametrize("begun", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00"])
async def test_a_handshake_that_stalls_ends_in_time(
    begun: bytes, secured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    edges = noted_edges(monkeypatch)
    async with secured(timeouts={"head": 0.4}) as fleet:
        client = Browser(await trio.open_tcp_stream("127.0.0.1", port_of(fleet.url)))
        began = trio.current_time()
        await client.send(begun)
        await until(lambda: edges[0].connections)
        assert not await client.rest(4.0)
        assert trio.current_time() - began >= 0.3
        await until(lambda: not edges[0].connections)
        await client.stream.aclose()


async def test_timeouts_hold_over_tls_too(secured: Any, trusting: ssl.SSLContext) -> None:
    async with secured(timeouts={"head": 0.4, "keep_alive": 0.5, "body_idle": 0.4}) as fleet:
        for data, status in (
            (b"GET / HTT", 408),
            (request_bytes("POST", "/api/chat", None, "Content-Length: 9") + b"x", 408),
            (b"", 0),
        ):
            client = await over_tls(fleet.url, trusting)
            assert (await client.ask("GET", "/api/version")).status == 200
            await client.send(data)
            answer = await client.rest(5.0)
            assert answer.startswith(b"HTTP/1.1 %d " % status if status else b""), answer
            assert status or not answer
            await trio.aclose_forcefully(client.stream)


async def test_the_end_of_an_answer_that_ends_with_the_connection_is_authentic(
    secured: Any, trusting: ssl.SSLContext
) -> None:
    """HTTP/1.0 over TLS: a close without a farewell could be anybody's."""
    async with secured() as fleet:
        client = await over_tls(fleet.url, trusting)
        stream = client.stream
        assert isinstance(stream, trio.SSLStream)
        body = {"model": CHAT, "prompt": "x", "options": {"num_predict": 3}}
        await client.send(request_bytes("POST", "/api/generate", body, version="1.0"))
        assert (await client._until(b'"done":true')).startswith(b"HTTP/1.1 200")
        stream._https_compatible = False  # from here on a ragged end is an error
        with trio.fail_after(20):
            while await stream.receive_some():
                pass
        await trio.aclose_forcefully(stream)


async def test_a_reader_that_stalls_is_revoked(secured: Any, trusting: ssl.SSLContext) -> None:
    fast = Profile(load_seconds=0.0, slots=4, tokens_per_second=1e6, prefill_per_second=1e6)
    async with secured(profile=fast, slots=1, timeouts={"write": 0.5}) as fleet:
        client = await over_tls(fleet.url, trusting)
        body = {"model": CHAT, "prompt": "x", "options": {"num_predict": 200_000}}
        await client.send(request_bytes("POST", "/api/generate", body))
        await until(lambda: fleet.system.in_flight == 1)
        await until(lambda: fleet.system.in_flight == 0, 60.0)
        await trio.aclose_forcefully(client.stream)


async def test_whatever_way_a_connection_ends_it_is_not_watched_any_more(
    secured: Any, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number of a socket is soon another socket's."""
    edges = noted_edges(monkeypatch)
    async with secured(timeouts={"head": 0.4, "keep_alive": 0.5}) as fleet:
        endings = (
            request_bytes("GET", "/", None, "Connection: close"),
            request_bytes("GET", "/", version="1.0"),
            request_bytes("GET", "/"),
            request_bytes("POST", "/api/chat", None, "Content-Length: 999999999"),
            b"rubbish\r\n\r\n",
            b"GET",
            b"",
        )
        for data in endings:
            for way in ("wait", "close", "reset"):
                client = await over_tls(fleet.url, trusting)
                await client.send(data)
                plain = client.stream.transport_stream  # type: ignore[attr-defined]
                if way == "wait":
                    await client.rest()
                elif way == "reset":
                    reset(plain)
                plain.socket.close()
        for begun in (b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"):
            async with await trio.open_tcp_stream("127.0.0.1", port_of(fleet.url)) as stream:
                await stream.send_all(begun)
        await until(lambda: not edges[0].connections)
        assert not edges[0].leaving._left  # type: ignore[attr-defined]
