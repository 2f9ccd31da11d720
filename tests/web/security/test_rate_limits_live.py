"""Rate limits of the whole product: each port, the official clients, streams, and changes while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import httpx
import httpx2
import ollama
import openai
import pytest
import trio

from fleet.common.ids import ServerId
from tests.e2e.support import Answer, ask, until
from tests.kit.cases.limits import CHAT, Clock, Told, limits, told
from tests.kit.clients import admin
from tests.kit.clients.lanes import base_url, both_lanes, socket_path
from tests.kit.fleets.served import Served, served
from tests.kit.suite.records import recent

T = TypeVar("T")
STREAM = {**CHAT, "stream": True, "options": {"num_predict": 3}}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def in_thread(work: Callable[[], T]) -> T:
    with trio.fail_after(60):
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


async def chat(url: str, *fields: str, path: str = "/api/chat") -> Answer:
    return await ask(url, "POST", path, STREAM, *fields)


async def test_each_port_has_its_own_limit(clock: Clock) -> None:
    async with served("a", **limits(proxy=1, metrics=3)) as fleet:
        assert [(await chat(fleet.url)).status for _ in range(2)] == [200, 429]
        for url in (fleet.orchestrator_url, fleet.dashboard_url):
            answers = [await chat(url) for _ in range(2)]
            assert [(each.status, told(each.headers)) for each in answers] == [(200, None)] * 2
        assert told((await ask(fleet.metrics_url, "GET", "/health")).headers) == Told(3, 2, 20)


async def test_the_metrics_port_counts_every_request_but_probes(clock: Clock) -> None:
    async with served("a", **limits(proxy=1, metrics=3)) as fleet:
        url = fleet.metrics_url
        answers = [await ask(url, "GET", path) for path in ("/health", "/nothing", "/metrics", "/health")]
        found = [told(each.headers) for each in answers]
        assert found == [Told(3, 2, 20), Told(3, 1, 40), Told(3, 0, 60), Told(3, 0, 60)]
        late = answers[-1]
        assert (late.status, late.headers["retry-after"]) == (429, "20")
        assert "RATE_LIMIT_EXCEEDED" in late.headers["x-fleet-error"]
        for path in ("/health/live", "/health/ready"):
            probe = await ask(url, "GET", path)
            assert (probe.status == 429, told(probe.headers)) == (False, None)
        clock.advance(20)
        assert told((await ask(url, "GET", "/health")).headers) == Told(3, 0, 80)
        assert (await chat(fleet.url)).status == 200


@both_lanes
async def test_streams_say_it_in_their_head(clock: Clock) -> None:
    async with served("a", **limits(proxy=5)) as fleet:
        for left, path in ((4, "/api/chat"), (3, "/v1/chat/completions")):
            answer = await chat(fleet.url, path=path)
            assert (answer.status, told(answer.headers)) == (200, Told(5, left, 60 - 12 * left))
            assert answer.headers["transfer-encoding"] == "chunked"
            assert answer.raw.lower().count(b"x-ratelimit-limit") == 1


async def test_a_refused_request_takes_no_slot_and_reaches_no_server(clock: Clock) -> None:
    async with served("a", slots=1, **limits(proxy=1)) as fleet:
        await chat(fleet.url)
        await until(lambda: recent(fleet.system.statistics.request_log))
        await fleet.system.probe(ServerId("a"), 5.0)  # what has just been loaded is looked for
        seen = fleet.sims["a"].host.requests_seen
        assert [(await chat(fleet.url)).status for _ in range(20)] == [429] * 20
        assert fleet.sims["a"].host.requests_seen == seen
        assert len(recent(fleet.system.statistics.request_log)) == 1
        assert fleet.system.statistics.metrics.limits["proxy"] == 20
        fleet.assert_nothing_left()


@both_lanes
async def test_limits_follow_the_configuration(clock: Clock) -> None:
    async with served("a", **limits(proxy=0)) as fleet:
        assert told((await chat(fleet.url)).headers) is None
        await change(fleet, "monitoring", rateLimitPerMinute=2)
        assert [(await chat(fleet.url)).status for _ in range(3)] == [200, 200, 429]
        await change(fleet, "monitoring", rateLimitPerMinute=3)
        assert told((await chat(fleet.url)).headers) == Told(3, 0, 60)  # what part of it is used stays the same
        clock.advance(20)
        assert told((await chat(fleet.url)).headers) == Told(3, 0, 80)
        await change(fleet, "security", rateLimiting={"enabled": False})
        answer = await chat(fleet.url)
        assert (answer.status, told(answer.headers)) == (200, None)


async def change(fleet: Served, section: str, **values: object) -> None:
    await admin.ask(fleet, "PATCH", f"/config/{section}", values)


@both_lanes
async def test_openai_s_client_sees_a_rate_limit_error(clock: Clock) -> None:
    async with served("a", **limits(proxy=1)) as fleet:
        http = httpx2.Client(transport=httpx2.HTTPTransport(uds=socket_path(fleet.url)))
        where = base_url(fleet.url) + "/v1"
        with openai.OpenAI(base_url=where, api_key="none", max_retries=0, http_client=http) as client:

            def once() -> object:
                return client.chat.completions.create(model="llama3:8b", messages=[{"role": "user", "content": "Hi"}])

            await in_thread(once)
            with pytest.raises(openai.RateLimitError) as caught:
                await in_thread(once)
        assert caught.value.response.headers["retry-after"] == "60"
        assert caught.value.code == "rate_limit_exceeded"


@both_lanes
async def test_ollama_s_client_sees_a_response_error(clock: Clock) -> None:
    async with served("a", **limits(proxy=1)) as fleet:
        client = ollama.Client(base_url(fleet.url), transport=httpx.HTTPTransport(uds=socket_path(fleet.url)))
        try:
            await in_thread(lambda: client.chat("llama3:8b", CHAT["messages"]))
            with pytest.raises(ollama.ResponseError, match="rate limit of 1 requests per minute exceeded") as caught:
                await in_thread(lambda: list(client.chat("llama3:8b", CHAT["messages"], stream=True)))
            assert caught.value.status_code == 429
            await in_thread(client.list)
        finally:
            client.close()  # type: ignore[no-untyped-call]
