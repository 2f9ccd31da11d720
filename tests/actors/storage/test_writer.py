"""The store's actor on a virtual clock: what is marked gets to disk, once, in bounded batches, whatever happens."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.kit.supervisor import keep_up
from actors.storage import journal as journals
from actors.storage.batches import MOST_DOCUMENTS, MOST_LINES
from actors.storage.database_file import StoreLost
from actors.storage.journal import RECENT, Journal
from actors.storage.writer import MOST_RETRY, PAUSE
from tests.actors.storage.writer_bench import Bench
from tests.kit.fleets.store import FakeDisk, journal_on


@pytest.fixture
async def bench(nursery: trio.Nursery) -> Bench:
    bench = Bench()
    nursery.start_soon(keep_up, "store", bench.store.run)
    await wait_all_tasks_blocked()
    return bench


# ---- without a store


async def test_without_a_store_nothing_piles_up_and_nobody_waits(autojump_clock: MockClock) -> None:
    journal = Journal()
    journal.touch("thing", "a")
    assert await journal.kept(60.0)
    assert trio.current_time() == 0.0
    assert (journal.pending, journal.view().state, journal.view().since) == (0, "off", None)


async def test_without_a_store_the_last_thousand_audit_lines_are_there(autojump_clock: MockClock) -> None:
    journal = Journal()
    for number in range(1500):
        journal.audit({"what": number})
    newest = await journal.history(3)
    assert [line["what"] for line in newest] == [1499, 1498, 1497]
    older = await journal.history(10_000, before=newest[-1]["id"])
    assert [line["what"] for line in older] == list(range(1496, 499, -1))
    assert await journal.history(0) == []
    assert await journal.history(5, before=1) == []


# ---- what is marked gets to disk


async def test_what_changes_is_on_disk_once_it_is_kept(autojump_clock: MockClock, bench: Bench) -> None:
    bench.change("a", 1)
    bench.change("b", 1)
    assert await bench.journal.kept(1.0)
    assert bench.on_disk == {"a": 1, "b": 1}
    bench.change("a", 2)
    bench.forget("b")
    assert await bench.journal.kept(1.0)
    assert bench.on_disk == {"a": 2}
    assert bench.journal.pending == 0


async def test_many_changes_of_one_thing_are_one_question_and_one_row(autojump_clock: MockClock, bench: Bench) -> None:
    for number in range(1000):
        bench.change("a", number)
    assert bench.journal.pending == 1
    assert await bench.journal.kept(1.0)
    assert (bench.on_disk, bench.asked["a"]) == ({"a": 999}, 1)


async def test_batches_are_bounded_and_leave_a_pause_between_them(autojump_clock: MockClock, bench: Bench) -> None:
    for number in range(5 * MOST_DOCUMENTS):
        bench.change(str(number), number)
    for number in range(3 * MOST_LINES):
        bench.journal.audit({"number": number})
    assert await bench.journal.kept(10.0)
    assert [len(batch.documents) for batch in bench.disk.batches] == [MOST_DOCUMENTS] * 5
    assert [len(batch.lines) for batch in bench.disk.batches] == [MOST_LINES] * 3 + [0] * 2
    assert trio.current_time() == pytest.approx(4 * PAUSE)
    assert len(bench.on_disk) == 5 * MOST_DOCUMENTS


async def test_big_documents_make_small_batches(autojump_clock: MockClock, bench: Bench) -> None:
    for number in range(6):
        bench.change(str(number), "x" * 600_000)
    assert await bench.journal.kept(10.0)
    assert [len(batch.documents) for batch in bench.disk.batches] == [2, 2, 2]


async def test_a_change_during_a_write_is_written_after_it(autojump_clock: MockClock, bench: Bench) -> None:
    """`kept` speaks of what was marked before it: a batch that began earlier proves nothing."""
    bench.disk.slow = 1.0
    bench.change("a", 1)
    await trio.sleep(0.5)
    bench.change("a", 2)
    assert await bench.journal.kept(5.0)
    assert bench.on_disk == {"a": 2}
    assert trio.current_time() == pytest.approx(2.0 + PAUSE)


async def test_kept_does_not_wait_for_what_comes_later(
    autojump_clock: MockClock, bench: Bench, nursery: trio.Nursery
) -> None:
    async def go_on_changing() -> None:
        for number in range(1000):
            bench.change(str(number), number)
            await trio.sleep(0.01)

    bench.disk.slow = 0.1
    bench.change("a", 1)
    nursery.start_soon(go_on_changing)
    assert await bench.journal.kept(1.0)
    assert bench.journal.pending


async def test_kept_gives_up_in_time(autojump_clock: MockClock, bench: Bench) -> None:
    bench.disk.slow = 10.0
    bench.change("a", 1)
    assert not await bench.journal.kept(2.0)
    assert trio.current_time() == pytest.approx(2.0)


# ---- the audit log


async def test_history_joins_memory_and_store(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    disk = FakeDisk()
    disk.audit = {number: {"id": number, "what": f"old {number}"} for number in range(1, 21)}
    journal, store = journal_on(disk)
    nursery.start_soon(store.run)
    for number in range(5):
        journal.audit({"what": f"new {number}"})
    found = await journal.history(10)
    assert [line["what"] for line in found[:6]] == ["new 4", "new 3", "new 2", "new 1", "new 0", "old 20"]
    assert [line["id"] for line in found] == list(range(25, 15, -1))
    assert [line["id"] for line in await journal.history(3, before=17)] == [16, 15, 14]
    assert [line["id"] for line in await journal.history(100, before=3)] == [2, 1]


async def test_history_has_every_line_once_however_many_wait(autojump_clock: MockClock, bench: Bench) -> None:
    for number in range(2 * RECENT):
        bench.journal.audit({"number": number})
    assert await bench.journal.kept(30.0)
    bench.disk.trouble = OSError("full")
    for number in range(2 * RECENT, 5 * RECENT):
        bench.journal.audit({"number": number})
    await trio.sleep(1.0)
    before, numbers = None, []
    for _ in range(4):
        page = await bench.journal.history(1000, before)
        before = page[-1]["id"]
        numbers += [line["number"] for line in page]
        if len(numbers) == 3 * RECENT:
            bench.disk.trouble = None
            await trio.sleep(2 * MOST_RETRY)
    assert numbers == list(range(5 * RECENT - 1, RECENT - 1, -1))


@pytest.mark.parametrize("trouble", ["fails", "hangs"])
async def test_history_falls_back_to_memory(autojump_clock: MockClock, bench: Bench, trouble: str) -> None:
    bench.journal.audit({"what": 1})
    assert await bench.journal.kept(1.0)
    if trouble == "fails":
        bench.disk.trouble = OSError("gone")
    else:
        bench.disk.slow = math.inf
    assert [line["what"] for line in await bench.journal.history(10)] == [1]
    assert trio.current_time() < 5.0


# ---- the end


async def test_the_last_flush_writes_what_is_left(autojump_clock: MockClock) -> None:
    bench = Bench()
    for number in range(3 * MOST_DOCUMENTS):
        bench.change(str(number), number)
    with trio.CancelScope() as ended:
        ended.cancel()
        await bench.store.finish()
    assert len(bench.on_disk) == 3 * MOST_DOCUMENTS
    assert bench.disk.closed
    bench.change("late", 1)
    assert bench.journal.pending == 0


@pytest.mark.parametrize("trouble", ["fails", "hangs"])
async def test_the_last_flush_has_a_deadline(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    bench = Bench()
    if trouble == "fails":
        bench.disk.trouble = OSError("full")
    else:
        bench.disk.slow = math.inf
    bench.change("a", 1)
    await bench.store.finish(within=3.0)
    assert trio.current_time() <= 6.0
    assert "the store was closed with 1 changes unwritten" in caplog.text


async def test_a_cancelled_write_is_repeated_by_the_last_flush(autojump_clock: MockClock) -> None:
    bench = Bench()
    bench.disk.slow = 1.0
    bench.change("a", 1)
    bench.journal.audit({"what": 1})
    with trio.move_on_after(0.5):
        await bench.store.run()
    assert bench.on_disk == {}
    await bench.store.finish()
    assert (bench.on_disk, len(bench.disk.audit)) == ({"a": 1}, 1)


# ---- all at once


@pytest.mark.parametrize("seed", range(15))
async def test_kept_never_lies(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Many change and ask at once, while the disk fails and hangs and the actor is ended and begun again."""
    monkeypatch.setattr(journals, "MOST_LINES", 1_000_000)
    dice = random.Random(seed)
    bench = Bench()

    async def change_and_ask() -> None:
        for _ in range(40):
            for _ in range(dice.choice([1, 3, 250])):
                key = str(dice.randrange(300))
                if key in bench.things and dice.random() < 0.2:
                    bench.forget(key)
                else:
                    bench.change(key, bench.things.get(key, 0) + 1)
                bench.journal.audit({"key": key})
            then, line = dict(bench.things), bench.journal._next_line - 1
            changes = dict(versions)
            if await bench.journal.kept(dice.choice([0.1, 2.0])):
                for key in changes:
                    current = changes[key] == versions[key]
                    assert not current or bench.on_disk.get(key) == then.get(key), key
                assert all(number in bench.disk.audit for number in range(1, line + 1))
            await trio.sleep(dice.random())

    versions: Counter[str] = Counter()
    touch = bench.journal.touch

    def counted(kind: str, key: str) -> None:
        versions[key] += 1
        touch(kind, key)

    bench.journal.touch = counted  # type: ignore[method-assign]

    async def spoil() -> None:
        while True:
            bench.disk.trouble = dice.choice([None, None, None, OSError("full"), StoreLost("gone")])
            bench.disk.slow = dice.choice([0.0, 0.0, 0.3, 30.0])
            await trio.sleep(dice.random() * 2.0)

    async def live() -> None:
        while True:
            with trio.move_on_after(dice.random() * 3.0):
                await bench.store.run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(spoil)
        nursery.start_soon(live)
        async with trio.open_nursery() as asking:
            for _ in range(3):
                asking.start_soon(change_and_ask)
        nursery.cancel_scope.cancel()
    bench.disk.trouble, bench.disk.slow = None, 0.0
    await bench.store.finish(within=math.inf)
    assert bench.on_disk == bench.things
    assert sorted(bench.disk.audit) == list(range(1, bench.journal._next_line))
    assert (bench.journal.pending, bench.journal.view().dropped_lines) == (0, 0)


# ---- reading back


async def test_what_cannot_be_read_back_is_left_out_with_one_warning(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal({"thing": {"a": {"n": 1}, "b": {}, "c": {"n": "x"}, "d": {"n": None}, "e": {"n": 5}}})
    assert journal.recall("thing", lambda key, document: (key, int(document["n"]))) == [("a", 1), ("e", 5)]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "3 of the kept documents of kind 'thing'" in caplog.text
    assert journal.recall("nothing", lambda key, document: key) == []
