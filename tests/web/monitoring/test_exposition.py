"""`/metrics` over real sockets: on every port, for everybody at once, and true."""

from __future__ import annotations

import math
import threading
from typing import Any

import httpx
import pytest
import trio
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from actors.observability.metrics_gauges import ModelCounts, snapshot
from actors.system import System
from fleet.observability.metrics.definitions import BY_NAME
from fleet.observability.metrics.snapshot import Family
from tests.kit.cases.metrics import scraped
from tests.kit.fleets.served import Served, served
from web.monitoring import exposition
from web.monitoring.exposition import Exposition, MetricsUnavailable
from web.monitoring.exposition_text import OPENMETRICS, TEXT, Writer

ASKS = {"accept": "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5"}
CHAT = "ollama_proxy_requests_total{endpoint=/api/chat,method=POST,model=tiny:latest,status=%d}"


def body(model: str = "tiny", *, stream: bool = True, tokens: int = 5, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "x"}]
    return {"model": model, "messages": messages, "stream": stream, "options": {"num_predict": tokens}, **more}


async def get(url: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=20.0) as client:
        return await client.get(f"{url}/metrics", headers=headers)


async def test_every_port_serves_the_same_table() -> None:
    async with served("a") as fleet:
        for url in (fleet.url, fleet.orchestrator_url, fleet.dashboard_url, fleet.metrics_url):
            answer = await get(url)
            assert answer.status_code == 200
            assert answer.headers["content-type"] == TEXT
            assert answer.headers["vary"] == "Accept, Accept-Encoding"
            suffix = {"counter": "_total", "gauge": "", "histogram": ""}
            names = {family.name + suffix[family.type] for family in read_text(answer.text)}
            assert {name for name in names if not name.startswith("process_")} == BY_NAME.keys()


async def test_formats_and_coding_are_the_client_s_to_choose_and_head_works() -> None:
    async with served("a") as fleet, httpx.AsyncClient(trust_env=False, timeout=20.0) as client:
        url = f"{fleet.metrics_url}/metrics"
        plain = await client.get(url, headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        zipped = await client.get(url, headers={"accept-encoding": "gzip", **ASKS})
        assert zipped.headers["content-encoding"] == "gzip"
        assert zipped.headers["content-type"] == OPENMETRICS
        assert int(zipped.headers["content-length"]) < len(plain.content) / 3
        assert zipped.text.endswith("# EOF\n")
        head = await client.head(url, headers={"accept-encoding": "identity"})
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == TEXT
        posted = await client.post(url)
        assert posted.status_code == 405


async def test_whoever_needs_a_key_for_the_fleet_needs_one_here() -> None:
    async with served("a", security={"api_keys": ["a-key-of-mine"]}) as fleet:
        for url in (fleet.url, fleet.metrics_url):
            assert (await get(url)).status_code == 401
            assert (await get(url, authorization="Bearer a-key-of-mine")).status_code == 200


async def test_exemplars_name_a_request_unless_they_are_switched_off() -> None:
    for wanted in (True, False):
        async with (
            served("a", metrics={"exemplars": wanted}) as fleet,
            fleet.client(**{"x-request-id": "mine-1"}) as client,
        ):
            assert (await client.post("/api/chat", json=body())).status_code == 200
            await fleet.until_noted(1)
            text = (await get(fleet.metrics_url, **ASKS)).text
            families = read_openmetrics(text)  # type: ignore[no-untyped-call]
            found = {sample.exemplar.labels["request_id"] for f in families for sample in f.samples if sample.exemplar}
            assert found == ({"mine-1"} if wanted else set())


async def leave(fleet: Served) -> None:
    """A client that goes after the first bytes of a long stream."""
    async with (
        fleet.client() as client,
        client.stream("POST", "/api/chat", json=body(tokens=2000)) as answer,
    ):
        async for _ in answer.aiter_bytes():
            break


async def test_what_was_sent_is_what_is_counted() -> None:
    """Whatever a client can do on Ollama's own routes is one request in the first metric of the table."""
    with trio.fail_after(60):
        async with served("a", "b", limits={"body_bytes": 4096}) as fleet, fleet.client() as client:
            sent = [await client.post("/api/chat", json=body(stream=bool(n % 2))) for n in range(10)]
            sent.append(await client.post("/v1/chat/completions", json=body()))
            sent.append(await client.post("/api/show", json={"model": "tiny"}))
            sent.append(await client.post("/api/chat", json=body("nobody-has-this")))
            sent.append(await client.post("/api/chat", json=body("big:cloud")))
            sent.append(await client.post("/api/chat", json=body(padding="x" * 5000)))
            sent.append(await client.post("/api/chat--nowhere", json=body()))
            sent.append(await client.post("/api/generate", json={"model": "tiny", "keep_alive": 0}))
            sent.append(await client.get("/api/tags"))
            sent.append(await client.head("/api/version"))
            sent.append(await client.get("/v1/models/tiny"))
            sent.append(await client.post("/api/copy", json={"source": "tiny", "destination": "copied"}))
            for path in ("/api/orchestrator/servers", "/metrics", "/api/nothing", "/health"):
                await client.get(path)
            await leave(fleet)
            found = await scraped(fleet.metrics_url, requests=len(sent) + 1)
    requests = {key: value for key, value in found.items() if key.startswith("ollama_proxy_requests_total")}
    assert sum(requests.values()) == len(sent) + 1, requests
    assert requests[CHAT % 200] == 10
    assert requests[CHAT % 499] == 1
    for endpoint, method, model, status in (
        ("/api/chat", "POST", "other", 404),
        ("/api/chat", "POST", "", 403),
        ("/api/chat", "POST", "", 413),
        ("/api/chat", "POST", "", 404),
        ("/api/generate", "POST", "", 200),
        ("/api/tags", "GET", "", 200),
        ("/api/version", "HEAD", "", 200),
        ("/v1/models/:model", "GET", "", 200),
        ("/api/copy", "POST", "", 200),
    ):
        labels = f"endpoint={endpoint},method={method},model={model},status={status}"
        assert requests[f"ollama_proxy_requests_total{{{labels}}}"] == 1, requests
    assert found["fleet_wasted_tokens_total{model=tiny:latest}"] >= 1
    assert found["fleet_in_flight"] == 0
    tokens = sum(value for key, value in found.items() if key.startswith("fleet_output_tokens_total"))
    assert tokens == 10 * 5, "OpenAI's streams do not tell unless they are asked to"


async def test_a_request_turned_away_at_the_door_counts_with_its_status() -> None:
    async with served("a", security={"api_keys": ["a-key-of-mine"]}) as fleet:
        async with fleet.client() as client:
            refused = [await client.post("/api/chat", json=body()), await client.get("/api/tags")]
        await fleet.until_noted(2)
        text = (await get(fleet.metrics_url, authorization="Bearer a-key-of-mine")).text
    (family,) = [each for each in read_text(text) if each.name == "ollama_proxy_requests"]
    counted = {(sample.labels["endpoint"], int(sample.labels["status"])): sample.value for sample in family.samples}
    assert [answer.status_code // 100 for answer in refused] == [4, 4]
    assert counted == {("/api/chat", refused[0].status_code): 1, ("/api/tags", refused[1].status_code): 1}


async def test_a_crowd_of_scrapers_is_served_by_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []

    def look(system: System, version: str, python: str, counts: ModelCounts) -> list[Family]:
        looks.append(version)
        return snapshot(system, version, python, counts)

    monkeypatch.setattr(exposition, "snapshot", look)
    monkeypatch.setattr(exposition, "_LONGEST", math.inf)
    async with served("a") as fleet:
        one = Exposition(share=1e9)  # however long it takes

        async def scrape(kind: str) -> None:
            assert await one.latest(fleet.system, kind, zipped=False)

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(scrape, OPENMETRICS if number % 3 else TEXT)
    assert len(looks) == 1


async def test_figures_are_fresh_for_whoever_asks_later() -> None:
    async with served("a") as fleet, fleet.client() as client:
        one = Exposition()
        before = await one.latest(fleet.system, TEXT, zipped=False)
        assert (await client.post("/api/chat", json=body())).status_code == 200
        with trio.fail_after(60):
            while (after := await one.latest(fleet.system, TEXT, zipped=False)) == before:
                await trio.sleep(0.05)
    assert b'fleet_attempts_total{outcome="completed",server="a"} 1.0' in after


async def test_a_scraper_that_leaves_spoils_nothing_for_the_next() -> None:
    async with served("a") as fleet:
        one = Exposition()
        for patience in (0.0, 0.001, 0.003):
            with trio.move_on_after(patience):
                await one.latest(fleet.system, TEXT, zipped=False)
        assert await one.latest(fleet.system, TEXT, zipped=False)


async def test_a_scraper_that_leaves_does_not_wait_for_the_thread_and_a_hanging_thread_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody waits for ever, and figures come again as soon as the thread does."""
    stuck = threading.Event()
    monkeypatch.setattr(exposition, "PATIENCE", 0.2)
    async with served("a") as fleet:
        one = Exposition()
        monkeypatch.setattr(Writer, "written", lambda self, families: (stuck.wait(20) and b"") or b"late")
        try:
            with trio.fail_after(60):
                with trio.move_on_after(0.05) as left:
                    await one.latest(fleet.system, TEXT, zipped=False)
                assert left.cancelled_caught
                for _ in range(2):
                    with pytest.raises(MetricsUnavailable):
                        await one.latest(fleet.system, TEXT, zipped=False)
        finally:
            stuck.set()
        monkeypatch.undo()
        with trio.fail_after(60):
            assert await one.latest(fleet.system, TEXT, zipped=True)
            assert b"fleet_server_up" in await one.latest(fleet.system, TEXT, zipped=False)


async def test_after_an_error_the_next_one_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served("a") as fleet:
        one = Exposition()
        with monkeypatch.context() as broken:
            broken.setattr(exposition, "snapshot", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                await one.latest(fleet.system, TEXT, zipped=False)
        assert b"fleet_server_up" in await one.latest(fleet.system, TEXT, zipped=False)
