"""Breakers, bans and the queue's pause go on where the last process ended."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.persisted_state import key_of, parts_of
from actors.state.messages import BanPair, LiftBans, PauseQueue
from actors.storage.journal import Document
from fleet.breakers.gate import GateState
from fleet.breakers.outcomes import Signal
from fleet.breakers.state_machine import BreakerState
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.scheduling.bans import BanKind
from tests.kit.fleets.fleet import Client, Fleet, chat, open_fleet
from tests.kit.fleets.store import FakeDisk, journal_on

PAIR = Pair(ServerId("a"), ModelName("m:latest"))
OTHER = Pair(ServerId("b"), ModelName("m:latest"))


_OFFSET = [0.0]
"""The time of day minus the virtual clock: another one for each process, as it is with real clocks."""


@asynccontextmanager
async def restarted(disk: FakeDisk, *servers: str, ago: float = 0.0, **config: Any) -> AsyncIterator[Fleet]:
    """A fleet over what the disk holds. `ago`: seconds for which no process ran before."""
    _OFFSET[0] += ago
    journal, store = journal_on(disk)
    async with open_fleet(*(servers or ("a", "b")), journal=journal, **config) as fleet:
        yield fleet
        await wait_all_tasks_blocked()
        assert await journal.kept(1.0)
    await store.finish()


@pytest.fixture(autouse=True)
def _wall(monkeypatch: pytest.MonkeyPatch) -> None:
    _OFFSET[0] = 1_000_000.0
    monkeypatch.setattr("actors.kit.clock.time.time", lambda: trio.current_time() + _OFFSET[0])


def day(moment: float | None) -> Any:
    """The time of day, roughly."""
    assert moment is not None
    return pytest.approx(moment + _OFFSET[0], abs=1e-6)


async def trip(fleet: Fleet, pair: Pair = PAIR) -> None:
    for _ in range(3):
        fleet.system.breakers.record(pair, Signal.FAILURE, "refused_500")
        await wait_all_tasks_blocked()


async def force(fleet: Fleet, state: BreakerState, by: str = "ann") -> None:
    promise = fleet.system.breakers.force(PAIR, state, by)
    assert promise is not None
    await promise.wait(1.0)


def ban(fleet: Fleet, pair: Pair, until: float = math.inf, *, cooldown: bool = False, reason: str = "slow") -> None:
    fleet.system.scheduler.mailbox.cast(BanPair(pair, reason, until, cooldown, by="ann"))


def pause(fleet: Fleet, paused: bool) -> None:
    fleet.system.scheduler.mailbox.cast(PauseQueue(paused, "ann"))


def of_kind(disk: FakeDisk, kind: str) -> dict[str, Document]:
    return disk.stored.get(kind, {})


# ---- keys


@pytest.mark.parametrize("parts", [("a", "m:latest"), ('a","b', "c"), ("a:b", "x/y:z é😀\ud800\0"), ("", "")])
def test_a_key_is_unambiguous_whatever_is_in_its_parts(parts: tuple[str, str]) -> None:
    key = key_of(*parts)
    assert parts_of(key, 2) == list(parts)
    assert key.isascii()


@pytest.mark.parametrize("key", ["", "a", "[]", '["a"]', '["a",1]', '{"a":1}', '["a","b","c"]', "null"])
def test_what_is_no_key_is_told(key: str) -> None:
    with pytest.raises(ValueError, match=r"key of ours|Expecting|Extra"):
        parts_of(key, 2)


# ---- breakers


async def test_an_open_breaker_is_open_after_a_restart_until_its_time(autojump_clock: MockClock) -> None:
    disk = FakeDisk()
    async with restarted(disk) as fleet:
        await trip(fleet)
        before = fleet.system.breakers.get(PAIR)
        assert before is not None
        since, retry = day(before.since), day(before.next_retry_at)
        history = [(day(t.at), t.to) for t in before.history]
    async with restarted(disk, ago=20.0) as fleet:
        after = fleet.system.breakers.get(PAIR)
        assert after is not None
        assert after.next_retry_at is not None
        assert (after.state, after.why, after.error_counts) == (BreakerState.OPEN, before.why, {"refused_500": 3})
        assert after.since + _OFFSET[0] == since
        assert after.next_retry_at + _OFFSET[0] == retry
        assert [(t.at + _OFFSET[0], t.to) for t in after.history] == history
        assert (after.last_failure or 0.0) < trio.current_time() - 19.0
        assert fleet.cell("a").state.gates[PAIR.model].state is GateState.SHUT
        for _ in range(5):
            await fleet.system.exchange(chat(), client := Client())
            assert client.headers["x-fleet-server"] == "b"
        await trio.sleep(135.0 - 20.0)
        view = fleet.system.breakers.get(PAIR)
        assert view is None or view.state is not BreakerState.OPEN


async def test_time_goes_on_while_no_process_runs(autojump_clock: MockClock) -> None:
    disk = FakeDisk()
    async with restarted(disk) as fleet:
        await trip(fleet)
    async with restarted(disk, ago=500.0) as fleet:
        await wait_all_tasks_blocked()
        view = fleet.system.breakers.get(PAIR)
        assert view is not None
        assert view.state is BreakerState.HALF_OPEN
        assert fleet.cell("a").state.gates[PAIR.model].permits > 0
        since = day(view.since)
    async with restarted(disk, ago=50.0) as fleet:
        again = fleet.system.breakers.get(PAIR)
        assert again is not None
        assert again.state is BreakerState.HALF_OPEN
        assert again.since + _OFFSET[0] == since


@pytest.mark.parametrize("state", list(BreakerState))
async def test_a_forced_state_survives_with_who_and_since_when(autojump_clock: MockClock, state: BreakerState) -> None:
    disk = FakeDisk()
    async with restarted(disk) as fleet:
        await trio.sleep(7.0)
        await force(fleet, state)
        before = fleet.system.breakers.get(PAIR)
        assert before is not None
        since = day(before.since)
    for _ in range(2):
        async with restarted(disk, ago=5_000.0) as fleet:
            await trip(fleet)
            after = fleet.system.breakers.get(PAIR)
            assert after is not None
            assert (after.state, after.forced_by) == (state, "ann")
            assert after.since + _OFFSET[0] == since
    async with restarted(disk) as fleet:
        promise = fleet.system.breakers.reset(PAIR)
        assert promise is not None
        await promise.wait(1.0)
    assert of_kind(disk, "breaker") == {}


async def test_forced_by_another_is_written_again(autojump_clock: MockClock) -> None:
    disk = FakeDisk()
    async with restarted(disk) as fleet:
        await force(fleet, BreakerState.OPEN, "ann")
        await trio.sleep(1.0)
        await force(fleet, BreakerState.OPEN, "bob")
    (document,) = of_kind(disk, "breaker").values()
    assert document["forced_by"] == "bob"


async def test_a_breaker_that_closes_is_forgotten(autojump_clock: MockClock) -> None:
    disk = FakeDisk()
    async with restarted(disk) as fleet:
        await trip(fleet)
        assert await fleet.system.journal.kept(1.0)
        assert list(of_kind(disk, "breaker")) == ['["a","m:latest"]']
        await trio.sleep(135.0)
        while fleet.system.breakers.get(PAIR) is not None:
            generation = fleet.cell("a").state.gates[PAIR.model].generation
            fleet.system.breakers.record(PAIR, Signal.SUCCESS, "completed", generation)
            await wait_all_tasks_blocked()
    assert of_kind(disk, "breaker") == {}


async def test_closed_breakers_are_not_kept(autojump_clock: MockClock) -> None:
    disk = FakeDisk()
    async with restarted(disk) as fleet:
        fleet.system.breakers.record(PAIR, Signal.FAILURE, "refused_500")
        await wait_all_tasks_blocked()
        assert fleet.system.breakers.get(PAIR) is not None
    assert of_kind(disk, "breaker") == {}


async def test_without_breakers_kept_ones_are_forgotten(autojump_clock: MockClock) -> None:
    disk = FakeDisk()
    async with restarted(disk) as fleet:
        await trip(fleet)
    async with restarted(disk, enable_circuit_breaker=False) as fleet:
        assert fleet.system.breakers.describe() == []
    assert of_kind(disk, "breaker") == {}


async def test_a_clock_that_was_set_back_keeps_no_breaker_open_for_longer(
    autojump_clock: MockClock,
) -> None:
    disk = FakeDisk()
    async with restarted(disk) as fleet:
        await trip(fleet)
        ban(fleet, Pair(OTHER.server, ModelName("another:latest")), trio.current_time() + 60.0)
    async with restarted(disk, ago=-900_000.0) as fleet:
        view = fleet.system.breakers.get(PAIR)
        assert view is not None
        assert view.next_retry_at is not None
        assert view.since <= trio.current_time() + 1e-6
        assert view.next_retry_at - trio.current_time() <= 133.1
        (kept,) = fleet.system.scheduler.bans.list(trio.current_time())
        assert kept.expires_at - trio.current_time() <= 60.1


# ---- bans


async def test_bans_and_cooldowns_survive_until_they_expire(autojump_clock: MockClock) -> None:
    disk = FakeDisk()
    strange = Pair(ServerId("b"), ModelName('hf.co/x","y:latest'))
    async with restarted(disk) as fleet:
        now = trio.current_time()
        ban(fleet, PAIR)
        ban(fleet, PAIR, now + 100.0, cooldown=True, reason="no such model")
        ban(fleet, OTHER, now + 10.0)
        ban(fleet, strange, now + 1000.0)
        before = fleet.system.scheduler.bans.list(now)
        assert len(before) == 4
        times = {(b.pair, b.kind): (day(b.banned_at), day(b.expires_at)) for b in before}
    async with restarted(disk, ago=20.0) as fleet:
        after = fleet.system.scheduler.bans.list(trio.current_time())
        assert {(b.pair, b.kind, b.reason, b.by) for b in after} == {
            (b.pair, b.kind, b.reason, b.by) for b in before if b.pair != OTHER
        }
        for each in after:
            found = each.banned_at + _OFFSET[0], each.expires_at + _OFFSET[0]
            assert found == times[each.pair, each.kind]
        assert fleet.cell("a").state.barred == {PAIR.model}
        for _ in range(5):
            await fleet.system.exchange(chat(), client := Client())
            assert client.headers["x-fleet-server"] == "b"
        fleet.system.scheduler.mailbox.cast(LiftBans(kind=BanKind.BAN))
    assert list(of_kind(disk, "ban")) == ['["a","m:latest","cooldown"]']
    async with restarted(disk, ago=200.0) as fleet:
        assert fleet.system.scheduler.bans.list(trio.current_time()) == ()
        assert fleet.cell("a").state.barred == set()
    assert of_kind(disk, "ban") == {}


async def test_a_restored_ban_ends_by_itself(autojump_clock: MockClock) -> None:
    """Nothing happens meanwhile: the dispatcher itself has to wake up for it."""
    disk = FakeDisk()
    async with restarted(disk, "a") as fleet:
        ban(fleet, PAIR, trio.current_time() + 50.0, cooldown=True)
    async with restarted(disk, "a", health={"interval": 3600}, timeouts={"queue": 100}) as fleet:
        await trio.sleep(60.0)
        assert fleet.cell("a").state.barred == set()
        assert len(fleet.system.scheduler.bans) == 0
    assert of_kind(disk, "ban") == {}


async def test_a_ban_of_which_there_are_two_kinds_is_kept_twice(autojump_clock: MockClock) -> None:
    disk = FakeDisk()
    async with restarted(disk) as fleet:
        ban(fleet, PAIR)
        ban(fleet, PAIR, trio.current_time() + 9000.0, cooldown=True)
    assert set(of_kind(disk, "ban")) == {'["a","m:latest","ban"]', '["a","m:latest","cooldown"]'}


async def test_a_replaced_ban_is_written_again(autojump_clock: MockClock) -> None:
    disk = FakeDisk()
    async with restarted(disk) as fleet:
        ban(fleet, PAIR, reason="first")
        assert await fleet.system.journal.kept(1.0)
        ban(fleet, PAIR, reason="second")
    (document,) = of_kind(disk, "ban").values()
    assert (document["reason"], document["expires_at"]) == ("second", None)


# ---- the queue


async def test_a_paused_queue_is_paused_after_a_restart(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FakeDisk()
    async with restarted(disk) as fleet:
        await trio.sleep(3.0)
        pause(fleet, True)
        since = day(fleet.system.scheduler.memory.paused_since)
    async with restarted(disk, ago=100.0) as fleet:
        memory = fleet.system.scheduler.memory
        assert (memory.paused, memory.paused_by) == (True, "ann")
        assert (memory.paused_since or 0.0) + _OFFSET[0] == since
        assert "the queue is paused, as it was before the restart" in caplog.text
        client = Client()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fleet.system.exchange, chat(), client)
            await trio.sleep(5.0)
            assert client.status == 0
            pause(fleet, False)
        assert client.complete
    assert of_kind(disk, "queue") == {}
    async with restarted(disk) as fleet:
        assert not fleet.system.scheduler.memory.paused


# ---- what is out of date, or broken


async def test_what_belongs_to_servers_that_are_gone_is_dropped(autojump_clock: MockClock) -> None:
    disk = FakeDisk()
    async with restarted(disk, "a", "b") as fleet:
        await trip(fleet)
        ban(fleet, PAIR)
        ban(fleet, OTHER)
    assert len(of_kind(disk, "ban")) == 2
    async with restarted(disk, "b") as fleet:
        assert [b.pair for b in fleet.system.scheduler.bans.list(trio.current_time())] == [OTHER]
        assert fleet.system.breakers.describe() == []
    assert (list(of_kind(disk, "ban")), of_kind(disk, "breaker")) == (['["b","m:latest","ban"]'], {})
    async with restarted(disk, "a", "b") as fleet:
        await fleet.system.membership.remove(ServerId("b"))
    assert of_kind(disk, "ban") == {}


TAMPERED: list[tuple[str, str, Any]] = [
    ("breaker", "no key", {}),
    ("breaker", '["a"]', {}),
    ("breaker", '["a","m:latest"]', {}),
    ("breaker", '["a","m:latest"]', {"state": "ajar"}),
    ("breaker", '["a","m:latest"]', {"total": "many"}),
    ("breaker", '["a","m:latest"]', {"run": [1, 2]}),
    ("breaker", '["a","m:latest"]', {"history": [[0, "open", "closed"]]}),
    ("breaker", '["a","m:latest"]', {"since": None}),
    ("ban", '["a","m:latest"]', {"reason": "", "by": "", "banned_at": 0, "expires_at": None}),
    ("ban", '["a","m:latest","curse"]', {"reason": "", "by": "", "banned_at": 0, "expires_at": None}),
    ("ban", '["a","m:latest","ban"]', {"reason": 5, "by": "", "banned_at": 0, "expires_at": None}),
    ("ban", '["a","m:latest","ban"]', {"reason": "", "by": "", "banned_at": "then", "expires_at": None}),
    ("ban", '["a","m:latest","ban"]', {"reason": "", "by": "", "banned_at": 0}),
    ("queue", "paused", {"by": "ann"}),
    ("queue", "paused", {"by": None, "since": 5.0}),
    ("queue", "stopped", {"by": "ann", "since": 5.0}),
]


@pytest.mark.parametrize(("kind", "key", "document"), TAMPERED)
async def test_a_document_that_cannot_be_read_back_is_skipped_with_a_warning(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, kind: str, key: str, document: Document
) -> None:
    disk = FakeDisk()
    async with restarted(disk) as fleet:
        await trip(fleet)
    (whole,) = of_kind(disk, "breaker").values()
    disk.documents.clear()
    full = whole | document if kind == "breaker" and document else document
    disk.documents[kind, key] = orjson.loads(orjson.dumps(full))
    caplog.clear()
    async with restarted(disk) as fleet:
        assert fleet.system.breakers.describe() == []
        assert fleet.system.scheduler.bans.list(trio.current_time()) == ()
        assert not fleet.system.scheduler.memory.paused
        await fleet.system.exchange(chat(), client := Client())
        assert client.complete
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"1 of the kept documents of kind '{kind}' cannot be read")
    assert (kind, key) in disk.documents, "who made it may still read it"


async def test_without_a_store_nothing_is_kept(autojump_clock: MockClock) -> None:
    async with open_fleet("a") as fleet:
        await trip(fleet)
        pause(fleet, True)
        assert fleet.system.journal.pending == 0
