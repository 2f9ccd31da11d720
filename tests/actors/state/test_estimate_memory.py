"""What was learned survives a restart; what is damaged, foreign or of servers that are gone does not."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.state.estimate_memory import EVERY, KIND, VERSION
from actors.storage.writer import open_journal
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.protocol.prompt_parts import prompt_parts
from fleet.scheduling.estimates.forecast.estimates import Estimates
from fleet.scheduling.estimates.forecast.persistence import ESTIMATORS
from fleet.simulator import Profile
from tests.kit.fleets.fleet import QUICK, Client, Fleet, chat, open_fleet
from tests.kit.fleets.store import FakeDisk, journal_on

PLANS: dict[str, Any] = {"load_balancer": {"policy": "expected_completion"}}
SWIFT = Profile(load_seconds=0.2, slots=4, tokens_per_second=1000.0)
SLOW = replace(QUICK, tokens_per_second=5.0, jitter=0.0)
A, M = ServerId("a"), ModelName("m:latest")
SECRET = "a very secret question, asked at length " * 20


def estimates(fleet: Fleet) -> Estimates:
    return fleet.system.scheduler.expectations.estimates


def step(fleet: Fleet) -> float:
    """Seconds that a token takes, as it is estimated."""
    return estimates(fleet).decode.line(Pair(A, M), None, trio.current_time())[0]


async def ask(fleet: Fleet, number: int = 5, **what: Any) -> None:
    for _ in range(number):
        await fleet.system.exchange(chat(**what), client := Client())
        assert client.complete


@asynccontextmanager
async def life(disk: FakeDisk, *servers: Any, **config: Any) -> AsyncIterator[Fleet]:
    """A fleet over what the disk holds."""
    journal, store = journal_on(disk)
    async with open_fleet(*(servers or (("a", SLOW),)), journal=journal, **(config or PLANS)) as fleet:
        yield fleet
    await store.finish()


def samples(fleet: Fleet) -> dict[str, list[float]]:
    """What was measured, without ages and weights, which fade."""
    now, known = trio.current_time(), estimates(fleet)
    found = {"decode": known.decode.to_plain(now, 9), "loads": known.loads.to_plain(now, 9)}
    return {name: [value for value, _ in rows[0][2][1]] for name, rows in found.items() if isinstance(rows[0][2], list)}


async def test_two_lives_over_a_real_file(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    with trio.fail_after(60):
        journal, store = await open_journal(path, 1000, time.time)
        assert store is not None
        async with open_fleet(("a", SWIFT), journal=journal, **PLANS) as fleet:
            await ask(fleet, 3, tokens=10)
            learned, trusted = samples(fleet), estimates(fleet).trust.of(Pair(A, M))
        await store.finish()
        assert learned["decode"]
        assert learned["loads"]
        assert trusted is not None
        journal, store = await open_journal(path, 1000, time.time)
        assert store is not None
        async with open_fleet(("a", SWIFT), journal=journal, **PLANS) as fleet:
            assert samples(fleet) == learned
            again = estimates(fleet).trust.of(Pair(A, M))
            assert again is not None
            assert again.bias.mean == trusted.bias.mean
            await ask(fleet)
        await store.finish()
    with sqlite3.connect(path) as connection:
        found = dict(connection.execute("SELECT key, value FROM documents WHERE kind = ?", (KIND,)).fetchall())
    connection.close()
    assert set(found) == set(ESTIMATORS)
    assert json.loads(found["trust"])["rows"][0][:2] == ["a", "m:latest"]


async def test_every_minute_what_was_learned_is_written_and_only_then(autojump_clock: MockClock) -> None:
    disk = FakeDisk()
    async with life(disk) as fleet:
        await ask(fleet)
        assert KIND not in disk.stored
        await trio.sleep(EVERY + 5.0)
        assert set(disk.stored[KIND]) == set(ESTIMATORS)
        written = len(disk.batches)
        await trio.sleep(10 * EVERY)
        assert len(disk.batches) == written, "nothing was learned"
        await ask(fleet, 1)
    assert len(disk.batches) > written, "the end writes what is left"


async def test_a_policy_that_does_not_plan_learns_and_writes_nothing(autojump_clock: MockClock) -> None:
    disk = FakeDisk()
    async with life(disk, load_balancer={"policy": "weighted"}) as fleet:
        await ask(fleet)
        await trio.sleep(2 * EVERY)
    assert KIND not in disk.stored


async def test_what_nobody_shall_read_is_not_in_it(autojump_clock: MockClock) -> None:
    """Neither texts nor hashes of them, nor clients."""
    disk = FakeDisk()
    async with life(disk) as fleet:
        for _ in range(3):
            call = chat(text=SECRET)
            call.client = "198.51.100.7"
            call.headers = [*call.headers, (b"x-session-id", b"session-0001")]
            await fleet.system.exchange(call, Client())
        links = fleet.system.scheduler.prompt_links
        parts = prompt_parts(call.body if isinstance(call.body, bytes) else b"", call.headers)
        hashes = [each.digest for each in links.links(M, parts.fields)]
        hashes.append(links.session(M, parts.session_kind, parts.session))
        assert len(estimates(fleet).affinity.find(M, links.links(M, parts.fields), None, trio.current_time())) == 1
    text = json.dumps(disk.stored[KIND])
    assert len(hashes) > 1
    for secret in ("secret", "198.51.100.7", "session-0001", *map(str, hashes)):
        assert secret not in text


DAMAGED: list[dict[str, Any]] = [
    {},
    {"version": VERSION + 1, "at": 0.0, "rows": []},
    {"version": VERSION, "at": "yesterday", "rows": []},
    {"version": VERSION, "at": 0.0, "rows": "many"},
    {"version": VERSION, "at": 0.0},
]


@pytest.mark.parametrize("document", DAMAGED)
async def test_what_is_damaged_or_foreign_is_left_out_with_one_line(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, document: dict[str, Any]
) -> None:
    disk = FakeDisk()
    async with life(disk) as fleet:
        await ask(fleet)
        learned = step(fleet)
    for name in ("trust", "hits", "loads"):
        disk.documents[KIND, name] = document
    disk.documents[KIND, "astrology"] = document
    caplog.clear()
    async with life(disk) as fleet:
        assert step(fleet) == pytest.approx(learned, rel=0.05), "the rest is used"
        await ask(fleet)
    (line,) = [record for record in caplog.records if KIND in record.getMessage() and record.levelname == "WARNING"]
    assert line.getMessage().startswith("4 of the kept documents")
    assert disk.stored[KIND]["trust"]["version"] == VERSION, "and is replaced when something was learned"


@pytest.mark.parametrize("at", [-1e300, 0.0, 1e300])
async def test_hostile_times_and_too_many_rows_never_keep_a_fleet_from_starting(
    autojump_clock: MockClock, at: float
) -> None:
    disk = FakeDisk()
    rows = [
        ["a", "m:latest", [[1e300, 1.0, 1.0, 1e300, 1.0], []]],
        ["a", None, 3],
        None,
        *([["x", "y", [[], []]]] * 9000),
    ]
    for name in ESTIMATORS:
        disk.documents[KIND, name] = {"version": VERSION, "at": at, "rows": rows}
    async with life(disk) as fleet:
        await ask(fleet)
        assert step(fleet) < 1.0


async def test_what_belongs_to_servers_and_models_that_are_gone_is_dropped(autojump_clock: MockClock) -> None:
    disk = FakeDisk()
    async with life(disk, ("a", SLOW), ("b", SLOW)) as fleet:
        for server in "ab":
            for model in "mn":
                await ask(fleet, 2, pinned=server, model=model)
    assert {tuple(row[:2]) for row in disk.stored[KIND]["trust"]["rows"]} == {
        (server, f"{model}:latest") for server in "ab" for model in "mn"
    }
    async with life(disk, ("a", SLOW), models="m:latest:1GB", **PLANS) as fleet:
        trust = estimates(fleet).trust
        assert trust.of(Pair(ServerId("b"), M)) is None
        await ask(fleet, 1)
    assert [row[:2] for row in disk.stored[KIND]["trust"]["rows"]] == [["a", "m:latest"]]
    assert {row[0] for row in disk.stored[KIND]["service"]["rows"]} == {"m:latest", ""}
