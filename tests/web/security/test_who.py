"""Who asked: the name of the key in the log of requests, in the queue, in flight, in the metrics. Never the key."""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import Any

import pytest
import trio

from fleet.simulator import Profile
from tests.kit.clients.admin import ROOT, checked
from tests.kit.clients.lanes import both_lanes
from tests.kit.fleets.served import Served, served

pytestmark = both_lanes

ADA, BOSS = "a-very-long-key-of-adas", "a-very-long-key-of-the-boss"
SECURITY = {
    "keys": [{"name": "ada", "role": "client", "key": ADA}, {"name": "boss", "role": "admin", "key": BOSS}],
    "api_keys": ["a-very-long-plain-key"],
}
SLOW = Profile(load_seconds=0.0, slots=1, tokens_per_second=20.0)


async def say(fleet: Served, key: str | None, tokens: int = 3) -> None:
    body = {"model": "tiny", "prompt": "x", "stream": False, "options": {"num_predict": tokens}}
    fields = {} if key is None else {"authorization": f"Bearer {key}"}
    async with fleet.client(**fields) as client:
        assert (await client.post("/api/generate", json=body)).status_code == 200


async def logged(fleet: Served, caplog: pytest.LogCaptureFixture, number: int) -> list[logging.LogRecord]:
    """The lines of that many requests; an answer is complete before its line is written."""
    with trio.fail_after(20):
        while len(lines := [line for line in caplog.records if line.name == "fleet.request"]) < number:
            fleet.system.statistics.request_log.flush()
            await trio.sleep(0.005)
    return lines


async def looked(fleet: Served, path: str) -> Any:
    async with fleet.client(authorization=f"Bearer {BOSS}") as client:
        answer = await client.get(ROOT + path)
    assert ADA not in answer.text
    return checked("GET", ROOT + path, answer)


async def test_the_log_of_requests_names_the_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fleet.request")
    async with served("a", security=SECURITY) as fleet:
        await say(fleet, ADA)
        await say(fleet, "a-very-long-plain-key")
        lines = await logged(fleet, caplog, 2)
        assert [getattr(line, "by", None) for line in lines] == ["ada", "api_keys[0]"]
        assert ADA not in json.dumps([vars(line) for line in lines], default=str)


async def test_without_a_key_the_log_says_nothing_of_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fleet.request")
    async with served("a") as fleet:
        await say(fleet, None)
        await say(fleet, "a-key-that-nobody-has")
        assert not any(hasattr(line, "by") for line in await logged(fleet, caplog, 2))


async def test_the_queue_and_what_runs_name_the_key() -> None:
    async with served("a", security=SECURITY, profile=SLOW, slots=1) as fleet, trio.open_nursery() as nursery:
        nursery.start_soon(partial(say, fleet, ADA, 40))
        with trio.fail_after(20):
            while not fleet.system.in_flight:
                await trio.sleep(0.005)
        nursery.start_soon(partial(say, fleet, BOSS))
        with trio.fail_after(20):
            while not fleet.system.scheduler.tickets:
                await trio.sleep(0.005)
        (runs,) = (await looked(fleet, "/in-flight"))["inFlight"]
        assert [each["by"] for each in runs["requests"]] == ["ada"]
        assert [each["by"] for each in (await looked(fleet, "/queue"))["queue"]["items"]] == ["boss"]


async def test_who_shows_no_key_is_anonymous_there() -> None:
    async with served("a", profile=SLOW, slots=1) as fleet, trio.open_nursery() as nursery:
        nursery.start_soon(partial(say, fleet, None, 20))
        with trio.fail_after(20):
            while not fleet.system.in_flight:
                await trio.sleep(0.005)
        async with fleet.client() as client:
            found = checked("GET", f"{ROOT}/in-flight", await client.get(f"{ROOT}/in-flight"))
        assert [each["by"] for each in found["inFlight"][0]["requests"]] == ["anonymous"]


async def scraped(fleet: Served, line: str) -> str:
    """What Prometheus reads, once this line is in it."""
    async with fleet.client(authorization=f"Bearer {BOSS}") as client:
        with trio.fail_after(20):
            while line not in (text := (await client.get("/metrics")).text).splitlines():
                await trio.sleep(0.05)
    return text


async def test_tokens_and_requests_are_counted_by_key() -> None:
    async with served("a", security=SECURITY) as fleet:
        await say(fleet, ADA, tokens=4)
        await say(fleet, ADA, tokens=5)
        text = await scraped(fleet, 'fleet_key_requests_total{key="ada",outcome="completed"} 2.0')
        assert 'fleet_key_output_tokens_total{key="ada"} 9.0' in text.splitlines()
        assert ADA not in text


async def test_more_keys_than_there_is_room_for_are_one_series() -> None:
    async with served("a", security=SECURITY, metrics={"callers": 1}) as fleet:
        for key in (ADA, BOSS, "a-very-long-plain-key"):
            await say(fleet, key)
        text = await scraped(fleet, 'fleet_key_requests_total{key="other",outcome="completed"} 2.0')
        assert 'key="boss"' not in text
