"""Rate limits as clients meet them: what counts, who is who, and what every answer says; in both lanes."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import pytest
import trio

from fleet.common.errors import NoServer
from fleet.config import Config
from fleet.protocol.call import Call, Downstream
from fleet.security.rate_limit import per_minute
from tests.e2e.support import Answer, ask
from tests.kit.cases.limits import CHAT, Clock, Told, limits, told
from tests.kit.clients.lanes import both_lanes
from tests.kit.clients.raw import parse, read_until, request_bytes
from tests.web.edge.raw import Served
from tests.web.fake_system import FakeSystem, fleet
from web.http.ports import Face
from web.security.rate_limits import address_of, counts, rate_of

KEY, OTHER = "a-key-of-sixteen", "another-sixteen-"
KEYS: dict[str, Any] = {"keys": [{"name": "ci", "key": KEY}, {"name": "app", "key": OTHER}]}
PATHS = ["/api/chat", "/api/generate", "/v1/chat/completions", "/v1/completions", "/v1/responses"]
EMBEDDING = ["/api/embed", "/api/embeddings", "/v1/embeddings", "/api/embeddings--a", "/v1/embeddings--a"]
BODIES = {
    "/api/chat": '{"error":{"code":"RATE_LIMIT_EXCEEDED"',
    "/v1/chat/completions": '"type":"rate_limit_exceeded"',
    "/v1/messages": '"type":"rate_limit_error"',
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def chat(server: Served, *fields: str, path: str = "/api/chat") -> Answer:
    return await ask(server.url, "POST", path, CHAT, *fields)


async def refuse(call: Call, down: Downstream) -> None:
    raise NoServer("nobody is there", retry_after=9.0)


@both_lanes
async def test_headers_count_down_and_the_budget_comes_back_evenly(clock: Clock) -> None:
    async with fleet(FakeSystem(**limits(proxy=2))) as server:
        assert told((await chat(server)).headers) == Told(2, 1, 30)
        assert told((await chat(server)).headers) == Told(2, 0, 60)
        clock.advance(0.5)
        late = await chat(server)
        assert (late.status, late.headers["retry-after"], told(late.headers)) == (429, "30", Told(2, 0, 60))
        assert late.headers["x-fleet-error"] == "RATE_LIMIT_EXCEEDED"
        assert late.headers["x-request-id"]
        clock.advance(29.5)
        assert told((await chat(server)).headers) == Told(2, 0, 90)
        assert (await chat(server)).status == 429


@both_lanes
@pytest.mark.parametrize("path", BODIES)
async def test_a_refusal_speaks_the_dialect_of_its_path(path: str, clock: Clock) -> None:
    system = FakeSystem(**limits(proxy=1), compat={"native_errors": "structured"})
    async with fleet(system) as server:
        assert (await chat(server, path=path)).status == 200
        late = await chat(server, path=path)
        assert late.status == 429
        assert BODIES[path] in late.text
        assert "rate limit of 1 requests per minute exceeded" in late.text
    assert len(system.calls) == 1


@both_lanes
async def test_the_answers_to_failures_and_refusals_say_it_too(clock: Clock) -> None:
    system = FakeSystem(**limits(proxy=3))
    system.answering = refuse
    async with fleet(system) as server:
        failed = await chat(server)
        assert (failed.status, failed.headers["retry-after"], told(failed.headers)) == (503, "9", Told(3, 2, 20))
        pinned = await chat(server, path="/api/chat--nobody")
        assert (pinned.status, told(pinned.headers)) == (404, Told(3, 1, 40))
        assert (await ask(server.url, "POST", "/api/%63hat", CHAT)).headers["x-ratelimit-remaining"] == "0"


@both_lanes
async def test_only_inference_counts(clock: Clock) -> None:
    async with fleet(FakeSystem(**limits(proxy=1))) as server:
        for method, path in (("GET", "/api/tags"), ("GET", "/api/orchestrator/servers"), ("GET", "/health")):
            assert told((await ask(server.url, method, path)).headers) is None
        for path in ("/api/show", "/api/copy", "/api/unknown"):
            assert told((await ask(server.url, "POST", path, {"model": "m"})).headers) is None
        assert told((await ask(server.url, "GET", "/api/chat")).headers) is None
        assert told((await chat(server)).headers) == Told(1, 0, 60)
        assert (await ask(server.url, "GET", "/api/tags")).status == 200


@pytest.mark.parametrize("face", Face)
def test_what_counts_where(face: Face) -> None:
    for path in (*PATHS, "/v1/messages", "/v1/audio/transcriptions", "/api/chat--gpu1"):
        assert counts(face, "POST", path) is (face in (Face.PROXY, Face.METRICS))
        assert not counts(Face.PROXY, "GET", path)
    for path in (
        *EMBEDDING,
        "/api/show",
        "/api/embed--gpu1",
        "/api/pull",
        "/api/orchestrator/queue/pause",
        "/api/chat/",
        "/x--y",
    ):
        assert not counts(Face.PROXY, "POST", path)
    for path in ("/metrics", "/health", "/api/metrics/summary", "/", "/nothing"):
        assert counts(face, "GET", path) is (face is Face.METRICS)
    for path in ("/health/live", "/health/ready"):
        assert not counts(face, "GET", path)


@pytest.mark.parametrize(
    ("sections", "proxy", "metrics"),
    [
        ({}, 60, 100),
        ({"monitoring": {"rate_limit_per_minute": 0}}, None, 100),
        ({"monitoring": {"rate_limit_per_minute": 7}, "security": {"rate_limiting": {"requests_per_minute": 8}}}, 7, 8),
        ({"monitoring": {"rate_limit_per_minute": 7}, "security": {"rate_limiting": {"enabled": False}}}, None, None),
    ],
)
def test_the_limits_of_the_ports(sections: dict[str, Any], proxy: int | None, metrics: int | None) -> None:
    config = Config.model_validate(sections)
    wanted = {Face.PROXY: proxy, Face.METRICS: metrics, Face.ORCHESTRATOR: None, Face.DASHBOARD: None}
    for face, limit in wanted.items():
        assert rate_of(face, config) == (None if limit is None else per_minute(limit))


@both_lanes
async def test_the_chunks_of_a_document_are_embedded_without_a_limit(clock: Clock) -> None:
    async with fleet(FakeSystem(**limits(proxy=1))) as server:
        assert (await chat(server)).status == 200
        for path in EMBEDDING:
            answers = [
                await ask(server.url, "POST", path, {"model": "m", "input": "x", "prompt": "x"}) for _ in range(3)
            ]
            assert [each.status for each in answers] == [200, 200, 200], path
            assert told(answers[0].headers) is None
        assert (await chat(server)).status == 429


@both_lanes
async def test_a_client_is_its_key_and_without_a_valid_one_its_address(clock: Clock) -> None:
    async with fleet(FakeSystem(**limits(proxy=2, **KEYS))) as server:
        for key in (KEY, OTHER):
            answers = [await chat(server, f"Authorization: Bearer {key}") for _ in range(3)]
            assert [each.status for each in answers] == [200, 200, 429]
        answers = [await chat(server, f"X-API-Key: wrong-{n}") for n in range(3)]
        assert [each.status for each in answers] == [403, 403, 429]
        assert told(answers[0].headers) == Told(2, 1, 30)
        assert (await chat(server, path="/v1/completions")).status == 429


@both_lanes
async def test_a_key_counts_where_none_is_needed(clock: Clock) -> None:
    async with fleet(FakeSystem(**limits(proxy=1, **KEYS, require_api_key=False))) as server:
        assert [(await chat(server, f"X-API-Key: {KEY}")).status for _ in range(2)] == [200, 429]
        assert [(await chat(server, "X-API-Key: unknown")).status for _ in range(2)] == [200, 429]


@both_lanes
async def test_foreign_pages_and_preflights_use_up_nothing(clock: Clock) -> None:
    """Else any page could keep its reader's own programs from the fleet."""
    async with fleet(FakeSystem(**limits(proxy=1))) as server:
        foreign, good = "Origin: https://evil.example", "Origin: http://localhost:3000"
        for _ in range(3):
            refused = await chat(server, foreign)
            assert (refused.status, told(refused.headers)) == (403, None)
            preflight = await ask(server.url, "OPTIONS", "/api/chat", None, good)
            assert (preflight.status, told(preflight.headers)) == (204, None)
        mine = await chat(server, good)
        assert (mine.status, told(mine.headers)) == (200, Told(1, 0, 60))
        exposed = mine.headers["access-control-expose-headers"].split(",")
        assert {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After"} <= set(exposed)
        late = await chat(server, good)
        assert (late.status, late.headers["access-control-allow-origin"]) == (429, "http://localhost:3000")


async def test_a_trusted_proxy_speaks_for_many_addresses_and_of_ipv6_for_subscribers(clock: Clock) -> None:
    trusting = {"trusted_proxies": ["127.0.0.1"]}
    async with fleet(FakeSystem(**limits(proxy=1), server=trusting)) as server:
        found = []
        for claim in ("203.0.113.1", "203.0.113.2", "203.0.113.1", "2001:db8:1:2::3", "2001:db8:1:2:ff::4"):
            found.append((await chat(server, f"X-Forwarded-For: {claim}")).status)
        assert found == [200, 200, 429, 200, 429]
        assert (await chat(server, "X-Forwarded-For: 2001:db8:1:3::3")).status == 200
    async with fleet(FakeSystem(**limits(proxy=1))) as server:
        assert [(await chat(server, f"X-Forwarded-For: 203.0.113.{n}")).status for n in (1, 2)] == [200, 429]


def test_addresses() -> None:
    assert address_of("203.0.113.7") == "203.0.113.7"
    assert address_of("2001:db8::1") == address_of("2001:0db8:0:0:ffff::") == bytes.fromhex("20010db800000000")
    assert address_of("fe80::1%eth0") == bytes.fromhex("fe80000000000000")
    assert address_of("") == ""
    assert address_of("no:address") == "no:address"


@both_lanes
async def test_a_large_body_is_not_read_and_its_client_gets_the_answer(clock: Clock) -> None:
    async with fleet(FakeSystem(**limits(proxy=1))) as server:
        await chat(server)
        wire = await server.connect()
        with trio.fail_after(20):
            fields = ("Content-Length: 90000000", "Expect: 100-continue")
            await wire.send(request_bytes("POST", "/api/chat", None, *fields))
            head = await read_until(wire.stream, b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 429 ")  # and no 100 before it
        wire = await server.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_much, wire.stream, request_bytes("POST", "/api/chat", b"x" * 3_000_000))
            with trio.fail_after(20):
                status, headers, _ = parse(await read_until(wire.stream, b"exceeded"))
            nursery.cancel_scope.cancel()
        assert (status, told(headers)) == (429, Told(1, 0, 60))


async def _send_much(stream: trio.SocketStream, data: bytes) -> None:
    with suppress(trio.BrokenResourceError):
        await stream.send_all(data)


async def test_a_client_in_a_loop_is_logged_once_a_minute_and_counted_each_time(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="web.security.rate_limits")
    system = FakeSystem(**limits(proxy=1, **KEYS))
    async with fleet(system) as server:
        for _ in range(4):
            await chat(server, f"X-API-Key: {KEY}")
        clock.advance(59)
        await chat(server, f"X-API-Key: {KEY}")
        clock.advance(1)
        assert [(await chat(server, f"X-API-Key: {KEY}")).status for _ in range(2)] == [200, 429]
    lines = [vars(record) for record in caplog.records if record.name == "web.security.rate_limits"]
    assert [(line["listener"], line["client"], line["limit"]) for line in lines] == [("proxy", "ci", 1)] * 2
    assert system.statistics.metrics.limits["proxy"] == 5
