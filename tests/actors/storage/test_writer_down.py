"""The row "store is down" of the table in docs/architecture.md: live streams and waiting requests go on."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from sqlalchemy import event
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.state.messages import BanPair
from actors.storage import writer as stores
from actors.storage.database import Database
from actors.storage.writer import Store, open_journal
from fleet.common.ids import ModelName, Pair, ServerId
from fleet.simulator import Profile
from tests.kit.fleets.fleet import Client, Fleet, chat, open_fleet
from tests.kit.fleets.store import FakeDisk, journal_on

SWIFT = Profile(load_seconds=0.01, slots=4, tokens_per_second=1000.0)
PAIR = Pair(ServerId("a"), ModelName("m:latest"))
BAN = '["a","m:latest","ban"]'


def ban(fleet: Fleet, reason: str) -> None:
    other = Pair(PAIR.server, ModelName("n:latest"))
    fleet.system.scheduler.mailbox.cast(BanPair(other, reason, trio.current_time() + 9_000.0, by="ann"))


@pytest.mark.parametrize("trouble", ["disk full", "hangs"])
async def test_store_is_down(autojump_clock: MockClock, trouble: str) -> None:
    """Kept in memory up to a bound, retried, health says degraded; nobody who wants an answer notices."""
    disk = FakeDisk()
    journal, _ = journal_on(disk)
    async with open_fleet("a", slots=1, journal=journal) as fleet, trio.open_nursery() as nursery:
        assert await journal.kept(5.0)
        live, waiting = Client(), Client()
        nursery.start_soon(fleet.system.exchange, chat(tokens=3000), live)
        await live.first.wait()
        nursery.start_soon(fleet.system.exchange, chat(tokens=5), waiting)
        if trouble == "disk full":
            disk.trouble = OSError("database or disk is full")
        else:
            disk.slow = float("inf")
        ban(fleet, "first")
        journal.audit({"what": "a ban"})
        await trio.sleep(30.0)
        view = journal.view()
        assert view.state == "degraded"
        assert view.why in ("database or disk is full", "it takes too long")
        assert view.pending >= 2
        assert not await journal.kept(60.0)
        assert len(live.records) > 1000, "the stream goes on"
        while not waiting.finished:
            await trio.sleep(1.0)
        assert live.complete
        assert waiting.complete
        ban(fleet, "second")
        disk.trouble, disk.slow = None, 0.0
        await trio.sleep(stores.WRITE_WITHIN + stores.MOST_RETRY)
        assert journal.view().state == "ok"
        assert [document["reason"] for document in disk.stored["ban"].values()] == ["second"]
        assert [line["what"] for line in disk.audit.values()] == ["a ban"]
        fleet.assert_nothing_left()


async def test_store_is_down_because_its_actor_crashes(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expected_errors: list[str]
) -> None:
    """It crashes again and again, is given up for a while, and goes on where it was. The fleet serves meanwhile."""
    expected_errors += ["actor store crashed", "actor store is given up"]
    disk = FakeDisk()
    journal, _ = journal_on(disk)
    async with open_fleet("a", journal=journal) as fleet:
        assert await journal.kept(5.0)
        original = Store._write

        async def crash(self: Store, batch: Any) -> None:
            raise RuntimeError("injected")

        monkeypatch.setattr(Store, "_write", crash)
        ban(fleet, "kept")
        await trio.sleep(5.0)
        assert journal.view().state == "degraded"
        await fleet.system.exchange(chat(), client := Client())
        assert client.complete
        monkeypatch.setattr(Store, "_write", original)
        await trio.sleep(60.0)
        assert journal.view().state == "ok"
        assert [document["reason"] for document in disk.stored["ban"].values()] == ["kept"]


class Quota:
    """A disk that is full beyond so many pages; 0: it has room again."""

    def __init__(self, database: Database) -> None:
        self._engine = database.engine
        self.pages = 0
        event.listen(self._engine, "connect", self._narrow)

    def _narrow(self, connection: Any, _: object) -> None:
        if self.pages:
            connection.execute(f"PRAGMA max_page_count={self.pages}").close()

    def set(self, pages: int) -> None:
        self.pages = pages
        self._engine.dispose()


async def test_store_is_down_as_sqlite_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A real database with a real limit, in real time."""
    monkeypatch.setattr(stores, "MOST_RETRY", 0.2)
    monkeypatch.setattr(stores, "RETRY", 0.05)
    caplog.set_level("INFO", "fleet.store")
    journal, store = await open_journal(tmp_path / "fleet.db", 1000, time.time)
    assert store is not None
    database = store._target
    assert isinstance(database, Database)
    quota = Quota(database)
    things = {"text": "small"}
    journal.keep("thing", lambda key: {"text": things["text"]})
    async with open_fleet(("a", SWIFT), journal=journal) as fleet:
        journal.touch("thing", "x")
        assert await journal.kept(5.0)
        await trio.to_thread.run_sync(quota.set, 1)  # never below what there is
        things["text"] = "x" * 500_000
        journal.touch("thing", "x")
        assert not await journal.kept(5.0)
        view = journal.view()
        assert (view.state, view.why, view.pending) == ("degraded", "database or disk is full", 1)
        await fleet.system.exchange(chat(), client := Client())
        assert client.complete
        assert (await journal.history(5)) == []
        quota.set(0)
        with trio.fail_after(60):
            while journal.view().state != "ok":
                await trio.sleep(0.02)
        assert await journal.kept(5.0)
    await store.finish()
    assert [record.levelname for record in caplog.records if record.name == "fleet.store"] == ["WARNING", "INFO"]
    again, other = await open_journal(tmp_path / "fleet.db", 1000, time.time)
    assert other is not None
    assert again.stored["thing"] == {"x": things}
    await other.finish()


async def test_store_is_down_because_somebody_removed_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is known is written anew."""
    monkeypatch.setattr(stores, "MOST_RETRY", 0.1)
    path = tmp_path / "data" / "fleet.db"
    journal, store = await open_journal(path, 1000, time.time)
    assert store is not None
    journal.keep("thing", lambda key: {"is": key})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        for key in "abc":
            journal.touch("thing", key)
        assert await journal.kept(5.0)
        for file in path.parent.iterdir():
            file.unlink()
        path.parent.rmdir()
        journal.touch("thing", "d")
        assert not await journal.kept(5.0)
        assert "is gone" in journal.view().why
        with trio.fail_after(60):
            while journal.view().state != "ok":
                await trio.sleep(0.02)
        assert await journal.kept(5.0)
        nursery.cancel_scope.cancel()
    await store.finish()
    again, other = await open_journal(path, 1000, time.time)
    assert other is not None
    assert again.stored["thing"] == {key: {"is": key} for key in "abcd"}
    await other.finish()


async def test_a_store_that_opens_too_slowly_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The fleet starts without it, and the late thread lets go of the file."""
    original = Database.open
    go_on, done = trio.Event(), trio.Event()

    def slow(self: Database) -> Any:
        trio.from_thread.run(go_on.wait)
        return original(self)

    def close(self: Database) -> None:
        shut(self)
        trio.from_thread.run_sync(done.set)

    shut = Database.close
    monkeypatch.setattr(Database, "open", slow)
    monkeypatch.setattr(Database, "close", close)
    journal, store = await open_journal(tmp_path / "fleet.db", 1000, time.time, within=0.05)
    view = journal.view()
    assert (store, view.state) == (None, "degraded")
    assert "could not be read in time" in view.why
    assert not await journal.kept(5.0)
    go_on.set()
    with trio.fail_after(20):
        await done.wait()
    monkeypatch.undo()
    _, again = await open_journal(tmp_path / "fleet.db", 1000, time.time)
    assert again is not None
    await again.finish()


async def test_without_a_usable_place_the_fleet_serves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "data").write_text("a file where the directory should be")
    journal, store = await open_journal(tmp_path / "data" / "fleet.db", 1000, time.time)
    assert store is None
    async with open_fleet(("a", SWIFT), journal=journal) as fleet:
        ban(fleet, "forgotten at the end")
        journal.audit({"what": "a ban"})
        await fleet.system.exchange(chat(), client := Client())
        assert client.complete
        view = journal.view()
        assert (view.state, view.pending) == ("degraded", 0)
        assert view.path == os.fspath(tmp_path / "data" / "fleet.db")
        assert [line["what"] for line in await journal.history(10)] == ["a ban"]
    assert [record.levelname for record in caplog.records if record.name == "fleet.store"] == ["WARNING"]


async def test_a_corrupt_store_stays_visible(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    path.write_bytes(b"not a database" * 100)
    journal, store = await open_journal(path, 1000, time.time)
    assert store is not None
    view = journal.view()
    assert view.state == "ok"
    assert await trio.Path(view.moved_aside).read_bytes() == b"not a database" * 100
    await wait_all_tasks_blocked()
    await store.finish()
