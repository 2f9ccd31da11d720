"""Each request is counted once, in the words of what its client got: on both lanes, whatever became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import trio

from fleet.observability.metrics.registry import LIMITED
from fleet.simulator import Profile
from tests.kit.cases.metrics import figures, scraped
from tests.kit.clients.lanes import both_lanes, connect
from tests.kit.fleets.served import Served, served
from web.security import rate_limits

SLOW = Profile(load_seconds=0.0, slots=1, tokens_per_second=20.0, prefill_per_second=1e6)
TINY = "tiny:latest"
pytestmark = both_lanes


def body(model: str = "tiny", *, stream: bool = True, tokens: int = 5, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "x"}]
    return {"model": model, "messages": messages, "stream": stream, "options": {"num_predict": tokens}, **more}


def counted(fleet: Served) -> dict[tuple[str, str, str], int]:
    """How many requests by endpoint, model and status."""
    found = figures(fleet.system).items()
    return {key[2:5]: int(value) for key, value in found if key[0] == "ollama_proxy_requests_total"}  # type: ignore[misc]


async def raw(fleet: Served, head: str, body: bytes = b"", *, wait: bool = True) -> None:
    """A request by hand; its client leaves at once unless it is to wait for some answer."""
    stream = await connect(fleet.url)
    async with stream:
        await stream.send_all(head.replace("\n", "\r\n").encode() + body)
        if wait:
            assert await stream.receive_some()


async def until(fleet: Served, wanted: Mapping[tuple[str, str, str], int]) -> None:
    """Wait until exactly this was counted."""
    with trio.move_on_after(5):
        while counted(fleet) != wanted:
            await trio.sleep(0.01)
    await trio.sleep(0.05)  # for whatever would be counted twice
    assert counted(fleet) == wanted


async def test_a_refusal_at_the_door_counts_for_the_route_that_was_asked_for() -> None:
    async with served("a", security={"api_keys": ["a-key-of-mine"]}) as fleet, fleet.client() as client:
        answers = [
            await client.post("/api/chat", json=body()),
            await client.post("/api/chat--a", json=body()),
            await client.post("/v1/messages", json=body()),
            await client.post("/api/embed", json={"model": "tiny", "input": "x"}),
            await client.get("/api/tags"),
        ]
        paths = ("/api/chat", "/api/chat", "/v1/messages", "/api/embed", "/api/tags")
        assert all(answer.status_code in (401, 403) for answer in answers)
        expected = Counter((path, "", str(answer.status_code)) for path, answer in zip(paths, answers, strict=True))
        await until(fleet, expected)


async def test_a_rate_limit_counts_each_refusal_once() -> None:
    async with served(
        "a", monitoring={"rate_limit_per_minute": 2}, security={"rate_limiting": {"enabled": True}}
    ) as fleet:
        async with fleet.client() as client:
            got = Counter([(await client.post("/api/chat", json=body())).status_code for _ in range(5)])
        assert got == {200: 2, 429: 3}
        await until(fleet, {("/api/chat", TINY, "200"): 2, ("/api/chat", "", "429"): 3})
        assert figures(fleet.system)["fleet_rate_limited_total", "proxy"] == 3


async def test_what_ends_before_it_was_understood_is_counted() -> None:
    async with served("a", limits={"body_bytes": 4096}) as fleet, fleet.client() as client:
        assert (await client.post("/api/chat", json=body(padding="x" * 5000))).status_code == 413
        head = "POST /api/chat HTTP/1.1\nHost: localhost\nContent-Length: 500\n\n"
        await raw(fleet, head, b"{", wait=False)
        assert (await client.post("/api/chat--nowhere", json=body())).status_code == 404
        await until(fleet, {("/api/chat", "", "413"): 1, ("/api/chat", "", "499"): 1, ("/api/chat", "", "404"): 1})


async def test_every_dialect_and_kind_of_answer_is_counted_once() -> None:
    async with served("a", "b") as fleet, fleet.client() as client:
        for stream in (True, False):
            for path in ("/api/chat", "/v1/chat/completions", "/v1/messages"):
                sent = body(stream=stream, max_tokens=5)
                assert (await client.post(path, json=sent)).status_code == 200, path
            sent = {"model": "tiny", "prompt": "x", "stream": stream, "options": {"num_predict": 5}}
            assert (await client.post("/api/generate", json=sent)).status_code == 200
        for path in ("/api/embed", "/v1/embeddings"):
            assert (await client.post(path, json={"model": "nomic-embed-text", "input": "x"})).status_code == 200
        assert (await client.post("/api/chat", json=body("unheard-of"))).status_code == 404
        assert (await client.post("/api/chat", content=b"nonsense")).status_code == 400
        assert (await client.get("/api/tags")).status_code == 200
        pulled = await client.post("/api/pull", json={"model": "llama3:8b", "stream": False})
        nomic = "nomic-embed-text:latest"
        paths = ("/api/chat", "/v1/chat/completions", "/v1/messages", "/api/generate")
        expected = {(path, TINY, "200"): 2 for path in paths}
        expected |= {("/api/embed", nomic, "200"): 1, ("/v1/embeddings", nomic, "200"): 1}
        expected |= {("/api/chat", "other", "404"): 1, ("/api/chat", "", "400"): 1, ("/api/tags", "", "200"): 1}
        expected["/api/pull", "", str(pulled.status_code)] = 1
        await until(fleet, expected)
        found = await scraped(fleet.metrics_url, requests=sum(expected.values()))
        sums = {
            name: sum(value for key, value in found.items() if key.startswith(name))
            for name in ("ollama_proxy_request_duration_seconds_count", "fleet_streams_total", "fleet_requests_total")
        }
        assert sums == {
            "ollama_proxy_request_duration_seconds_count": sum(expected.values()),
            "fleet_streams_total": 4,
            "fleet_requests_total": sum(expected.values()) - 2,
        }
        firsts = {key: value for key, value in found.items() if "first_token_seconds_count" in key}
        assert firsts.pop("fleet_time_to_first_token_seconds_count{model=tiny:latest}") == 4
        assert sum(firsts.values()) == 4, "by server, and of no other model"


async def test_clients_that_wait_leave_and_are_refused_are_told_apart() -> None:
    """One is served, one waits, further ones find no room; then those who wait leave, or wait too long."""
    terms: dict[str, Any] = {"queue": {"max_size": 1}, "timeouts": {"queue": 0.6}}
    async with (
        served("a", profile=SLOW, slots=1, **terms) as fleet,
        fleet.client() as client,
    ):
        async with trio.open_nursery() as nursery:
            streaming = trio.Event()

            async def stream() -> None:
                async with client.stream("POST", "/api/chat", json=body(tokens=1000)) as answer:
                    async for _ in answer.aiter_bytes():
                        streaming.set()

            async def leave_after(seconds: float) -> None:
                with trio.move_on_after(seconds):
                    await client.post("/api/chat", json=body())

            nursery.start_soon(stream)
            await streaming.wait()
            nursery.start_soon(leave_after, 0.3)
            await _waiting(fleet, 1)
            assert (await client.post("/api/chat", json=body())).status_code == 503
            await _waiting(fleet, 0)
            assert (await client.post("/api/chat", json=body())).status_code in (503, 504)
            nursery.cancel_scope.cancel()
        await fleet.until_idle()
        found = figures(fleet.system)
    outcomes = {key[1:]: value for key, value in found.items() if key[0] == "fleet_requests_total"}
    assert outcomes == {
        ("a", TINY, "client_left"): 1,
        ("", TINY, "client_left"): 1,
        ("", TINY, "queue_full"): 1,
        ("", TINY, "queue_timeout"): 1,
    }
    rejected = {key[1]: value for key, value in found.items() if key[0] == "fleet_queue_rejected_total"}
    assert rejected == {"full": 1, "timeout": 1}
    assert found["fleet_wasted_tokens_total", TINY] >= 1


async def _waiting(fleet: Served, number: int) -> None:
    with trio.fail_after(60):
        while figures(fleet.system)[("fleet_queue_waiting",)] != number:
            await trio.sleep(0.01)


async def test_a_failover_is_one_request_of_two_attempts() -> None:
    async with served("a", "b") as fleet, fleet.client() as client:
        fleet.sims["a"].host.faults.set("status:503:down")
        fleet.sims["b"].host.faults.set("status:503:down")
        assert (await client.post("/api/chat", json=body())).status_code == 503
        await until(fleet, {("/api/chat", TINY, "503"): 1})
        found = figures(fleet.system)
        attempts = {key[1:]: value for key, value in found.items() if key[0] == "fleet_attempts_total"}
        assert attempts == {("a", "refused_503"): 1, ("b", "refused_503"): 1}
        assert found["fleet_failovers_total", "refused_503"] == 1


def test_the_listeners_that_start_at_0_are_those_with_a_limit() -> None:
    assert {face.value for face in rate_limits._SETTINGS} == set(LIMITED)
