"""Why requests went where they went, by REST: every field, unit and filter, over real sockets."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fleet.common.ids import ModelName, Pair, ServerId
from fleet.simulator import Profile
from tests.kit.clients.admin import ask
from tests.kit.fleets.served import Served, served

SECRET = "a secret prompt about submarines"
SWIFT = Profile(load_seconds=0.0, slots=4, tokens_per_second=500.0)


@pytest.fixture
async def fleet() -> AsyncIterator[Served]:
    plans: dict[str, Any] = {"load_balancer": {"policy": "expected_completion", "decisions": 5}}
    async with served("a", "b", profile=SWIFT, models="tiny:latest:1GB,other:latest:1GB", **plans) as here:
        yield here


async def talk(fleet: Served, request_id: str, model: str = "tiny") -> str:
    body = {"model": model, "messages": [{"role": "user", "content": SECRET}], "options": {"num_predict": 20}}
    async with fleet.client() as client:
        answer = await client.post("/api/chat", json=body, headers={"X-Request-Id": request_id})
    assert answer.status_code == 200
    return answer.headers["x-fleet-server"]


async def decisions(fleet: Served, query: str = "") -> list[dict[str, Any]]:
    answer = await ask(fleet, "GET", f"/routing/decisions{query}")
    assert answer["count"] == len(answer["decisions"])
    assert answer["kept"] == 5
    assert SECRET not in str(answer)
    found: list[dict[str, Any]] = answer["decisions"]
    return found


async def test_a_decision_by_rest(fleet: Served) -> None:
    server = await talk(fleet, "mine")
    (shown,) = await decisions(fleet)
    assert shown["requestId"] == "mine"
    assert shown["serverId"] == server
    assert shown["model"] == "tiny:latest"
    assert shown["policy"] == "expected_completion"
    assert abs(shown["at"] / 1000 - time.time()) < 60
    assert shown["why"] == "the best of 2 servers"
    assert (shown["outcome"], shown["hopedFor"]) == ("well", None)
    assert next(each["serverId"] for each in shown["candidates"]) == server
    for each in shown["candidates"]:
        assert set(each["terms"]) == {"wait", "load", "prefill", "decode", "eviction", "failure", "bonus"}
    for spans in (shown["predicted"], shown["came"]):
        assert set(spans) == {"wait", "load", "prefill", "decode", "firstToken", "done"}
    assert 0.0 < shown["came"]["firstToken"] <= shown["came"]["done"] < 60.0
    assert shown["predicted"]["done"] > 0.0


async def test_the_newest_come_first_and_only_those_asked_for(fleet: Served) -> None:
    for number in range(6):
        await talk(fleet, f"r{number}", "tiny" if number % 2 else "other")
    assert [each["requestId"] for each in await decisions(fleet)] == ["r5", "r4", "r3", "r2", "r1"]
    assert [each["requestId"] for each in await decisions(fleet, "?limit=2")] == ["r5", "r4"]
    assert [each["requestId"] for each in await decisions(fleet, "?model=tiny")] == ["r5", "r3", "r1"]
    assert [each["requestId"] for each in await decisions(fleet, "?requestId=r3")] == ["r3"]
    assert {each["serverId"] for each in await decisions(fleet, "?serverId=b")} <= {"b"}
    assert await decisions(fleet, "?serverId=nobody") == []


async def test_what_predictions_are_worth_by_rest(fleet: Served) -> None:
    empty = await ask(fleet, "GET", "/routing/predictions")
    assert empty["lessons"] == 0
    assert [each["term"] for each in empty["terms"]] == ["wait", "load", "prefill", "decode", "done"]
    assert {(each["factor"], each["error"]) for each in empty["terms"]} == {(None, None)}
    assert empty["unreliable"] == []
    server = await talk(fleet, "mine")
    estimates, now = fleet.system.scheduler.expectations.estimates, fleet.system.clock.now()
    pair = Pair(ServerId(server), ModelName("tiny:latest"))
    for at in range(60):
        estimates.trust.learn(pair, 1.0, 1.0, now, 8.0 if at % 2 else 0.125)
    estimates.doubted.add(pair)
    shown = await ask(fleet, "GET", "/routing/predictions")
    assert shown["lessons"] >= 1
    (done,) = [each for each in shown["terms"] if each["term"] == "done"]
    assert 0.5 <= done["factor"] <= 2.0
    assert done["error"] >= 1.0
    (unreliable,) = shown["unreliable"]
    assert (unreliable["serverId"], unreliable["model"]) == (server, "tiny:latest")
    assert unreliable["error"] > 2.0
