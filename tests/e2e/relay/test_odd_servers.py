"""Servers whose lists and descriptions are not quite Ollama's, seen through the official clients."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import httpx
import ollama
import pytest
import trio

from fleet.common.ids import ServerId
from tests.e2e.raw_upstream import in_front_of_raw
from tests.kit.clients.lanes import base_url, both_lanes, socket_path
from tests.kit.fleets.served import Served

pytestmark = both_lanes

T = TypeVar("T")

LLAMA_SERVER = {"name": "m:latest", "model": "m:latest", "modified_at": "", "size": "", "digest": "", "details": ""}
BAD: list[Any] = [None, "", "x", -1, "-1", 1.5, [], {}, [None], {"a": 1}]


async def with_client(fleet: Served, work: Callable[[ollama.Client], T]) -> T:
    def ask() -> T:
        client = ollama.Client(base_url(fleet.url), transport=httpx.HTTPTransport(uds=socket_path(fleet.url)))
        try:
            return work(client)
        finally:
            client.close()  # type: ignore[no-untyped-call]

    with trio.fail_after(60):
        return await trio.to_thread.run_sync(ask, abandon_on_cancel=True)


def response(body: bytes, *fields: str) -> list[bytes]:
    head = "\r\n".join(("HTTP/1.1 200 OK", "Content-Type: application/json; charset=utf-8", *fields))
    return [head.encode() + b"\r\nConnection: close\r\n\r\n" + body]


@pytest.mark.parametrize("bad", BAD, ids=repr)
async def test_no_servers_list_breaks_the_official_client(bad: Any) -> None:
    async with in_front_of_raw() as (fleet, upstream):
        fields = dict.fromkeys(("size", "size_vram", "details", "modified_at", "expires_at", "context_length"), bad)
        rows = [LLAMA_SERVER, {"name": "n:latest", **fields}, {"name": bad, "model": "o:latest", "digest": bad}]
        upstream.known |= {"/api/tags": {"models": rows}, "/api/ps": {"models": rows}}
        await fleet.system.probe(ServerId("raw"), 5.0)
        listed = await with_client(fleet, lambda client: client.list())
        assert {str(model.model) for model in listed.models} == {"m:latest", "n:latest", "o:latest"}
        running = await with_client(fleet, lambda client: client.ps())
        assert {str(model.model) for model in running.models} == {"m:latest", "n:latest", "o:latest"}


@pytest.mark.parametrize("framing", ["length", "close", "chunked"])
async def test_a_description_without_what_clients_need_is_mended(framing: str) -> None:
    odd = json.dumps(
        {"modified_at": "", "details": "", "model_info": [], "capabilities": "completion", "x": 1}
    ).encode()
    async with in_front_of_raw() as (fleet, upstream):
        fields = {"length": f"Content-Length: {len(odd)}", "chunked": "Transfer-Encoding: chunked", "close": "X-A: b"}
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(odd), odd) if framing == "chunked" else odd
        upstream.answer = response(body, fields[framing])
        shown = await with_client(fleet, lambda client: client.show("m"))
        assert shown.modelinfo == {}


@pytest.mark.parametrize("size", [10, 70_000, 300_000])
async def test_a_good_description_passes_byte_for_byte(size: int) -> None:
    good = json.dumps({"model_info": {"a": "b" * size}, "details": {"families": None}}, indent=1).encode()
    async with in_front_of_raw() as (fleet, upstream):
        upstream.answer = response(good, f"Content-Length: {len(good)}")
        async with fleet.client() as client:
            answer = await client.post("/api/show", json={"model": "m"})
        assert answer.content == good
        assert answer.headers["content-length"] == str(len(good))
