"""Everything that is not inference: inventories, models coming and going, refusals, CORS, the admin API."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import trio

from tests.e2e.support import (
    CHAT,
    MODELS,
    Answer,
    ask,
    connect,
    every_door,
    inference_seen,
    read_to_the_end,
    understood,
    until,
)
from tests.kit.clients.lanes import both_lanes
from tests.kit.clients.raw import read_until, request_bytes
from tests.kit.fleets.served import Served, served
from web.simulator.engine.host import SimHost


def hosts(fleet: Served) -> list[SimHost]:
    return [sim.host for sim in fleet.sims.values()]


async def names(url: str) -> set[str]:
    return {row["name"] for row in (await ask(url, "GET", "/api/tags")).json()["models"]}


async def until_listed(url: str, name: str, there: bool = True) -> None:
    with trio.fail_after(20):
        while (name in await names(url)) is not there:
            await trio.sleep(0.01)


@every_door
async def test_root_version_tags_and_ps(port: Callable[[Served], str]) -> None:
    async with served("a", "b", models=MODELS) as fleet:
        url = port(fleet)
        root = await ask(url, "GET", "/")
        assert (root.status, root.body) == (200, b"Ollama is running")
        assert root.headers["content-type"] == "text/plain; charset=utf-8"
        for path in ("/", "/api/version", "/api/tags"):
            got, head = await ask(url, "GET", path), await ask(url, "HEAD", path)
            assert (head.status, head.body) == (200, b"")
            assert head.headers["content-length"] == str(len(got.body))
            assert head.headers["content-type"] == got.headers["content-type"]
        assert (await ask(url, "GET", "/api/version")).json() == {"version": "0.33.0"}
        direct = (await ask(fleet.sims["a"].url, "GET", "/api/tags")).json()
        merged = (await ask(url, "GET", "/api/tags")).json()["models"]
        assert all(row.pop("servers") == ["a", "b"] for row in merged)
        assert sorted(merged, key=lambda row: str(row["name"])) == sorted(
            direct["models"], key=lambda row: str(row["name"])
        )
        assert (await ask(url, "GET", "/api/ps")).json() == {"models": []}
        await ask(url, "POST", "/api/chat", {"model": CHAT, "messages": [{"role": "user", "content": "x"}]})
        for server in fleet.system.servers:
            await fleet.system.probe(server, 5.0)
        [row] = (await ask(url, "GET", "/api/ps")).json()["models"]
        assert row["name"] == CHAT
        assert len(row["digest"]) >= 12
        status = (await ask(url, "GET", "/api/status")).json()
        assert status == {"cloud": {"disabled": True, "source": "env"}}


@every_door
async def test_v1_models(port: Callable[[Served], str]) -> None:
    async with served("a", models=MODELS) as fleet:
        listed = (await ask(port(fleet), "GET", "/v1/models")).json()
        assert listed["object"] == "list"
        assert {row["id"] for row in listed["data"]} == await names(fleet.url)
        one = await ask(port(fleet), "GET", f"/v1/models/{CHAT}")
        assert one.json()["id"] == CHAT
        gone = await ask(port(fleet), "GET", "/v1/models/none")
        assert (gone.status, gone.json()["error"]["message"]) == (404, "model 'none:latest' not found")


@both_lanes
async def test_an_empty_fleet_answers_like_an_empty_ollama() -> None:
    async with served() as fleet:
        assert (await ask(fleet.url, "GET", "/")).status == 200
        assert (await ask(fleet.url, "GET", "/api/tags")).body == b'{"models":[]}'
        assert (await ask(fleet.url, "GET", "/api/ps")).body == b'{"models":[]}'
        assert (await ask(fleet.url, "GET", "/v1/models")).json() == {"object": "list", "data": None}
        assert (await ask(fleet.url, "GET", "/api/version")).json() == {"version": "0.0.0"}
        assert (await ask(fleet.url, "GET", "/health/ready")).status == 503


@every_door
async def test_unknown_paths_and_methods_are_answered_in_ollamas_words(port: Callable[[Served], str]) -> None:
    async with served("a", models=MODELS) as fleet:
        for method, path in (
            ("GET", "/nowhere"), ("POST", "/"), ("GET", "/v1"), ("GET", "/API/tags"),
            ("GET", "/v1/messages/count_tokens"), ("GET", "/v1/models/a/b"), ("GET", "/debug/pprof"),
            ("GET", "/v1/responses/x"), ("HEAD", "/nowhere"), ("OPTIONS", "/nowhere"),
        ):  # fmt: skip
            answer = await ask(port(fleet), method, path)
            if path == "/":
                assert (answer.status, answer.body) == (405, b"405 method not allowed")
                continue
            assert answer.status == 404, (method, path)
            assert answer.headers["content-type"].startswith("text/plain"), (method, path)
            assert answer.body == (b"" if method == "HEAD" else b"404 page not found")
        for method, path, allow in (
            ("GET", "/api/chat", "POST"), ("HEAD", "/api/ps", "GET"), ("POST", "/api/tags", "HEAD, GET"),
            ("POST", "/api/delete", "DELETE"), ("PUT", "/api/blobs/sha256:0", "HEAD, POST"),
            ("DELETE", "/api/chat", "POST"), ("GET", "/v1/chat/completions", "POST"), ("POST", "/v1/models", "GET"),
        ):  # fmt: skip
            answer = await ask(port(fleet), method, path)
            assert answer.status == 405, (method, path)
            assert answer.headers["allow"] == allow
            assert answer.body == (b"" if method == "HEAD" else b"405 method not allowed")
        for method, status in (("GET", 301), ("POST", 307)):
            path = "/api/tags" if method == "GET" else "/api/chat"
            for untidy in (f"/{path}", f"/.{path}", f"/api/..{path}", path.replace("/api/", "/api//")):
                answer = await ask(port(fleet), method, f"{untidy}?x=1", {"model": "x"} if method == "POST" else None)
                assert (answer.status, answer.headers["location"]) == (status, f"{path}?x=1")
            answer = await ask(port(fleet), method, f"{path}/?x=1")
            assert (answer.status, answer.headers["location"]) == (status, f"{path}?x=1")


@every_door
async def test_browsers_get_ollamas_cors_answers(port: Callable[[Served], str]) -> None:
    async with served("a", models=MODELS, cors={"origins": ["https://chat.example"]}) as fleet:
        for origin in ("http://localhost:3000", "https://chat.example", "app://obsidian.md"):
            ahead = await ask(
                port(fleet), "OPTIONS", "/api/chat", None, f"Origin: {origin}", "Access-Control-Request-Method: POST"
            )
            assert (ahead.status, ahead.body) == (204, b"")
            assert ahead.headers["access-control-allow-origin"] == origin
            assert "POST" in ahead.headers["access-control-allow-methods"]
            assert ahead.headers["access-control-max-age"] == "43200"
            for method, path, body in (
                ("GET", "/api/tags", None), ("POST", "/api/show", {"model": CHAT}), ("GET", "/nowhere", None),
                ("POST", "/api/generate", {"model": CHAT, "prompt": "x"}), ("POST", "/v1/messages", b"x"),
            ):  # fmt: skip
                answer = await ask(port(fleet), method, path, body, f"Origin: {origin}")
                assert answer.headers["access-control-allow-origin"] == origin, path
                assert answer.headers["vary"] == "Origin"
        before = len(inference_seen(fleet.sims["a"].host))
        for origin in ("https://evil.example", "null", "chrome-extension://x"):
            for method, path in (("GET", "/api/tags"), ("POST", "/api/chat"), ("OPTIONS", "/api/chat"), ("GET", "/")):
                answer = await ask(port(fleet), method, path, None, f"Origin: {origin}")
                assert (answer.status, answer.body) == (403, b"")
        assert len(inference_seen(fleet.sims["a"].host)) == before
        assert "access-control-allow-origin" not in (await ask(port(fleet), "GET", "/api/tags")).headers


@every_door
async def test_a_pull_fills_one_server_then_all_holders(port: Callable[[Served], str]) -> None:
    async with served("a", "b", models=MODELS) as fleet:
        answer = await ask(port(fleet), "POST", "/api/pull", {"model": "newone:1b"})
        assert answer.headers["content-type"] == "application/x-ndjson"
        assert answer.lines[0] == {"status": "pulling manifest"}
        assert [line.get("status") for line in answer.lines].count("success") == 1
        assert answer.lines[-1] == {"status": "success"}
        await until_listed(port(fleet), "newone:1b")
        both = await ask(port(fleet), "POST", "/api/pull", {"name": CHAT})
        assert both.lines[-1] == {"status": "success"}
        assert all(len(host.seen("/api/pull")) >= 1 for host in hosts(fleet))
        whole = await ask(port(fleet), "POST", "/api/pull", {"model": CHAT, "stream": False})
        assert whole.json() == {"status": "success"}
        lost = await ask(port(fleet), "POST", "/api/pull", {"model": "missing"})
        assert (lost.status, lost.lines[-1]) == (200, {"error": "pull model manifest: file does not exist"})
        whole = await ask(port(fleet), "POST", "/api/pull", {"model": "missing", "stream": False})
        assert (whole.status, whole.json()) == (500, {"error": "pull model manifest: file does not exist"})


@every_door
async def test_push_copy_and_delete(port: Callable[[Served], str]) -> None:
    async with served("a", "b", models=MODELS) as fleet:
        pushed = await ask(port(fleet), "POST", "/api/push", {"model": CHAT})
        assert pushed.lines[-1] == {"status": "success"}
        assert sum(len(host.seen("/api/push")) for host in hosts(fleet)) == 1
        lost = await ask(port(fleet), "POST", "/api/push", {"model": "none"})
        assert (lost.status, list(lost.lines[-1])) == (200, ["error"])
        copied = await ask(port(fleet), "POST", "/api/copy", {"source": CHAT, "destination": "mine"})
        assert (copied.status, copied.body) == (200, b"")
        assert all(host.server.shelf.find("mine") for host in hosts(fleet))
        await until_listed(port(fleet), "mine:latest")
        lost = await ask(
            port(fleet), "POST", "/api/copy", {"source": "none", "destination": "x"}, "User-Agent: ollama/1"
        )
        assert (lost.status, lost.json()) == (404, {"error": 'model "none" not found'})
        deleted = await ask(port(fleet), "DELETE", "/api/delete", {"model": "mine"})
        assert (deleted.status, deleted.body) == (200, b"")
        assert not any(host.server.shelf.find("mine") for host in hosts(fleet))
        await until_listed(port(fleet), "mine:latest", there=False)
        lost = await ask(port(fleet), "DELETE", "/api/delete", {"name": "mine"}, "User-Agent: ollama/1")
        assert lost.status == 404
        assert isinstance(lost.json()["error"], str)


@every_door
async def test_blobs_then_create_on_one_builder(port: Callable[[Served], str]) -> None:
    data = bytes(range(256)) * 40_000
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    async with served("a", "b", models=MODELS, placement={"builder": "b"}) as fleet:
        path = f"/api/blobs/{digest}"
        assert (await ask(port(fleet), "HEAD", path)).status == 404
        assert (await ask(port(fleet), "POST", path, data)).status == 201
        assert (await ask(port(fleet), "HEAD", path)).status == 200
        assert fleet.sims["b"].host.blobs == {digest}
        assert not fleet.sims["a"].host.blobs
        wrong = await ask(port(fleet), "POST", "/api/blobs/sha256:" + "0" * 64, data)
        assert (wrong.status, wrong.json()["error"].split(",")[0]) == (400, "digest mismatch")
        bad = await ask(port(fleet), "POST", "/api/blobs/sha256:zz", b"x")
        assert (bad.status, bad.json()) == (400, {"error": "invalid digest format"})
        made = await ask(port(fleet), "POST", "/api/create", {"model": "made", "files": {"m.gguf": digest}})
        assert made.lines[-1] == {"status": "success"}
        await until_listed(port(fleet), "made:latest")
        derived = await ask(port(fleet), "POST", "/api/create", {"model": "mine", "from": "made", "stream": False})
        assert derived.json() == {"status": "success"}
        assert fleet.sims["b"].host.server.shelf.find("mine")
        assert not fleet.sims["a"].host.server.shelf.find("mine")


async def post_in_pieces(url: str, path: str, *headers: str, data: bytes, wait: bytes = b"") -> Answer:
    """A chunked upload, 64 KiB a chunk; `wait`: what must have come before the first of them."""
    async with await connect(url) as stream:
        fields = ("Transfer-Encoding: chunked", "Connection: close", *headers)
        await stream.send_all(request_bytes("POST", path, None, *fields))
        with trio.fail_after(60):
            early = await read_until(stream, b"\r\n\r\n") if wait else b""
            assert early.startswith(wait)
            if wait and b" 100 " not in early.splitlines()[0]:
                return understood(early + await read_to_the_end(stream))
            try:
                for start in range(0, len(data), 65536):
                    piece = data[start : start + 65536]
                    await stream.send_all(b"%x\r\n%s\r\n" % (len(piece), piece))
                await stream.send_all(b"0\r\n\r\n")
            except trio.BrokenResourceError:
                pass
            return understood(await read_to_the_end(stream))


@both_lanes
async def test_a_chunked_upload_is_streamed_and_hashed() -> None:
    data = b"0123456789abcdef" * 1_000_000
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    async with served("a", models=MODELS) as fleet:
        answer = await post_in_pieces(fleet.url, f"/api/blobs/{digest}", data=data)
        assert answer.status == 201
        assert fleet.sims["a"].host.seen(f"/api/blobs/{digest}")[0].body_size == len(data)


@both_lanes
async def test_an_upload_that_is_not_needed_is_answered_before_it_was_sent() -> None:
    digest = "sha256:" + hashlib.sha256(b"known").hexdigest()
    async with served("a", models=MODELS) as fleet:
        fleet.sims["a"].host.blobs.add(digest)
        answer = await post_in_pieces(fleet.url, f"/api/blobs/{digest}", data=b"x" * 20_000_000)
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
        for fields in ((), ("Content-Length: 20000000",)):
            async with await connect(fleet.url) as stream:
                head = request_bytes("POST", f"/api/blobs/{digest}", None, *(fields or ("Transfer-Encoding: chunked",)))
                await stream.send_all(head)
                with trio.fail_after(20):
                    assert b" 200 " in (await read_until(stream, b"\r\n\r\n")).splitlines()[0]
    await until(lambda: fleet.system.in_flight == 0)


@both_lanes
async def test_100_continue_is_said_before_a_body_that_is_wanted() -> None:
    data = b"x" * 1_000_000
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    async with served("a", models=MODELS) as fleet:
        answer = await post_in_pieces(
            fleet.url, f"/api/blobs/{digest}", "Expect: 100-continue", data=data, wait=b"HTTP/1.1 100"
        )
        assert answer.status == 201
        async with await connect(fleet.url) as stream:
            body = json.dumps({"model": CHAT, "prompt": "x", "stream": False}).encode()
            fields = ("Expect: 100-continue", f"Content-Length: {len(body)}", "Connection: close")
            await stream.send_all(request_bytes("POST", "/api/generate", None, *fields))
            with trio.fail_after(20):
                assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
                await stream.send_all(body)
                assert understood(await read_to_the_end(stream)).status == 200
        assert inference_seen(fleet.sims["a"].host)[-1].header("expect") is None


@every_door
async def test_what_belongs_to_one_account_is_refused(port: Callable[[Served], str]) -> None:
    async with served("a", models=MODELS) as fleet:
        for method, path in (
            ("POST", "/api/me"), ("POST", "/api/signout"), ("DELETE", "/api/user/keys/x"),
            ("POST", "/api/experimental/web_search"), ("POST", "/api/experimental/web_fetch"),
        ):  # fmt: skip
            answer = await ask(port(fleet), method, path, {})
            assert answer.status == 403
            assert isinstance(answer.json()["error"], str)
        cloud = await ask(port(fleet), "POST", "/v1/chat/completions", {"model": "x:cloud", "messages": []})
        assert (cloud.status, cloud.json()) == (403, {"error": "ollama cloud is disabled: remote model is unavailable"})


@every_door
async def test_the_admin_api(port: Callable[[Served], str]) -> None:
    async with served("a", "b", models=MODELS) as fleet:
        root = "/api/orchestrator"

        async def admin(method: str, path: str, body: object = None) -> dict[str, Any]:
            answer = await ask(port(fleet), method, root + path, body)
            assert answer.headers["content-type"].startswith("application/json")
            return {"status_code": answer.status, **answer.json()}

        listed = await admin("GET", "/servers")
        assert (listed["success"], listed["count"]) == (True, 2)
        assert {row["id"] for row in listed["servers"]} == {"a", "b"}
        assert all(row["healthy"] for row in listed["servers"])
        assert (await admin("GET", "/health"))["status"] == "healthy"
        assert (await admin("GET", "/queue"))["queue"]["waiting"] == 0
        assert (await admin("GET", "/in-flight"))["total"] == 0
        assert (await admin("GET", "/circuit-breakers"))["circuitBreakers"] == []
        assert (await admin("POST", "/queue/pause"))["paused"] is True
        assert (await admin("POST", "/queue/resume"))["paused"] is False
        assert (await admin("DELETE", "/servers/b"))["success"] is True
        gone = await admin("DELETE", "/servers/b")
        assert (gone["status_code"], gone["success"]) == (404, False)
        added = await admin("POST", "/servers/add", {"id": "b", "url": fleet.sims["b"].url})
        assert added["server"]["healthy"] is True
        twice = await admin("POST", "/servers/add", {"id": "c", "url": fleet.sims["b"].url + "/"})
        assert twice["status_code"] == 409
        for body in (b"{", b"[]", {}, {"id": "x"}, {"id": "a b", "url": "http://x"}):
            assert (await admin("POST", "/servers/add", body))["status_code"] == 400
        for path in ("/health", "/health/live", "/health/ready"):
            assert (await ask(port(fleet), "GET", path)).status == 200
        unknown = await ask(port(fleet), "GET", root + "/nowhere")
        assert (unknown.status, unknown.json()["success"]) == (404, False)


@every_door
async def test_api_keys_guard_everything_but_probes(port: Callable[[Served], str]) -> None:
    security = {"require_api_key": True, "api_keys": ["correct-horse"]}
    async with served("a", models=MODELS, security=security) as fleet:
        for path in ("/", "/health", "/health/live"):
            assert (await ask(port(fleet), "GET", path)).status == 200
        for method, path, status in (
            ("GET", "/api/tags", 403),
            ("POST", "/v1/messages", 401),
            ("GET", "/v1/models", 401),
        ):
            refused = await ask(port(fleet), method, path, None, "Authorization: Bearer wrong-horse")
            assert refused.status == status
            assert refused.body
        for key in ("Authorization: Bearer correct-horse", "X-API-Key: correct-horse"):
            assert (await ask(port(fleet), "GET", "/api/tags", None, key)).status == 200
