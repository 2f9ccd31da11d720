"""The fleet's first-token time exists once: whoever shows it shows the same number."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import httpx
import pytest
import trio

from fleet.common.wording import duration
from fleet.observability.alerting.facts import FirstTokenTimes
from fleet.observability.alerting.rules import BY_NAME
from tests.kit.cases.metrics import scraped
from tests.kit.clients.admin import ask
from tests.kit.fleets.served import Served, served

STREAMS = 12
BROWSER = {"Accept": "text/html"}


async def until(fleet: Served, condition: Any) -> Any:
    """Looks again and again, as the monitor does."""
    with trio.fail_after(60):
        while not (found := condition()):
            fleet.system.monitor.evaluate()
            await trio.sleep(0.02)
    return found


async def streamed(fleet: Served, number: int) -> FirstTokenTimes:
    """What the monitor says after so many streams have ended."""
    async with httpx.AsyncClient(base_url=fleet.url, trust_env=False, timeout=20.0) as client:
        for _ in range(number):
            body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "options": {"num_predict": 3}}
            assert (await client.post("/api/chat", json=body)).status_code == 200
    await fleet.until_noted(number)
    await until(fleet, lambda: fleet.system.monitor.traffic.first.count == number)
    return fleet.system.monitor.traffic.first


async def page(fleet: Served) -> str:
    async with httpx.AsyncClient(base_url=fleet.dashboard_url, trust_env=False, headers=BROWSER) as client:
        return (await client.get("/")).text


async def test_page_feed_metrics_verdict_ai_status_and_alert_say_the_same_number() -> None:
    async with served("a", ai_status={"interval": 1.0}, alerts={"first_token": 0.001}) as fleet:
        system = fleet.system
        system.monitor.alerts.rules = ()
        first = await streamed(fleet, STREAMS)
        words = duration(first.p95)
        assert 0 < first.p50 <= first.p95

        metrics = await scraped(fleet.metrics_url, STREAMS)
        assert metrics["fleet_first_token_p95_seconds"] == pytest.approx(first.p95)
        assert metrics["fleet_first_token_p50_seconds"] == pytest.approx(first.p50)

        told = (await system.feed.snapshot()).fleet
        assert (told["ttft_p50"], told["ttft_p95"]) == (round(first.p50, 3), round(first.p95, 3))
        tile = re.search(r"<dt>TTFT p95</dt><dd>([^<]*)</dd>", await page(fleet))
        assert tile is not None
        assert tile[1] == duration(round(first.p95, 3))

        await until(fleet, lambda: system.monitor.verdict.code == "healthy")
        assert (await ask(fleet, "GET", "/health"))["verdict"]["headline"].endswith(f"TTFT p95 {words}")

        assert system.status_writer.figures().first_token == first.p95
        text = f"first token within {words} (95%)"
        await until(fleet, lambda: system.status_writer.latest and text in system.status_writer.latest.text)

        system.monitor.alerts.rules = (replace(BY_NAME["FleetTTFTHigh"], hold=0.0),)
        await until(fleet, lambda: system.monitor.alerts.firing)
        (alert,) = (await ask(fleet, "GET", "/alerts"))["alerts"]
        assert alert["value"] == pytest.approx(first.p95, abs=1e-6)
        assert alert["title"] == f"the first token takes {words} (95th percentile)"
        assert system.monitor.traffic.first == first, "nothing has come since"


async def test_of_no_streams_nobody_says_a_number() -> None:
    async with served("a") as fleet:
        await until(fleet, lambda: fleet.system.monitor.verdict.code == "healthy")
        assert "fleet_first_token_p95_seconds" not in await scraped(fleet.metrics_url)
        assert (await fleet.system.feed.snapshot()).fleet["ttft_p95"] is None
        assert fleet.system.status_writer.figures().first_token is None
        assert "TTFT" not in fleet.system.monitor.verdict.headline
