"""One server refuses in a millisecond, others work: all are answered, whatever it says. And what never gets out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleet.common.ids import ModelName
from tests.e2e.raw_upstream import in_front_of_raw
from tests.e2e.support import Answer, ask, until
from tests.kit.cases.siege import MODEL, ROWS, BadServer, answer, besieged, said, siege

LISTED = (
    "500 memory", "500 predict EOF", "500 no slots", "500 unable to load", "401", "403",
    "301", "302", "307", "308", "200 html", "200 empty", "200 foreign", "200 short", "200 cut json", "413",
)  # fmt: skip
"""The rows that are tried streamed and unstreamed; of the others, one of the two."""
CASES = [
    (row, stream) for at, row in enumerate(ROWS) for stream in (True, False) if row in LISTED or stream == (at % 2)
]
REDIRECTS = [row for row in ROWS if row.startswith("30")]
SHAMS = [*REDIRECTS, *(row for row in ROWS if row.startswith("20") and row != "200 error")]


@pytest.mark.parametrize(("row", "stream"), CASES, ids=str)
async def test_twelve_clients_get_sixty_answers_though_one_of_two_servers_refuses_at_once(
    row: str, stream: bool
) -> None:
    bad = BadServer(ROWS[row])
    async with besieged(bad) as fleet:
        tally = await siege(fleet, bad, stream=stream)
        assert tally.answered >= 58, (tally.others, tally.asked)
        assert tally.asked <= 30, "it must not draw everybody"
        await fleet.until_idle()
        fleet.assert_nothing_left()


@pytest.mark.parametrize("policy", ["least_connections", "fastest_response", "round_robin", "random"])
@pytest.mark.parametrize("breakers", [True, False])
async def test_no_policy_and_no_missing_breaker_lets_who_fails_fast_draw_everybody(policy: str, breakers: bool) -> None:
    bad = BadServer(ROWS["500 never heard of"])
    config: dict[str, Any] = {"load_balancer": {"policy": policy}, "enable_circuit_breaker": breakers}
    async with besieged(bad, **config) as fleet:
        tally = await siege(fleet, bad, stream=True)
        assert tally.answered >= 58, (tally.others, tally.asked)
        assert tally.asked <= 30


@pytest.mark.parametrize(
    ("path", "row"),
    [
        ("/api/generate", "500 memory"),
        ("/api/embed", "200 foreign"),
        ("/v1/chat/completions", "302"),
        ("/v1/embeddings", "200 html"),
        ("/v1/messages", "404 page"),
        ("/v1/responses", "404 page"),
        ("/v1/messages", "401 challenge"),
        ("/v1/responses", "413"),
    ],
)
async def test_every_dialect_is_spared_and_so_are_three_servers(path: str, row: str) -> None:
    bad = BadServer(ROWS[row])
    async with besieged(bad, good=2) as fleet:
        tally = await siege(fleet, bad, path, stream=path not in ("/api/embed", "/v1/embeddings"))
        assert tally.answered >= 58, (tally.others, tally.asked)
        assert tally.asked <= 30


async def chat(url: str, *, stream: bool, path: str = "/api/chat") -> Answer:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "stream": stream, "max_tokens": 5}
    return await ask(url, "POST", path, body, "Content-Type: application/json")


@pytest.mark.parametrize("row", SHAMS)
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
async def test_what_is_no_answer_never_reaches_the_client_of_a_lone_server(row: str, path: str) -> None:
    bad = BadServer(ROWS[row])
    async with besieged(bad, good=0) as fleet:
        for stream in (True, False):
            got = await chat(fleet.url, stream=stream, path=path)
            if got.status == 200:  # begun already when it turned out: it ends with an error, or is cut
                assert row == "200 short"
                assert b"error" in got.body
                continue
            assert got.status == 502
            assert "location" not in got.headers
            assert got.headers["content-type"].startswith("application/json")
            assert b"evil.example" not in got.raw
            assert json.loads(got.body)["error"]
        state = fleet.system.servers[next(iter(fleet.system.servers))].state
        assert (state.stats_of(ModelName(MODEL)).success.value or 0.0) < 1.0, "counted as a failure"


PAGES = [row for row in ROWS if row[:3] in ("400", "403", "407", "411", "451", "500", "511", "520") and "html" in row]


@pytest.mark.parametrize("row", [*PAGES, "401 challenge", "407", "451", "520", "413"])
async def test_a_page_of_a_proxy_becomes_an_error_of_the_dialect(row: str) -> None:
    bad = BadServer(ROWS[row])
    async with besieged(bad, good=0) as fleet:
        for path in ("/api/chat", "/v1/chat/completions", "/v1/messages"):
            got = await chat(fleet.url, stream=False, path=path)
            status = int(row[:3])
            assert got.status == (status if status in (400, 411, 413) else 502)
            assert json.loads(got.body)["error"]
            assert b"<html" not in got.body
            assert "www-authenticate" not in got.headers
            assert "proxy-authenticate" not in got.headers


async def test_two_servers_that_say_the_same_are_believed_and_the_first_answer_is_passed_on() -> None:
    bads = tuple(BadServer(said(418, f"I am a teapot, on 10.0.0.{at}:{4000 + at}")) for at in range(2))
    async with besieged(bads, good=0) as fleet:
        for _ in range(10):
            got = await chat(fleet.url, stream=True)
            assert got.status == 418
            assert got.headers["x-fleet-attempts"] == "2"
        assert fleet.system.breakers.describe() == []
        assert bads[0].asked == bads[1].asked == 10


async def test_a_route_that_a_server_is_too_old_for_is_asked_for_once_until_it_is_updated() -> None:
    bad = BadServer(ROWS["404 page"])
    async with besieged(bad, health={"interval": 0.05}) as fleet:
        body = {"model": MODEL, "input": "hello", "max_output_tokens": 5}
        for _ in range(12):
            got = await ask(fleet.url, "POST", "/v1/responses", body)
            assert (got.status, got.headers["x-fleet-server"]) == (200, "good0")
        assert bad.asked <= 1
        assert fleet.system.breakers.describe() == [], "an old server is no broken one"
        if not bad.asked:  # never chosen: say so ourselves
            fleet.system.missing_routes.note(next(iter(fleet.system.servers)), "/v1/responses", "0.3.0", 0.0)
        bad.version = "0.33.0"
        await until(lambda: not fleet.system.missing_routes.of("/v1/responses"))


async def test_a_route_that_all_servers_are_too_old_for_is_an_honest_404() -> None:
    bads = (BadServer(ROWS["404 page"]), BadServer(ROWS["404 page"]))
    async with besieged(bads, good=0) as fleet:
        for _ in range(3):
            got = await ask(fleet.url, "POST", "/v1/responses", {"model": MODEL, "input": "hello"})
            assert (got.status, got.headers["x-fleet-error"]) == (404, "ROUTE_MISSING")
            assert "/v1/responses" in json.loads(got.body)["error"]["message"]
        assert (bads[0].asked, bads[1].asked) == (1, 1)


async def test_a_server_that_does_not_let_the_fleet_in_is_ill_in_the_health_view() -> None:
    bad = BadServer(ROWS["401"])
    async with besieged(bad) as fleet:
        await siege(fleet, bad, stream=False)
        url = fleet.orchestrator_url
        shown = (await ask(url, "GET", "/api/orchestrator/servers/bad")).json()
        assert "401" in json.dumps(shown)
        health = (await ask(url, "GET", "/health")).json()
        assert health["status"] == "degraded"
        assert "401" in json.dumps(health)


async def test_a_redirect_of_an_upload_is_never_passed_on() -> None:
    bad = BadServer(ROWS["307"])
    async with besieged(bad, good=0) as fleet:
        for path, body in (("/api/create", {"model": "x", "from": MODEL}), ("/api/push", {"model": MODEL})):
            got = await ask(fleet.url, "POST", path, body)
            assert got.status == 502, path
            assert "location" not in got.headers


# ---- streams that end too soon

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LINES = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunks(*pieces: bytes) -> list[bytes]:
    return [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b"")]


def event(value: dict[str, Any], name: str = "") -> bytes:
    return (b"event: " + name.encode() + b"\n" if name else b"") + b"data: " + json.dumps(value).encode() + b"\n\n"


WORD = event({"id": "x", "choices": [{"delta": {"content": "a"}, "finish_reason": None}]})
DEAD = event({"id": "x", "model": "", "choices": [{"delta": {}, "finish_reason": None}]})
STOP = event({"id": "x", "choices": [{"delta": {}, "finish_reason": "stop"}]})
DONE = b"data: [DONE]\n\n"
START = event({"type": "message_start", "message": {"usage": {"input_tokens": 1}}}, "message_start")
DELTA = event({"type": "content_block_delta", "delta": {"text": "a"}}, "content_block_delta")
FIRST = event({"type": "response.created", "response": {"id": "r"}}, "response.created")
TORN = [
    ("/v1/chat/completions", EVENTS, [WORD, WORD]),
    ("/v1/chat/completions", EVENTS, [WORD, DEAD]),
    ("/v1/chat/completions", EVENTS, [WORD, WORD[:20]]),
    ("/v1/completions", EVENTS, [event({"choices": [{"text": "a", "finish_reason": None}]})]),
    ("/v1/messages", EVENTS, [START, DELTA]),
    ("/v1/responses", EVENTS, [FIRST]),
    ("/api/chat", LINES, [b'{"model":"m","message":{"content":"a"},"done":false}\n', b'{"model":"m","mess']),
]  # fmt: skip


@pytest.mark.parametrize(("path", "head", "pieces"), TORN)
async def test_a_stream_that_ends_cleanly_before_its_end_gets_the_dialects_error_and_the_breaker_hears_of_it(
    path: str, head: bytes, pieces: list[bytes]
) -> None:
    async with in_front_of_raw() as (fleet, upstream):
        upstream.answer = [head, *chunks(*pieces)]
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "prompt": "x", "input": "x"}
        got = await ask(fleet.url, "POST", path, {**body, "stream": True})
        assert got.status == 200
        assert got.body.startswith(b"".join(pieces).rstrip()), "what came is passed on"
        last = got.body.rstrip().rpartition(b"\n")[2].removeprefix(b"data: ")
        assert json.loads(last)["error"], last
        if path == "/v1/messages":
            assert b"\n\nevent: error\n" in got.body
        assert DONE not in got.body
        await until(fleet.system.breakers.describe)
        (view,) = fleet.system.breakers.describe()
        assert (view.failure_count, view.last_failure_kind) == (1, "backend_broke")


WHOLE = [
    ("/v1/chat/completions", EVENTS, [WORD, STOP, DONE]),
    ("/v1/chat/completions", EVENTS, [WORD, STOP]),
    ("/v1/messages", EVENTS, [START, DELTA, event({"type": "message_stop"}, "message_stop")]),
    ("/v1/responses", EVENTS, [FIRST, event({"type": "response.completed"}, "response.completed")]),
    ("/v1/responses", EVENTS, [FIRST, event({"type": "response.failed"}, "response.failed")]),
    ("/api/chat", LINES, [b'{"model":"m","message":{"content":"a"},"done":false}\n'] * 31),
]  # fmt: skip


@pytest.mark.parametrize(("path", "head", "pieces"), WHOLE)
async def test_a_stream_that_says_it_is_over_is_passed_on_as_it_is(path: str, head: bytes, pieces: list[bytes]) -> None:
    async with in_front_of_raw() as (fleet, upstream):
        upstream.answer = [head, *chunks(*pieces)]
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "input": "x", "stream": True}
        got = await ask(fleet.url, "POST", path, body)
        assert got.body == b"".join(pieces)
        assert fleet.system.breakers.describe() == []


async def test_a_compressed_answer_that_nobody_asked_for_is_passed_on_unread() -> None:
    async with in_front_of_raw() as (fleet, upstream):
        upstream.answer = [answer(200, b"\x1f\x8b\x08squeezed", "text/event-stream", "Content-Encoding: gzip")]
        got = await ask(fleet.url, "POST", "/v1/chat/completions", {"model": "m", "messages": [], "stream": True})
        assert got.body == b"\x1f\x8b\x08squeezed"
