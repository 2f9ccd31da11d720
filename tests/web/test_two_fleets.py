"""Two fleets in one process: neither sees what is the other's, nor is it told less because of it."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from actors.kit.clock import Clock
from fleet.security.api_keys import StoredKey, digest_of, new_key, written
from fleet.security.roles import Role
from tests.kit.clients.lanes import both_lanes
from tests.web.edge.raw import Served
from tests.web.fake_system import FakeSystem, fleet
from web.http.paced_steps import paced
from web.process.log_buffer import scrubbed, scrubbing

KEYS = [new_key(letter * 32) for letter in (b"a", b"b")]
BODY = b'{"model":"m"}'


@asynccontextmanager
async def two(one: FakeSystem, other: FakeSystem) -> AsyncIterator[tuple[Served, Served]]:
    async with fleet(one) as first, fleet(other) as second:
        yield first, second


async def status(server: Served, *fields: str) -> int:
    return (await (await server.connect()).ask("POST", "/api/chat", BODY, *fields)).status


def stored(path: Path, key: str) -> dict[str, Any]:
    path.write_text(written([StoredKey("ci", Role.CLIENT, digest_of(key))]))
    return {"security": {"keys_file": str(path)}}


@both_lanes
async def test_a_key_opens_the_fleet_whose_file_it_is_in(tmp_path: Path) -> None:
    settings = [stored(tmp_path / f"{at}.jsonl", key) for at, key in enumerate(KEYS)]
    async with two(FakeSystem(**settings[0]), FakeSystem(**settings[1])) as servers:
        found = [[await status(server, f"X-API-Key: {key}") for key in KEYS] for server in servers]
    assert found == [[200, 403], [403, 200]]


@both_lanes
async def test_each_reads_the_one_file_both_name_by_itself(tmp_path: Path) -> None:
    one = FakeSystem(**stored(tmp_path / "keys.jsonl", KEYS[0]))
    async with fleet(one) as first:
        assert await status(first, f"X-API-Key: {KEYS[0]}") == 200
        other = FakeSystem(**stored(tmp_path / "keys.jsonl", KEYS[1]))
        async with fleet(other) as second:
            assert [await status(second, f"X-API-Key: {key}") for key in KEYS] == [403, 200]
            assert [await status(first, f"X-API-Key: {key}") for key in KEYS] == [200, 403]


@both_lanes
async def test_each_tells_of_a_refused_page(caplog: pytest.LogCaptureFixture) -> None:
    async with two(FakeSystem(), FakeSystem()) as servers:
        for server in (*servers, *servers):
            assert await status(server, "Origin: https://evil.example") == 403
    assert len([each for each in caplog.records if each.name == "fleet.cors"]) == 2


@both_lanes
async def test_each_answers_by_its_own_settings() -> None:
    async with two(FakeSystem(cors={"origins": ["https://good.example"]}), FakeSystem()) as servers:
        assert [await status(server, "Origin: https://good.example") for server in servers] == [200, 403]


async def test_each_has_the_date_of_its_own_clock() -> None:
    one, other = FakeSystem(), FakeSystem()
    one.clock = Clock(now=trio.current_time, wall=lambda: 0.0)
    other.clock = Clock(now=trio.current_time, wall=lambda: 86_400.0)
    async with two(one, other) as servers:
        answers = [await (await server.connect()).ask("POST", "/api/chat", BODY) for server in servers]
    assert [each["date"] for each in answers] == ["Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 02 Jan 1970 00:00:00 GMT"]


def test_the_log_of_the_process_has_the_secrets_of_neither() -> None:
    with scrubbing(lambda text: text.replace("one", "***")):
        with scrubbing(lambda text: text.replace("two", "***")):
            assert scrubbed("one two three") == "*** *** three"
        assert scrubbed("one two three") == "*** two three"
    assert scrubbed("one two three") == "one two three"


def test_slow_work_of_two_event_loops_at_one_time_does_not_meet() -> None:
    """Each loop's tasks take turns; a lock of Trio's that two loops share would wake a task of the other."""
    found: list[int] = []

    def steps() -> Any:
        for _ in range(300_000):
            yield
        return 1

    async def both() -> None:
        async def one() -> None:
            found.append(await paced(steps()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(one)

    threads = [threading.Thread(target=trio.run, args=(both,)) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert found == [1] * 8
