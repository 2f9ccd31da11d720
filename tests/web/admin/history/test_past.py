"""Every figure equals what a driver sent and the simulated servers counted; without a history, it is said so."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from fleet.simulator import Profile
from tests.kit.clients.admin import ROOT, ask
from tests.kit.fleets.history import history_in
from tests.kit.fleets.served import Served, served

LLAMA, TINY = "llama3:8b", "tiny:latest"
SWIFT = Profile(load_seconds=0.0, slots=4, tokens_per_second=2000.0, prefill_per_second=20_000.0)
ANN = {"Authorization": "Bearer ann-key-0123456789"}
KEYS = {
    "keys": [
        {"name": "ann", "role": "admin", "key": "ann-key-0123456789"},
        {"name": "bob", "role": "client", "key": "bob-key-0123456789"},
    ],
}


@asynccontextmanager
async def driven(directory: Path) -> AsyncIterator[Served]:
    """Ann asks llama twenty-four times, Bob tiny six times, and once for what nobody has; three of server b's fail."""
    async with (
        history_in(directory) as history,
        served("a", "b", profile=SWIFT, history=history, security=KEYS) as here,
    ):
        for _ in range(24):
            await talk(here, "ann", "a", LLAMA, 10)
        for _ in range(6):
            await talk(here, "bob", "b", TINY, 5)
        await talk(here, "bob", "", "nobody:has-it", 5, status=404)
        here.sims["b"].host.faults.set("status:503:down")
        for _ in range(3):
            await talk(here, "bob", "b", TINY, 5, status=503)
        here.sims["b"].host.faults.set()
        await here.until_noted(34)
        yield here


async def talk(here: Served, who: str, server: str, model: str, tokens: int, status: int = 200) -> None:
    path = "/api/generate" + (f"--{server}" if server else "")
    body = {"model": model, "prompt": "x", "stream": False, "options": {"num_predict": tokens}}
    async with here.client(authorization=f"Bearer {who}-key-0123456789") as client:
        assert (await client.post(path, json=body)).status_code == status


async def see(here: Served, path: str, status: int = 200) -> Any:
    return await ask(here, "GET", path, status=status, headers=ANN)


async def test_figures_are_those_of_the_driver(tmp_path: Path) -> None:
    with trio.fail_after(120):
        async with driven(tmp_path) as here:
            found = (await see(here, "/analytics/summary?timeRange=1h"))["summary"]
            assert (found["totalRequests"], found["totalErrors"], found["tokensGenerated"]) == (34, 4, 270)
            assert (found["uniqueModels"], found["uniqueServers"], found["topModel"]) == (2, 2, LLAMA)
            stats = (await see(here, "/analytics/request-stats/a"))["stats"]
            assert (stats["totalRequests"], stats["successfulRequests"], stats["avgTokensGenerated"]) == (24, 24, 10)
            assert 0 < stats["p50Latency"] <= stats["p95Latency"] <= stats["p99Latency"]
            models = await see(here, "/analytics/top-models")
            assert {each["model"]: each["requests"] for each in models["models"]} == {
                LLAMA: 24,
                TINY: 9,
                "nobody:has-it": 1,
            }
            errors = await see(here, "/analytics/errors")
            assert errors["byType"] == {"refused_503": 3, "model_not_found": 1}
            assert errors["byServer"] == {"b": 3, "": 1}
            live = (await see(here, "/stats"))["stats"]
            assert (live["totalRequests"], live["totalErrors"]) == (34, 4), "the same as elsewhere"
            assert live["avgLatency"] == pytest.approx(found["avgLatency"], rel=0.01, abs=0.1)


async def test_usage_is_told_by_client_model_and_day(tmp_path: Path) -> None:
    with trio.fail_after(120):
        async with driven(tmp_path) as here:
            found = await see(here, "/analytics/usage")
            by_client = {each["client"]: each for each in found["usage"]}
            assert by_client.keys() == {"key:ann", "key:bob"}
            ann, bob = by_client["key:ann"], by_client["key:bob"]
            assert (ann["requests"], ann["tokensGenerated"], ann["errors"], ann["wastedSeconds"]) == (24, 240, 0, 0)
            assert (bob["requests"], bob["tokensGenerated"], bob["errors"]) == (10, 30, 4)
            assert ann["slotSeconds"] > 0
            assert bob["wastedSeconds"] <= bob["slotSeconds"]
            assert (found["groupBy"], found["truncated"], ann["day"], ann["model"]) == (["client"], False, None, None)
            days = await see(here, "/analytics/usage?groupBy=day,model,server&client=key:ann")
            assert {(each["model"], each["server"], each["client"]) for each in days["usage"]} == {(LLAMA, "a", None)}
            assert sum(each["requests"] for each in days["usage"]) == 24
            assert all(len(each["day"]) == 10 for each in days["usage"])
            whole = await see(here, "/analytics/usage?groupBy=")
            assert [each["requests"] for each in whole["usage"]] == [34]
            await see(here, "/analytics/usage?groupBy=weather", status=400)


async def test_usage_is_a_table_for_spreadsheets_which_runs_no_formula(tmp_path: Path) -> None:
    with trio.fail_after(120):
        async with driven(tmp_path) as here, here.client() as client:
            await talk(here, "ann", "", "=cmd()", 5, status=400)
            answer = await client.get(f"{ROOT}/analytics/usage?groupBy=model,client&format=csv", headers=ANN)
            assert answer.headers["content-type"] == "text/csv; charset=utf-8"
            rows = list(csv.DictReader(io.StringIO(answer.text)))
            assert {row["model"]: row["requests"] for row in rows}.keys() >= {LLAMA, TINY}
            assert all(not (row["model"] or "").startswith("=") for row in rows)
            assert {row["day"] for row in rows} == {""}


async def test_without_a_history_it_is_said_so() -> None:
    async with served("a") as here:
        for path in ("summary", "requests/a", "requests/search", "request-timeline", "usage", "capacity"):
            found = await ask(here, "GET", f"/analytics/{path}", status=503)
            assert "nothing is kept" in found["error"]


async def test_only_operators_see_the_past(tmp_path: Path) -> None:
    async with driven(tmp_path) as here, here.client(authorization="Bearer bob-key-0123456789") as client:
        for path in ("summary", "requests/search", "usage"):
            assert (await client.get(f"{ROOT}/analytics/{path}")).status_code == 403
